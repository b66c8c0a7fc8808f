"""The end of a training: a table of its seeds, one line with the interval, and the picture of its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from windtunnel.report.charts import DEV, TRAIN, drawing
from windtunnel.report.figures import curves_figure, save_figure, smoothed
from windtunnel.runs.seeds import WHOLE, SplitLoss, Summary
from windtunnel.stats.digits import number
from windtunnel.stats.intervals import Estimate
from windtunnel.tasks import METRICS
from windtunnel.text.corpora import truth_of
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def seeds_table(summary: Summary, noun: str = "token") -> Table:
    """One row a seed: how it ended and the dev loss it reached; `noun` is what has a loss."""
    table = Table(box=None, pad_edge=False)
    table.add_column("seed", justify="right", overflow="fold")
    table.add_column("ended", overflow="fold")
    table.add_column("steps", justify="right", overflow="fold")
    names = next((list(r.dev.scores) for r in summary.seeds if r.dev), ["loss"])
    for name in names:
        title = METRICS[name].title
        table.add_column(f"dev loss (nats per {noun})" if name == "loss" else title, justify="right", overflow="fold")
    for result in summary.seeds:
        dev = result.dev
        figures = [number(dev.scores[name]) for name in names] if dev else ["-"] * len(names)
        table.add_row(str(result.seed), result.reason, str(result.step), *figures)
    return table


def verdict_line(summary: Summary, noun: str = "token") -> str:
    """The dev loss over seeds with its interval, and on what it was measured."""
    if summary.loss is None:
        return "no seed finished"
    dev = next(r.dev for r in summary.seeds if r.dev is not None)
    part = "the whole dev split" if dev.whole else "a sample of the dev split"
    left_out = sum(r.reason != "finished" for r in summary.seeds)
    missing = f"; {left_out} of {len(summary.seeds)} seeds did not finish and are left out" if left_out else ""
    return f"dev loss {summary.loss} nats per {noun}, on {part} of {dev.n_tokens:,} {noun}s{missing}"


def evaluation_lines(found: SplitLoss) -> list[str]:
    """The loss of each seed on a split, and the mean with its interval."""
    lines = [f"{folder}: step {e.step}, {shown(e.scores)}" for folder, e in found.seeds]
    part = "text" if found.split == WHOLE else f"{found.split} split"
    read = f"the whole {part} of {found.seeds[0][1].n_tokens:,} tokens"
    loss = "loss" if found.split == WHOLE else f"{found.split} loss"
    perplexity = f"perplexity {number(found.perplexity.estimate, 2)}"
    of_parts = [f"of it {name}: {_means(scores)}" for name, scores in found.parts.items()]
    return [*found.warnings, *lines, f"{loss} {found.loss} nats per token, {perplexity}, on {read}", *of_parts]


def _means(scores: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{mean} {METRICS[name].title}" for name, mean in scores.items())


def shown(scores: Mapping[str, float]) -> str:
    """`2.3886 nats per token, 2.9312 bits per byte`."""
    return ", ".join(f"{number(value)} {METRICS[name].title}" for name, value in scores.items())


def floor_line(run: Run) -> str:
    """What no model can beat, where the corpus is one that knows it."""
    floor = _floor(run)
    return (
        ""
        if floor is None
        else f"the entropy of the corpus itself is {number(floor)} nats per token: on average no model does better"
    )


def save_curves(runs: Sequence[Run], path: Path) -> Path:
    """Draw the train and dev losses of these runs, with the band over them, into a PNG."""
    config = runs[0].config
    blind = config.model.vocab_size if config.task.of_tokens else None
    figure = curves_figure(
        [run.events() for run in runs], path.parent.name, blind, floor=_floor(runs[0]), noun=config.task.noun
    )
    save_figure(figure, path)
    return path


def both_curves_figure(a: Run, b: Run) -> Figure:
    """The losses of two runs over their steps, each in a colour of its own: dev thick, train smoothed and thin."""
    with drawing(8.0, 4.2) as figure:
        axes = figure.subplots()
        for run, color in ((a, DEV), (b, TRAIN)):
            train = {event.step: event.loss for event in run.events("step") if isinstance(event, Step)}
            dev = {event.step: event.loss for event in run.events("evaluation") if isinstance(event, Evaluation)}
            if train:
                axes.plot(list(train), smoothed(list(train.values()), 25), color=color, linewidth=0.7, alpha=0.6)
            axes.plot(list(dev), list(dev.values()), "o-", markersize=3, color=color, label=str(run.folder))
        axes.set_xlabel("step")
        axes.set_ylabel(f"loss, nats per {a.config.task.noun}")
        axes.set_title("dev loss (thin: train, smoothed)", loc="left")
        axes.legend()
    return figure


def _floor(run: Run) -> float | None:
    truth = truth_of(run.config.corpus, run.config.text.unit)
    return truth.floor(run.tokenizer) if truth else None
