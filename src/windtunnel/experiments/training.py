"""Comparisons inside an experiment: arms are trained below its folder, and the same command goes on or reads them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from windtunnel.compare.compare import at_once, save_comparison, train_arms
from windtunnel.compare.comparison import Comparison
from windtunnel.compare.design import Arm
from windtunnel.compare.execute import open_executor
from windtunnel.compare.judging import conclude
from windtunnel.compare.plan import is_settled, make_plan, run_folders
from windtunnel.experiments.frame import Progress, Setting
from windtunnel.train.events import Step


def compared(
    what: str, arms: Sequence[Arm], seeds: int | Sequence[int], setting: Setting, **rule: Any
) -> Generator[Progress, None, Comparison]:
    """Train arms x seeds, as far as they are not there, and judge them; `yield from` it.

    Args:
        what: names this comparison in the progress.
        rule: further arguments of `make_plan`, such as baseline, budget, margin and correction.
    """
    plan = make_plan(arms, seeds, root=setting.out / "runs", **rule)
    steps = {arm.name: arm.config.train.steps for arm in plan.arms}
    done = {(name, seed): steps[name] * is_settled(folder) for (name, seed), folder in run_folders(plan).items()}
    total = sum(steps[name] for name, _ in done)
    yield Progress(what, sum(done.values()), total)
    with open_executor("local", at_once(plan)) as executor:
        for name, seed, event in train_arms(plan, executor):
            if isinstance(event, Step):
                done[name, seed] = event.step
                yield Progress(what, min(sum(done.values()), total), total)
    found = conclude(plan)
    save_comparison(plan, found)
    return found
