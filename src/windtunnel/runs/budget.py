"""What every arm may spend: the same steps, tokens, floating-point operations, or seconds."""

from __future__ import annotations

import itertools
import logging
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from windtunnel.errors import ArtifactError, ConfigError, NumericsError
from windtunnel.files import write_text
from windtunnel.models import build
from windtunnel.runs.arms import ResolvedArm, with_steps
from windtunnel.training import machine
from windtunnel.training.disk import read_sealed, saving, sealed
from windtunnel.training.trainer import Trainer

KINDS = ("steps", "tokens", "flops", "seconds")
log = logging.getLogger(__name__)
ROUNDS, STEPS_A_ROUND = 5, 8


@dataclass(frozen=True)
class Spent:
    """What a whole run of an arm costs, by formula: tokens predicted and matrix-multiply FLOPs."""

    steps: int
    tokens: float
    flops: float
    flops_per_token: float


def parse_budget(text: str) -> tuple[str, float]:
    """`tokens=2e6` as ("tokens", 2000000.0). Raises ConfigError for anything else."""
    kind, _, amount = text.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if kind not in KINDS or not 0 < value < float("inf"):
        raise ConfigError(f"--budget {text!r}: expected one of {', '.join(KINDS)} with an amount, e.g. tokens=2e6")
    return kind, value


def spent(arm: ResolvedArm) -> Spent:
    """What a run of this arm costs."""
    steps = arm.config.train.steps
    tokens, flops = arm.step_cost()
    return Spent(steps, steps * tokens, steps * flops, flops / tokens)


def within_budget(arms: Sequence[ResolvedArm], kind: str, amount: float, folder: Path) -> list[ResolvedArm]:
    """The arms with the number of steps that each can afford.

    Seconds are turned into steps by timing the arms' steps in turns, once: `pace.json` in the comparison's folder
    keeps the times, so that the same command finds the same runs.

    Raises:
        ConfigError: when an arm cannot afford a single step.
    """
    if kind == "steps":
        costs = [1.0 for _ in arms]
    elif kind == "seconds":
        costs = _pace(arms, folder / "pace.json")
    else:
        costs = [arm.step_cost()[kind == "flops"] for arm in arms]
    for arm, cost in zip(arms, costs, strict=True):
        if math.isnan(cost):
            raise ConfigError(
                f"arm {arm.name}: what its change costs in {kind} is not known; give --budget steps=N or seconds=N"
            )
        if amount < cost:
            raise ConfigError(f"arm {arm.name}: one step costs {cost:.3g} {kind}, more than the budget of {amount:g}")
    return [with_steps(arm, int(amount / cost)) for arm, cost in zip(arms, costs, strict=True)]


def _pace(arms: Sequence[ResolvedArm], path: Path) -> list[float]:
    """Seconds a step of each arm: medians, the arms taking turns."""
    try:
        known = read_sealed(path)["seconds"]
        return [float(known[arm.key]) for arm in arms]
    except (FileNotFoundError, ArtifactError, KeyError) as error:
        if path.parent.exists():  # else these arms are compared for the first time
            log.warning("the arms are timed again, and may come to other numbers of steps: %s", error)
    racers = [_racer(arm) for arm in arms]
    times: list[list[float]] = [[] for _ in arms]
    for _ in range(ROUNDS):
        for own, race in zip(times, racers, strict=True):
            own += itertools.islice(race, STEPS_A_ROUND)
    paces = [statistics.median(own[STEPS_A_ROUND:] or own) for own in times]  # the first round warms up
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, sealed({"seconds": {arm.key: pace for arm, pace in zip(arms, paces, strict=True)}}).decode())
    return paces


def _racer(arm: ResolvedArm) -> Iterator[float]:
    """Seconds of one step of training after another, until it diverges."""
    config = arm.config
    torch.set_num_threads(config.train.threads or machine.cores())
    trainer = Trainer.begin(config, arm.task, build(config.model, config.seed), change=arm.change)
    with suppress(NumericsError):
        while True:
            yield trainer.step().seconds
