"""The runs below a folder again and again, as they change: only what may have changed is read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.runs.listing import describe_all
from windtunnel.runs.seeds import RUNS, find_runs
from windtunnel.training.disk import MANIFEST, is_locked
from windtunnel.training.run import METRICS

PAUSE = 0.5
"""Seconds between two looks at the files' times."""
SEEN = ("config.json", "record.json", "tokenizer.json", MANIFEST, METRICS)
"""The files of a run that say what it is and how far it is."""
Stamp = tuple[Any, ...]


def watch_runs(root: Path = RUNS, pause: Callable[[float], None] = time.sleep) -> Iterator[list[dict[str, Any]]]:
    """`describe_all` of the runs below `root`: at once, and whenever the stamp of one changes, or one comes or goes.

    Args:
        pause: waits so many seconds; it ends the watch by an exception, as Ctrl-C does.
    """
    read: dict[Path, tuple[Stamp, dict[str, Any]]] = {}
    shown: list[tuple[Stamp, dict[str, Any]]] | None = None
    while True:
        folders = list(read)
        with suppress(OSError):  # one is just being moved or deleted: they are looked for again
            folders = find_runs(root)
        stamps = {folder: stamp_of(folder) for folder in folders if folder.is_dir()}
        read = {
            folder: read[folder] if folder in read and read[folder][0] == stamp else (stamp, describe_all([folder])[0])
            for folder, stamp in stamps.items()
        }
        if list(read.values()) != shown:
            shown = list(read.values())
            yield [one for _, one in shown]
        pause(PAUSE)


def stamp_of(folder: Path) -> Stamp:
    """What changes whenever a run is trained, altered or let go of."""
    seen: list[Any] = [is_locked(folder)]
    for name in SEEN:
        try:
            found = os.lstat(folder / name)
            seen.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            seen.append(None)
    return tuple(seen)
