"""What 002-5.1 measures: the noise of a batch's gradient, the memory of a batch, and how long a loss took to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from windtunnel.experiments.frame import interval
from windtunnel.experiments.speed import exponent
from windtunnel.inspect.cost import activation_bytes
from windtunnel.models import ModelConfig
from windtunnel.stats.intervals import Estimate, mean_interval, paired_ratio
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.run import open_run


@dataclass(frozen=True)
class Reached:
    """When the dev loss was first seen at or below a target; of a run that never came there, all that it spent.

    censored: it never came there, so that the truth lies above every number here.
    """

    steps: int
    examples: int
    seconds: float
    censored: bool


def reached(folder: Path, target: float) -> Reached:
    """Read it from a run's log; seconds are those of the steps, without evaluations."""
    run, seconds, step = open_run(folder), 0.0, 0
    size = run.config.train.batch_size
    for event in run.events():
        if isinstance(event, Step):
            step, seconds = event.step, seconds + event.seconds
        elif isinstance(event, Evaluation) and event.split == "dev" and event.loss <= target:
            return Reached(step, step * size, seconds, False)
    return Reached(step, step * size, seconds, True)


def summary(found: Sequence[Reached], unit: str, form: str) -> str:
    """The mean with its interval where every run came there; else a median or a bound, no mean of the survivors.

    Args:
        unit: steps, examples or seconds.
    """
    values, bounds = [getattr(one, unit) for one in found], [getattr(one, unit) for one in found if one.censored]
    if not bounds:
        return interval(mean_interval(values), form)
    bound, censored = min(bounds), f"{len(bounds)} of {len(found)}"
    if len(bounds) < len(found) / 2:  # a run that never came there lies above the median, wherever it lies
        return f"median {median(values):{form}}; {censored} not within {bound:{form}}"
    return f"more than {bound:{form}} in {censored}"


def times_longer(slow: Sequence[Reached], fast: Sequence[Reached]) -> Estimate | None:
    """Seconds of one arm over those of another, paired by seed; at least so many where `slow` is censored.

    None where the faster one did not come there itself, or the pairs say nothing.
    """
    if any(one.censored for one in fast):
        return None
    try:
        return paired_ratio([one.seconds for one in fast], [one.seconds for one in slow])
    except ValueError:
        return None


def activation_memory(config: ModelConfig, sizes: Sequence[int]) -> dict[int, int]:
    """Bytes that autograd keeps for batches of these sizes at the full context, as `windtunnel cost` counts them."""
    return {size: activation_bytes(config, size, config.context_length, "fp32") for size in sizes}


def slopes(sizes: Sequence[int], variances: np.ndarray) -> Estimate:
    """d log(variance) / d log(B), a line for each epoch."""
    return mean_interval([exponent(sizes, row) for row in variances])


def dev_curve(folder: Path) -> dict[str, list[float]]:
    """Dev loss of a run against steps, examples and seconds, from the first step on."""
    run, seconds = open_run(folder), 0.0
    curve: dict[str, list[float]] = {"steps": [], "examples": [], "seconds": [], "loss": []}
    for event in run.events():
        if isinstance(event, Step):
            seconds += event.seconds
        elif isinstance(event, Evaluation) and event.split == "dev" and event.step:
            row = (event.step, event.step * run.config.train.batch_size, seconds, event.loss)
            for values, value in zip(curve.values(), row, strict=True):
                values.append(value)
    return curve
