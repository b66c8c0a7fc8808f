"""How long the runs of a study take here: steps of several sizes are timed as they will run, side by side."""

from __future__ import annotations

import heapq
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import make_grid, train_grid
from windtunnel.scaling.design import Design, Size
from windtunnel.training.events import Event, Step, Stopped

MOST_STEPS, FEWEST_STEPS, TIMED_FLOPS = 300, 6, 1e11
"""A size is timed for so many FLOPs, in steps within these bounds."""
CALIBRATED = 4
"""Sizes that are timed."""


@dataclass(frozen=True)
class Pace:
    """What was timed.

    steps: (FLOPs of a step, its seconds), ascending.
    overhead: seconds that a run takes beside its steps and its evaluation.
    at_once: how many runs share the machine.
    """

    steps: tuple[tuple[float, float], ...]
    overhead: float
    at_once: int

    def step(self, flops: float) -> float:
        """Seconds of a step of so many FLOPs; between two that were timed on a line in logarithms, above at the rate
        of the largest, below as the smallest, which is overhead."""
        known, seconds = np.log(self.steps).T
        last_flops, last_seconds = self.steps[-1]
        if flops > last_flops:
            return last_seconds * flops / last_flops
        return math.exp(float(np.interp(math.log(flops), known, seconds)))

    def run(self, design: Design, size: Size, budget: float) -> float:
        """Seconds of the run of a size at a budget, with its evaluation on the whole dev split."""
        batch = design.batch(size, budget)
        a_step = size.flops * batch * design.per_example
        n_steps = budget / a_step
        return n_steps * self.step(a_step) + self.evaluation(design, size) + self.overhead

    def evaluation(self, design: Design, size: Size) -> float:
        """Seconds of reading the dev split once: a third of what training on it would take."""
        a_step = size.flops * design.base.config.train.batch_size * design.per_example
        flops = design.task.totals("dev")["targets"] * size.flops / 3
        return flops / a_step * self.step(a_step)


def makespan(durations: Sequence[float], at_once: int) -> float:
    """Seconds until runs that begin in this order, so many at once, have all ended."""
    free = [0.0] * at_once
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def time_sizes(
    design: Design, sizes: Sequence[Size], executor: Executor, at_once: int, folder: Path
) -> Iterator[tuple[str, Event] | Pace]:
    """Train a few steps of each size on the executor, of the smallest also with a batch of one.

    Yields (label, event), and last the pace.

    Args:
        folder: where the runs are made, and deleted afterwards.

    Raises:
        ConfigError: when one of them does not end, with its own message.
    """
    batch = design.base.config.train.batch_size
    arms = [_arm(design, sizes[0], 1)] if batch > 1 else []
    arms += [_arm(design, size, batch) for size in sizes]
    grid = make_grid(arms, 1, folder)
    begun = time.perf_counter()
    for name, _, event in train_grid(grid, executor):
        yield f"timing {name}", event
        if isinstance(event, Stopped) and event.reason != "finished":
            raise ConfigError(f"a size could not be timed ({name}): {event.message or event.reason}")
    wall = time.perf_counter() - begun
    timed, inside = [], 0.0
    for arm in grid.arms:
        run = grid.run(arm.name, grid.seeds[0])
        assert run is not None
        seconds = [event.seconds for event in run.events("step") if isinstance(event, Step)]
        timed.append((arm.step_cost()[1], statistics.fmean(seconds[len(seconds) // 3 :])))
        inside += sum(seconds)
    # Where others use the machine too, a larger size may seem faster; the times are then those of the order of sizes.
    flops, seconds = (sorted(column) for column in zip(*timed, strict=True))
    pace = Pace(tuple(zip(flops, seconds, strict=True)), 0.0, at_once)
    inside += sum(pace.evaluation(design, size) for size in [sizes[0]] * (len(arms) - len(sizes)) + list(sizes))
    shutil.rmtree(folder, ignore_errors=True)
    yield Pace(pace.steps, max(0.0, (wall * min(at_once, len(arms)) - inside) / len(arms)), at_once)


def _arm(design: Design, size: Size, batch: int) -> Arm:
    """Some steps of a size, few enough to take about a second."""
    a_step = size.flops * batch * design.per_example
    steps = round(min(MOST_STEPS, max(FEWEST_STEPS, TIMED_FLOPS / a_step)))
    config = design.arm(size, design.fewest_steps * size.flops * batch * design.per_example * 2).config
    parts = min(config.train.grad_accumulation, batch)
    train = config.train.replace(steps=steps, batch_size=batch, grad_accumulation=parts, eval_every=steps)
    return Arm(f"{size.parameters:,} parameters, batch {batch}", config.replace(train=train))
