"""Comparisons inside an experiment: arms are trained below its folder, and the same command goes on or reads them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from windtunnel.comparison.compare import save_comparison
from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.judging import conclude
from windtunnel.comparison.plan import make_plan
from windtunnel.config import override
from windtunnel.errors import NumericsError
from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, Steps, Table, table
from windtunnel.files import write_text
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_rows import Rows, arm_rows, verdict_rows
from windtunnel.runs.arms import Arm
from windtunnel.runs.execute import open_executor
from windtunnel.runs.grid import Grid, at_once, is_done, train_grid
from windtunnel.runs.measure import measure
from windtunnel.text.corpora import open_corpus
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.disk import saving
from windtunnel.training.events import Event, Step
from windtunnel.training.loop import fit, resume
from windtunnel.training.recipes import tiny
from windtunnel.training.run import open_run
from windtunnel.training.run_config import RunConfig

Says = Mapping[str, tuple[str, Sequence[str]]]
"""Of arms by their names a statement, and the words of which the verdict must be one for it to hold."""
AS_GOOD = ("better", "no difference that matters")
FIELDS = {"text": "text", "label": "label", "split": "split"}
"""The columns of what `write_labelled` writes, as `text.columns` takes them."""


def small_names(at: Setting) -> RunConfig:
    """The recipe `tiny` on names with one layer x 32 and batches of 32, evaluated and saved at the end only.

    A quick run takes a thirtieth of the names: every run reads its corpus through.
    """
    corpus = "names"
    if at.quick:
        path = at.out / "names.txt"
        write_corpus(path, "\n".join(list(open_corpus("names").read())[::30]))
        corpus = str(path)
    base, never = tiny(corpus), 10**9
    train = {"batch_size": at.size(32, quick=8), "eval_every": never, "save_every": never, "sample_tokens": 0}
    return base.replace(
        text=base.text.replace(unit="line"),
        model=base.model.replace(n_layers=1, d_model=32, context_length=16),
        train=base.train.replace(**train),
        seed=at.seed,
    )


def write_corpus(path: Path, text: str) -> None:
    """Write a text to train on, into a folder that is made.

    Raises:
        SaveError: when the disk refuses.
    """
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def write_labelled(path: Path, parts: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write the texts of each split with their labels as a table; raises as `write_corpus`."""
    written = io.StringIO()
    rows = [tuple(FIELDS), *((*pair, split) for split, own in parts.items() for pair in own)]
    csv.writer(written, lineterminator="\n").writerows(rows)
    write_corpus(path, written.getvalue())


def language_model(at: Setting, folder: Path, config: RunConfig, changes: Sequence[str]) -> Path:
    """The folder of a model that learned a corpus of lines; nothing is evaluated, saved or written before its end."""
    quiet = ["text.unit=line", "train.eval_every=1000000", "train.save_every=1000000", "train.sample_tokens=0",
             "train.threads=1", "train.precision=fp32", f"seed={at.seed}"]  # fmt: skip
    for _ in fit(override(config, [*quiet, *changes]), folder):
        pass
    return folder


def trained(
    at: Setting,
    what: str,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    name: str = "loss",
    budget: tuple[str, float] | None = None,
) -> Steps[Comparison]:
    """Train arms x seeds, as far as they are not there, and judge them against the first.

    Yields progress, what every arm is and costs, the verdicts, and the figure.

    Args:
        what: names this comparison in the progress and in its tables.
        name: of the figure.
        budget: of every run, as in `make_plan`.
    """
    plan = make_plan(arms, seeds, budget=budget, root=at.out / "runs")
    yield from train(at, what, plan.grid)
    found = conclude(plan)
    save_comparison(found)
    yield Given({"paired seeds": len(seeds), f"{what}: signature": found.signature})
    title = what[0].upper() + what[1:]
    yield _laid(f"{title}: every arm", arm_rows(found))
    yield _laid(f"{title}: against {found.baseline.name}", verdict_rows(found))
    yield Drawing(name, comparison_figure(found))
    return found


def train(at: Setting, what: str, grid: Grid) -> Findings:
    """Train a grid, as far as it is not there; yields progress."""
    steps, runs = {arm.name: arm.config.train.steps for arm in grid.arms}, grid.run
    done = {(n, seed): steps[n] if (run := runs(n, seed)) and is_done(run) else 0 for n, seed in grid.places}
    total = sum(steps[name] for name, _ in done)
    yield Progress(what, sum(done.values()), total)
    for arm, seed, event in (_here if at.quick else _in_processes)(grid):
        if isinstance(event, Step):
            done[arm, seed] = event.step
            yield Progress(what, min(sum(done.values()), total), total)


def verdicts(row: Row, found: Comparison, says: Says, named: bool = False) -> Findings:
    """For each judged arm whether what is said of it holds."""
    for judgement in found.judgements:
        statement, words = says[judgement.arm]
        yield row.judged(statement, judgement, words, named=named)


def folders_of(found: Comparison, arm: str) -> list[Path]:
    """The run folders of one arm, in the order of its seeds."""
    return [Path(run.folder) for one in found.arms if one.name == arm for run in one.seeds]


def _in_processes(grid: Grid) -> Iterator[tuple[str, int, Event]]:
    with open_executor("local", at_once(grid)) as executor:
        yield from train_grid(grid, executor)


def _here(grid: Grid) -> Iterator[tuple[str, int, Event]]:
    """One run after another in this process: those of a quick experiment are shorter than the start of a process."""
    for name, seed in grid.places:
        run = grid.begin(name, seed)
        if is_done(run):
            continue
        with suppress(NumericsError):  # it diverged: its last event says so, and there is nothing to measure
            yield from ((name, seed, event) for event in resume(run.folder))
            measure(run.folder)


def _laid(title: str, rows: Rows) -> Table:
    """Rows of a comparison, each on one line."""
    heads, body = rows
    heads = [head.replace("-\n", "").replace("/\n", "/").replace("\n", " ") for head in heads]
    return table(title, heads, ([cell.replace("\n", " ") for cell in row] for row in body))


def losses_of(folder: Path) -> list[float]:
    """The loss of every step of a run."""
    return [event.loss for event in open_run(folder).events() if isinstance(event, Step)]


def apart(one: Path, other: Path) -> float:
    """The largest difference between two runs' newest weights and optimizer states; infinite where one lacks some."""
    ours, theirs = saved(one), saved(other)
    if ours.keys() != theirs.keys():
        return math.inf
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in ours.items())


def saved(folder: Path) -> dict[str, Tensor]:
    """The newest weights and optimizer state of a run, by name."""
    checkpoint = newest_checkpoint(folder)
    return {} if checkpoint is None else {**checkpoint.weights, **checkpoint.optimizer}
