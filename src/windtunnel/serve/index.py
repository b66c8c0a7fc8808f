"""What the page's table says of every run below a folder, read again only where a run's files have changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from windtunnel.config import plain
from windtunnel.errors import ArtifactError
from windtunnel.runs.seeds import result_of
from windtunnel.runs.watching import Stamp, stamp_of
from windtunnel.serve.shelf import Names
from windtunnel.stats.intervals import mean_interval
from windtunnel.training.events import Event, Started, Step, from_line
from windtunnel.training.run import METRICS, Run, open_run

FRESH = 1.0
"""Seconds for which an answer stands before the folder is looked at again."""
PATIENCE = 0.3
"""Seconds that a question waits for runs that have not been read yet; the page asks again for the others."""
BREATH = 0.001
"""Seconds after each run that is read, in which the server may answer others."""
TAIL = 1 << 14
"""Bytes of the end of a log, in which its last steps stand."""


def identity(name: str) -> str:
    """A run's or a result's name below the folder as a part of an address."""
    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Known:
    """A run as it was when its files had this stamp.

    name: what the API calls it; what is shown is in the row.
    """

    name: str
    folder: Path
    stamp: Stamp
    row: dict[str, Any]
    run: Run | None
    """None of a damaged one."""


class Index:
    """The runs below a folder, by identity, the most recently changed first."""

    def __init__(self, root: Path) -> None:
        self.root, self.names = root, Names(root)
        self.known: dict[str, Known] = {}
        self.n_unread = 0
        self.looked = -FRESH
        self.looking = threading.Lock()

    def table(self) -> dict[str, Any]:
        """All rows, in groups of seeds of one config, and how many runs are still to be read."""
        reader = threading.Thread(target=self.refresh, daemon=True)
        reader.start()
        reader.join(PATIENCE)
        rows = [known.row for known in list(self.known.values())]
        return {"folder": str(self.root), "groups": list(groups(rows)), "unread": self.n_unread}

    def refresh(self, wait: bool = False) -> None:
        """Look at the folder again, unless somebody does, or just did.

        Args:
            wait: for somebody who does.
        """
        if not self.looking.acquire(blocking=wait):
            return
        try:
            if time.monotonic() - self.looked < FRESH:
                return
            folders = {identity(name): (name, folder) for name, folder in self.names.runs().items()}
            self.n_unread = len(folders.keys() - self.known.keys())
            self.known = {id: self.known[id] for id in folders if id in self.known}
            for id, (name, folder) in folders.items():
                stamp, is_new = stamp_of(folder), id not in self.known
                if is_new or self.known[id].stamp != stamp:
                    self.known = {**self.known, id: Known(name, folder, stamp, *_read(id, as_text(name), folder))}
                    self.n_unread -= is_new
                    time.sleep(BREATH)
            self.known = {id: self.known[id] for id in folders}
            self.looked = time.monotonic()
        finally:
            self.looking.release()

    def run(self, id: str) -> Run:
        """The sound run of an identity that the table gave.

        Raises:
            ArtifactError: when there is none, or it is damaged.
        """
        return self._sound(id)[1]

    def name(self, id: str) -> str:
        """The name of a sound run below the folder, as it is shown; raises as `run` does."""
        return str(self._sound(id)[0].row["name"])

    def model(self, id: str) -> str:
        """What the API calls a sound run; raises as `run` does."""
        return self._sound(id)[0].name

    def group(self, id: str) -> str:
        """The name of the seeds that a sound run belongs to; raises as `run` does."""
        return str(self._sound(id)[0].row["group"])

    def _sound(self, id: str) -> tuple[Known, Run]:
        known = self.known.get(id)
        if known is None:
            self.refresh(wait=True)
            known = self.known.get(id)
        if known is None:
            raise ArtifactError(f"there is no run {id[:40]!r} in the list; look at the list again")
        if known.run is None:
            raise ArtifactError(str(known.row["message"]))
        return known, known.run


def as_text(name: str) -> str:
    """A folder's name as it may be shown to anybody, a mark in place of what is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read(id: str, name: str, folder: Path) -> tuple[dict[str, Any], Run | None]:
    group = name.rpartition("/")[0] if folder.name.startswith("seed-") and "/" in name else name
    about: dict[str, Any] = {"id": id, "name": name, "group": group}
    try:
        run = open_run(folder)
        return {**about, **_facts(run)}, run
    except ArtifactError as error:
        return {**about, "state": "damaged", "message": str(error)}, None


def _facts(run: Run) -> dict[str, Any]:
    steps = last_steps(run.folder / METRICS)
    events: list[Event] = [*run.events("started", "evaluation", "saved", "stopped"), *steps]
    result = result_of(run, events)
    sizes = [event.n_parameters for event in events if isinstance(event, Started)]
    seconds = sum(step.seconds for step in steps)
    config = run.config
    return {
        "state": run.record.get("made") or result.reason,
        "message": result.message,
        "step": result.step,
        "steps": config.train.steps,
        "dev": plain(result.dev.scores) if result.dev else None,
        "corpus": Path(config.corpus).name,
        "family": config.model.family,
        "reads": config.model.reads,
        "seed": config.seed,
        "parameters": sizes[-1] if sizes else None,
        "tokens_per_second": sum(step.n_tokens for step in steps) / seconds if seconds > 0 else None,
    }


def last_steps(path: Path) -> list[Step]:
    """The last steps of a log, without reading the rest of it; whether its lines are whole `read_events` judges."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in lines:
        if line.startswith(b'{"event": "step"'):
            try:
                event = from_line(line.decode() + "\n")
            except ValueError as error:
                raise ArtifactError(f"{path} was altered in one of its last lines ({error})") from None
            if isinstance(event, Step):
                found.append(event)
    return found


def groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Runs that differ in their seed alone, with the mean of their dev losses where they finished."""
    members: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        members.setdefault(row["group"], []).append(row)
    for name, runs in members.items():
        ends = [row for row in runs if row["state"] == "finished" and row["dev"]]
        scores = {
            metric: plain(mean_interval([row["dev"][metric] for row in ends]))
            for metric in (ends[0]["dev"] if ends else ())
            if all(row["dev"].get(metric) is not None for row in ends)
        }
        yield {"name": name, "runs": sorted(runs, key=lambda row: row.get("seed", 0)), "scores": scores}
