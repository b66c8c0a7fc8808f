"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from windtunnel.config import Config


class ScheduleConfig(Config):
    """Warm up linearly, then follow a curve from the optimizer's learning rate to `final_fraction` of it."""

    added: ClassVar[frozenset[str]] = frozenset({"ends"})
    curve: Literal["cosine", "linear", "constant", "step"] = "cosine"
    """How the learning rate falls after the warm-up: half a cosine, a straight line, not at all, or in drops."""
    warmup: NonNegativeInt = 100
    """Steps over which the learning rate rises linearly from zero."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """What is left of the learning rate at the last step (after each drop, for the step curve)."""
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5,)
    """For the step curve: after which fractions of the steps behind the warm-up the rate is multiplied by
    `final_fraction`."""
    ends: tuple[PositiveInt, ...] = ()
    """The numbers of steps, rising, for which the run was trained before it was extended, as `resume --steps` does it:
    each step is on the curve of the first number that is greater, and behind them on that of `train.steps`."""


def cosine(progress: float, config: ScheduleConfig) -> float:
    """Half a cosine from 1 to final_fraction (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""
    return config.final_fraction + (1 - config.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float, config: ScheduleConfig) -> float:
    """A straight line from 1 to final_fraction."""
    return 1 + (config.final_fraction - 1) * progress


def constant(progress: float, config: ScheduleConfig) -> float:
    """Always 1."""
    return 1.0


def step_decay(progress: float, config: ScheduleConfig) -> float:
    """Times final_fraction after each drop."""
    return math.prod(config.final_fraction for drop in config.drops if progress >= drop)


CURVES: dict[str, Callable[[float, ScheduleConfig], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "step": step_decay,
}


def learning_rate(step: int, steps: int, peak: float, config: ScheduleConfig) -> float:
    """The learning rate of the update number `step` (from 0) out of `steps`.

    With `config.ends` the curve is that of the first of them behind the step, for as many steps.

    It is `peak` at the last step of the warm-up and at the first one behind it; the curve ends at the last step.
    """
    steps = next((end for end in config.ends if step < end), steps)
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    progress = min(1.0, (step - config.warmup) / max(1, steps - 1 - config.warmup))
    return peak * CURVES[config.curve](progress, config)
