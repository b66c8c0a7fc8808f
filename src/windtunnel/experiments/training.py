"""Comparisons inside an experiment: arms are trained below its folder, and the same command goes on or reads them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.compare.compare import at_once, save_comparison, train_arms
from windtunnel.compare.comparison import Comparison
from windtunnel.compare.design import Arm
from windtunnel.compare.execute import open_executor
from windtunnel.compare.judging import conclude
from windtunnel.compare.measure import measure
from windtunnel.compare.plan import Plan, is_settled, make_plan, run_folders
from windtunnel.errors import NumericsError
from windtunnel.experiments.frame import Progress, Setting, Table
from windtunnel.train.events import Event, Step
from windtunnel.train.loop import resume
from windtunnel.train.run import create_run


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
        for name, seed, event in train_here(plan) if setting.quick else train_arms(plan, executor):
            if isinstance(event, Step):
                done[name, seed] = event.step
                yield Progress(what, min(sum(done.values()), total), total)
    found = conclude(plan)
    save_comparison(plan, found)
    return found


def train_here(plan: Plan) -> Iterator[tuple[str, int, Event]]:
    """`train_arms` in this process, run after run: the runs of a quick experiment are shorter than a process' start."""
    arms = {arm.name: arm for arm in plan.arms}
    for (name, seed), folder in run_folders(plan).items():
        if is_settled(folder):
            continue
        create_run(folder, arms[name].config.replace(seed=seed), arms[name].store)
        with suppress(NumericsError):  # told by the Stopped event before it
            yield from ((name, seed, event) for event in resume(folder))
            measure(folder)


def folders_of(found: Comparison, arm: str) -> list[Path]:
    """The run folders of one arm, in the order of its seeds."""
    return [Path(run.folder) for one in found.arms if one.name == arm for run in one.seeds]


def laid(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of a comparison in a table of one line a row."""
    return Table(
        title,
        tuple(head.replace("-\n", "").replace("/\n", "/").replace("\n", " ") for head in heads),
        tuple(tuple(cell.replace("\n", " ") for cell in row) for row in rows),
    )
