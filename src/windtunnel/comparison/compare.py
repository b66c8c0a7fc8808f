"""Train the arms of a plan, and judge them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path

from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.judging import undecided
from windtunnel.comparison.notes import SAVED, seeds_looked_at
from windtunnel.comparison.plan import Plan
from windtunnel.comparison.verdict import FEWEST_SEEDS
from windtunnel.files import write_text
from windtunnel.runs.grid import train_grid
from windtunnel.training.disk import saving
from windtunnel.training.events import Event, Stopped


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
