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

PAUSE = 0.5
"""Seconds between two looks at the files' times."""
FRESH = 2.0
"""Seconds after which a run that has not ended is read again in any case: a lock leaves no trace when it is let go."""
ENDED = ("finished", "diverged", "failed")
Stamp = tuple[tuple[str, int, int], ...]


def watch_runs(root: Path = RUNS, pause: Callable[[float], None] = time.sleep) -> Iterator[list[dict[str, Any]]]:
    """`describe_all` of the runs below `root`: at once, whenever a file of theirs changes, and every 2 seconds.

    Args:
        pause: waits so many seconds; it ends the watch by an exception, as Ctrl-C does.
    """
    read: dict[Path, tuple[Stamp, dict[str, Any]]] = {}
    last = -FRESH
    while True:
        folders = list(read)
        with suppress(OSError):  # one is just being moved or deleted: they are looked for again
            folders = find_runs(root)
        stamps = {folder: stamp for folder in folders if (stamp := _stamp(folder)) is not None}
        old = time.monotonic() - last >= FRESH
        changed = {folder for folder, stamp in stamps.items() if folder not in read or read[folder][0] != stamp}
        if old or changed or stamps.keys() != read.keys():
            last = time.monotonic() if old else last
            read = {
                folder: (stamp, describe_all([folder])[0])
                if folder in changed or (old and read[folder][1]["state"] not in ENDED)
                else read[folder]
                for folder, stamp in stamps.items()
            }
            yield [one for _, one in read.values()]
        pause(PAUSE)


def _stamp(folder: Path) -> Stamp | None:
    """Name, time and size of each of its files; none of a folder that may not be read, None of one that is gone."""
    try:
        with os.scandir(folder) as entries:
            files = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return None
    except OSError:
        return ()
    return tuple(sorted((name, state.st_mtime_ns, state.st_size) for name, state in files))
