"""A range test: one short training while the learning rate rises over seven decades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from windtunnel.inspect.doctor.short_training import train_copy
from windtunnel.tasks import Task
from windtunnel.training.run_config import RunConfig

LOWEST, HIGHEST = 1e-6, 10.0
HALF_LIFE = 2.0


@dataclass(frozen=True)
class RangeTest:
    """The loss of each step while the learning rate rose (Smith 2017, arXiv 1506.01186, section 3.3).

    best: the rate at which the smoothed loss was lowest. explodes: the rate from which it stays above where it began,
        or where the training broke off; None when neither happened.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    best: float
    explodes: float | None


def range_test(model: nn.Module, config: RunConfig, task: Task, steps: int = 40) -> RangeTest:
    """Train a copy of a model with the run's optimizer and batches, the rate rising by the same factor each step."""
    rates = np.geomspace(LOWEST, HIGHEST, steps).tolist()
    done = train_copy(model, config, task, steps, lambda step: rates[step])
    lrs = done.lrs
    if not lrs:
        return RangeTest((), (), (), LOWEST, LOWEST)
    curve = _smoothed(done.losses)
    lowest = int(np.argmin(curve))
    above = [i for i in range(lowest, len(curve)) if curve[i] > curve[0]]
    explodes = lrs[above[0]] if above else rates[len(lrs)] if done.message else None
    return RangeTest(lrs, done.losses, tuple(curve), lrs[lowest], explodes)


def _smoothed(values: tuple[float, ...]) -> list[float]:
    """Exponential moving average without bias (Kingma & Ba 2015, section 3)."""
    keep, total, weight, result = 0.5 ** (1 / HALF_LIFE), 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(total / weight)
    return result
