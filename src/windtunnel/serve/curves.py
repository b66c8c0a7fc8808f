"""The curves of a run's training, thinned so that a browser draws as many points as it has pixels."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.files import open_regular
from windtunnel.training.events import Evaluation, Started, Step, from_line
from windtunnel.training.run import METRICS, Run

Numbers = npt.NDArray[np.float64]
KEPT = 64
"""Runs whose logs are held as numbers."""
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


class Logs:
    """The logs of the runs that were looked at last."""

    def __init__(self) -> None:
        self.logs: OrderedDict[str, Log] = OrderedDict()
        self.lock = threading.Lock()

    def of(self, run: Run) -> Log:
        """The log of a run as it is now."""
        with self.lock:
            log = self.logs.setdefault(str(run.folder), Log())
            self.logs.move_to_end(str(run.folder))
            while len(self.logs) > KEPT:
                self.logs.popitem(last=False)
            log.update(run)
            return log


def smoothed(values: Numbers, n: float) -> Numbers:
    """An exponential mean over about n values, without the pull to the first (Kingma & Ba 2015, section 3)."""
    if n <= 1 or not len(values):
        return values
    from scipy.signal import lfilter

    keep, known = 1 - 1 / n, np.isfinite(values)
    sums = lfilter([1 - keep], [1, -keep], np.where(known, values, 0.0))
    weights = lfilter([1 - keep], [1, -keep], known.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, sums / weights, np.nan))


def band(curves: Sequence[tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers, Numbers]:
    """The steps that all seeds have, the mean over them, and half the width of its 95 % t interval."""
    from scipy.special import stdtrit

    steps = curves[0][0]
    for other, _ in curves[1:]:
        steps = np.intersect1d(steps, other)
    values = np.stack([y[np.searchsorted(x, steps)] for x, y in curves])
    n = len(curves)
    with np.errstate(invalid="ignore"):  # a diverged seed has no spread
        half = float(stdtrit(n - 1, 0.975)) * values.std(axis=0, ddof=1) / np.sqrt(n)
        return steps, values.mean(axis=0), half


def thinned(x: Numbers, middle: Numbers, low: Numbers, high: Numbers, width: int, log: bool) -> dict[str, Any]:
    """At most one point a pixel column: the mean of what lies there, with its lowest and highest."""
    known = np.isfinite(middle) & ((x > 0) | (not log))
    x, middle, low, high = x[known], middle[known], low[known], high[known]
    n = len(x)
    if n > width:
        place = np.log(x) if log else x
        column = ((place - place[0]) / (place[-1] - place[0]) * (width - 1)).astype(np.int64)
        first = np.flatnonzero(np.diff(column, prepend=-1))
        count = np.diff(first, append=n)
        low, high = np.fmin.reduceat(low, first), np.fmax.reduceat(high, first)
        x, middle = np.add.reduceat(x, first) / count, np.add.reduceat(middle, first) / count
    columns = {"x": x, "middle": middle, "low": low, "high": high}
    found = {name: [v if np.isfinite(v) else None for v in column.tolist()] for name, column in columns.items()}
    return {**found, "n": n}


def series(
    groups: Sequence[tuple[str, Sequence[tuple[str, Log]]]],
    quantity: str,
    axis: str = "step",
    width: int = 800,
    first: float | None = None,
    last: float | None = None,
    log: bool = False,
    smooth: float = 0.0,
    banded: bool = True,
) -> list[dict[str, Any]]:
    """The lines of a chart: of each group the mean over its seeds with its interval, or each run by itself.

    Args:
        groups: (name, (run's name, log) of each seed).
        width: pixel columns between first and last.
        log: whether the columns are equally wide in the logarithm.
        smooth: over about how many steps; 0 and 1 are none.
    """
    if axis not in AXES:
        raise ConfigError(f"axis {axis[:40]!r}: expected one of {', '.join(AXES)}")
    lines = []
    for name, runs in groups:
        curves = [(run, one, *one.curve(quantity)) for run, one in runs if quantity in one.quantities()]
        curves = [(run, one, x, smoothed(y, smooth)) for run, one, x, y in curves]
        if banded and len(curves) > 1:
            x, middle, half = band([(x, y) for _, _, x, y in curves])
            place = np.mean([one.axis(x, axis) for _, one, _, _ in curves], axis=0)
            kind = f"mean and 95 % t interval over {len(curves)} seeds"
            lines.append((name, kind, place, middle, middle - half, middle + half))
        else:
            kind = "lowest and highest of each pixel"
            lines += [(run, kind, one.axis(x, axis), y, y, y) for run, one, x, y in curves]
    found = []
    for name, kind, *columns in lines:
        place = columns[0]
        seen = (place >= (-np.inf if first is None else first)) & (place <= (np.inf if last is None else last))
        x, middle, low, high = (column[seen] for column in columns)
        found.append({"name": name, "kind": kind, **thinned(x, middle, low, high, width, log)})
    return found


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
