"""The numbers of a run's training, read on from where they were left, and as a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from windtunnel.errors import ArtifactError
from windtunnel.files import open_regular
from windtunnel.training.events import Evaluation, Started, Step, from_line
from windtunnel.training.run import METRICS, Run

Numbers = npt.NDArray[np.float64]
OF_STEPS = ("loss", "lr", "grad_norm", "tokens_per_second")
AXES = ("step", "tokens", "seconds")
DEV = "dev "


class Log:
    """The numbers of a run's log; read on from where it was left."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.at, self.inode = 0, 0
        self.steps: dict[int, Step] = {}
        self.dev: dict[int, Evaluation] = {}
        self.columns: dict[str, tuple[Numbers, Numbers]] = {}

    def update(self, run: Run) -> None:
        """Read what has been added; of a step that was repeated after a resume the last counts.

        Raises:
            ArtifactError: for a line that was altered.
        """
        try:
            descriptor = open_regular(run.folder / METRICS)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if status.st_ino != self.inode or status.st_size < self.at:
                self._forget()
                self.inode = status.st_ino
            try:
                self._read(file)
            except ValueError:  # a resume cuts a log back, and it may have grown again since
                self._forget()
                try:
                    self._read(file)
                except ValueError as error:
                    raise ArtifactError(f"{run.folder / METRICS} was altered ({error})") from None
            self.inode = status.st_ino

    def _read(self, file: BinaryIO) -> None:
        file.seek(self.at)
        whole, end, _ = file.read().rpartition(b"\n")
        for line in whole.split(b"\n") if end else ():
            self._add(from_line(line.decode() + "\n"))
        if end:
            self.at += len(whole) + 1
            self.columns = {}

    def _add(self, event: object) -> None:
        if isinstance(event, Started):  # a resumed run forgets what it did after its checkpoint
            self.steps = {step: one for step, one in self.steps.items() if step <= event.step}
            self.dev = {step: one for step, one in self.dev.items() if step <= event.step}
        elif isinstance(event, Step):
            self.steps[event.step] = event
        elif isinstance(event, Evaluation) and event.split == "dev":
            self.dev[event.step] = event

    def quantities(self) -> list[str]:
        """What can be drawn."""
        scores = dict.fromkeys(name for one in self.dev.values() for name in one.scores)
        return [*(OF_STEPS if self.steps else ()), *(DEV + name for name in scores)]

    def curve(self, quantity: str) -> tuple[Numbers, Numbers]:
        """(steps, values) in float64."""
        if quantity not in self.columns:
            self.columns[quantity] = self._curve(quantity)
        return self.columns[quantity]

    def _curve(self, quantity: str) -> tuple[Numbers, Numbers]:
        pairs: list[tuple[float, float]]
        if quantity.startswith(DEV):
            score = quantity.removeprefix(DEV)
            pairs = [(step, one.scores[score]) for step, one in self.dev.items() if score in one.scores]
        elif quantity == "tokens_per_second":
            pairs = [(step, one.n_tokens / one.seconds) for step, one in self.steps.items() if one.seconds > 0]
        else:
            pairs = [(step, getattr(one, quantity)) for step, one in self.steps.items()]
        values = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        return values[:, 0], values[:, 1]

    def axis(self, steps: Numbers, name: str) -> Numbers:
        """Where steps lie: their numbers, or the tokens or seconds of training up to and with them."""
        if name == "step":
            return steps
        field = "n_tokens" if name == "tokens" else "seconds"
        at = np.array([0, *self.steps], dtype=np.float64)
        sums = np.cumsum([0.0, *(getattr(one, field) for one in self.steps.values())])
        return np.asarray(sums[np.searchsorted(at, steps, side="right") - 1])


def as_csv(logs: Sequence[tuple[str, Log]]) -> Iterator[str]:
    """Every step and every evaluation on the dev split of several runs, one a row."""
    scores = list(dict.fromkeys(name for _, log in logs for one in log.dev.values() for name in one.scores))
    yield _row(["run", "step", "tokens", "seconds", "loss", "lr", "grad_norm", *(DEV + name for name in scores)])
    for name, log in logs:
        steps = np.array(sorted({*log.steps, *log.dev}), dtype=np.float64)
        tokens, seconds = log.axis(steps, "tokens"), log.axis(steps, "seconds")
        for step, n_tokens, time in zip(steps.astype(int).tolist(), tokens.tolist(), seconds.tolist(), strict=True):
            one, dev = log.steps.get(step), log.dev.get(step)
            own = [one.loss, one.lr, one.grad_norm] if one else ["", "", ""]
            judged = [dev.scores.get(score, "") if dev else "" for score in scores]
            yield _row([name, step, int(n_tokens), time, *own, *judged])


def _row(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
