"""Comparisons inside an experiment: arms are trained below its folder, and the same command goes on or reads them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.comparison.compare import save_comparison, train_arms
from windtunnel.comparison.comparison import Comparison, Judgement
from windtunnel.comparison.judging import conclude
from windtunnel.comparison.plan import Plan, make_plan
from windtunnel.comparison.verdict import Word
from windtunnel.errors import NumericsError
from windtunnel.experiments.frame import Progress, Setting, Table, Verdict, exactly
from windtunnel.runs.arms import Arm
from windtunnel.runs.execute import open_executor
from windtunnel.runs.grid import at_once, is_done
from windtunnel.runs.measure import measure
from windtunnel.text.corpora import open_corpus
from windtunnel.training.disk import saving
from windtunnel.training.events import Event, Step
from windtunnel.training.loop import resume
from windtunnel.training.recipes import tiny
from windtunnel.training.run_config import RunConfig


def small_names(setting: Setting) -> RunConfig:
    """The recipe `tiny` on names with one layer x 32 and batches of 32, evaluated and saved at the end only.

    A quick run takes a thirtieth of the names: every run reads its corpus through.
    """
    corpus = "names"
    if setting.quick:
        path = setting.out / "names.txt"
        with saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(list(open_corpus("names").read())[::30]), encoding="utf-8")
        corpus = str(path)
    base, never = tiny(corpus), 10**9
    return base.replace(
        text=base.text.replace(unit="line"),
        model=base.model.replace(n_layers=1, d_model=32, context_length=16),
        train=base.train.replace(
            batch_size=8 if setting.quick else 32, eval_every=never, save_every=never, sample_tokens=0
        ),
    )


def compared(
    what: str, arms: Sequence[Arm], seeds: int | Sequence[int], setting: Setting, **rule: Any
) -> Generator[Progress, None, Comparison]:
    """Train arms x seeds, as far as they are not there, and judge them; `yield from` it.

    Args:
        what: names this comparison in the progress.
        rule: further arguments of `make_plan`, such as baseline, budget, margin and correction.
    """
    plan = make_plan(arms, seeds, root=setting.out / "runs", **rule)
    steps, runs = {arm.name: arm.config.train.steps for arm in plan.grid.arms}, plan.grid.run
    done = {(n, seed): steps[n] if (run := runs(n, seed)) and is_done(run) else 0 for n, seed in plan.grid.places}
    total = sum(steps[name] for name, _ in done)
    yield Progress(what, sum(done.values()), total)
    for name, seed, event in (_here if setting.quick else _in_processes)(plan):
        if isinstance(event, Step):
            done[name, seed] = event.step
            yield Progress(what, min(sum(done.values()), total), total)
    found = conclude(plan)
    save_comparison(plan, found)
    return found


def _in_processes(plan: Plan) -> Iterator[tuple[str, int, Event]]:
    with open_executor("local", at_once(plan.grid)) as executor:
        yield from train_arms(plan, executor)


def _here(plan: Plan) -> Iterator[tuple[str, int, Event]]:
    """One run after another in this process: those of a quick experiment are shorter than the start of a process."""
    for name, seed in plan.grid.places:
        run = plan.grid.begin(name, seed)
        if is_done(run):
            continue
        with suppress(NumericsError):  # it diverged: its last event says so, and there is nothing to measure
            yield from ((name, seed, event) for event in resume(run.folder))
            measure(run.folder)


def is_judged(judgement: Judgement, *words: Word) -> Verdict:
    """The verdict on the claim that an arm was judged with one of these words."""
    word = judgement.verdict.word
    return "undecided" if word == "undecided" else exactly(word in words)


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
