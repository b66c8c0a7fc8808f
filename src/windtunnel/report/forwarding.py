"""The numbers of training for another tracker, as they come; whatever it does, the run folder stays the truth."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from contextvars import Context
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from windtunnel.config import fingerprint
from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.report.tracking import log_of, numbers_of
from windtunnel.training.run import Run, open_run

TRACKERS = ("trackio", "wandb")
PROJECT = "windtunnel"


class Forwarding:
    """Gives what is added to the logs of runs to a tracker; a context manager.

    The tracker's first failure is said, and is the end of it.

    Args:
        tracker: one of TRACKERS, or None for nobody.
        folders: of the runs. What their logs hold already is not told again.
        warn: where a failure is said.

    Raises:
        ConfigError: for another tracker.
        MissingExtra: for one that is not installed.
    """

    def __init__(self, tracker: str | None, folders: Sequence[Path], warn: Callable[[str], None]) -> None:
        if tracker is not None and tracker not in TRACKERS:
            raise ConfigError(f"--log {tracker}: expected {' or '.join(TRACKERS)}")
        if tracker is not None and importlib.util.find_spec(tracker) is None:
            raise MissingExtra(tracker, f"--log {tracker}")
        self.tracker, self.warn = tracker, warn
        self.told = {folder: _Told(open_run(folder)) for folder in folders} if tracker else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for told in self.told.values():
            self._attempt(told.finish)

    def look(self, folder: Path) -> None:
        """Tell what is new in the log of a folder."""
        self._attempt(lambda: self.told[folder].go_on(str(self.tracker)))

    def _attempt(self, what: Callable[[], None]) -> None:
        if self.tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):  # where it may say what it likes
                what()
        except Exception as problem:  # noqa: BLE001 - training matters more than any fault of a tracker
            given = f"{type(problem).__name__}: {problem}"
            self.warn(f"{self.tracker} failed and is told nothing more ({given}); the run folder has all numbers")
            self.tracker = None


class _Told:
    """How far a run has been told."""

    def __init__(self, run: Run) -> None:
        self.run, self.log = run, log_of(run)
        self.step, self.dev = max(self.log.steps, default=-1), max(self.log.dev, default=-1)
        self.there: Any = None

    def go_on(self, tracker: str) -> None:
        if self.there is None:
            self.there = self._begin(tracker)
        self.log.update(self.run)
        steps = {number: step for number, step in self.log.steps.items() if number > self.step}
        dev = {number: one for number, one in self.log.dev.items() if number > self.dev}
        for number in sorted({*steps, *dev}):
            self.there.log({**numbers_of(steps.get(number)), **numbers_of(dev.get(number))}, step=number)
        self.step, self.dev = max([self.step, *steps]), max([self.dev, *dev])

    def finish(self) -> None:
        if self.there is not None:
            self.there.finish()

    def _begin(self, tracker: str) -> Any:
        """The tracker's own run: the same one for a run that goes on."""
        run, folder = self.run, self.run.folder.absolute()
        identity = sha256(f"{folder} {fingerprint(run.config)}".encode()).hexdigest()[:8]
        about = {"name": f"{run.name}-{identity}", "group": folder.parent.name, "resume": "allow"}
        if tracker == "wandb":  # which has one run in a process unless it is told, and goes on by id alone
            about |= {"id": identity, "reinit": "create_new"}
        module = importlib.import_module(tracker)
        config = run.config.model_dump(mode="json")
        # In a context of its own: where trackio finds a run in its context, it finishes that one first.
        return Context().run(lambda: module.init(project=PROJECT, config=config, **about))
