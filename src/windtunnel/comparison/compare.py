"""Train the arms of a plan, and judge them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.judging import conclude, undecided
from windtunnel.comparison.notes import SAVED, seeds_looked_at
from windtunnel.comparison.plan import Plan, make_plan
from windtunnel.comparison.slices import check_slices, with_slices
from windtunnel.comparison.verdict import FEWEST_SEEDS
from windtunnel.files import write_text
from windtunnel.runs.arms import Arm
from windtunnel.runs.execute import open_executor
from windtunnel.runs.grid import at_once, train_grid
from windtunnel.training.disk import saving
from windtunnel.training.events import Event, Stopped


def compare(
    arms: Sequence[Arm],
    seeds: int | Sequence[int] = 6,
    executor: Executor | None = None,
    slices: bool = False,
    **rule: Any,
) -> Comparison:
    """Train arms x seeds, as far as they are not there, and judge them.

    Args:
        arms: the first is the baseline, unless `baseline` names another.
        executor: any of concurrent.futures whose workers see the same folders; None runs processes on this machine.
        slices: whether arms that translate are judged by kinds of sources as well.
        rule: further arguments of `make_plan`: baseline, budget, margin, alpha, correction, until_decided, root.

    Raises:
        ConfigError: for arms that cannot be compared, and for a rule that can decide nothing.
    """
    plan = make_plan(arms, seeds, **rule)
    if slices:
        check_slices(plan)
    with nullcontext(executor) if executor else open_executor("local", at_once(plan.grid)) as workers:
        for _ in train_arms(plan, workers):
            pass
    return with_slices(plan) if slices else conclude(plan)


def train_arms(
    plan: Plan, executor: Executor, should_stop: Callable[[], bool] = lambda: False, patience: float = 600
) -> Iterator[tuple[str, int, Event]]:
    """Train what is missing, seed by seed; yields (arm, seed, event).

    A plan that goes on until all arms are decided adds a seed to the baseline and to the undecided arms.
    """
    grid, arms = plan.grid, [arm.name for arm in plan.grid.arms]
    n = plan.rule.looks[0] if plan.rule.looks else len(grid.seeds)
    while True:
        places, lost = [(arm, seed) for arm, seed in grid.places if arm in arms and seed in grid.seeds[:n]], False
        for arm, seed, event in train_grid(grid, executor, should_stop, patience, places):
            lost = lost or (isinstance(event, Stopped) and event.reason in ("interrupted", "failed"))
            yield arm, seed, event
        if lost or n >= len(grid.seeds):
            return
        still = undecided(plan)
        if not still:
            return
        arms, n = [plan.baseline.name, *still], n + 1


def save_comparison(found: Comparison) -> None:
    """Write `comparison.json` into the comparison's folder; it remembers with how many seeds the arms were judged."""
    folder, judged = Path(found.folder), max((j.verdict.n for j in found.judgements), default=0)
    looked = sorted({*seeds_looked_at(folder), *([judged] if judged >= FEWEST_SEEDS else [])})
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**found.to_dict(), "seeds_looked_at": looked}, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / SAVED, text + "\n")
