"""The curves of a run's training, thinned so that a browser draws as many points as it has pixels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.runs.history import AXES, Log, Numbers
from windtunnel.training.run import Run

KEPT = 64
"""Runs whose logs are held as numbers."""


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
