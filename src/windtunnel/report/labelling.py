"""A round of labelling and a simulation of rounds: tables, sentences, a figure and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windtunnel.comparison.verdict import Verdict
from windtunnel.files import write_text
from windtunnel.labelling.agreement import Agreement
from windtunnel.labelling.next import Data, Round
from windtunnel.labelling.simulation import Simulation
from windtunnel.labelling.strategies import RANDOM
from windtunnel.labelling.suspects import PLANTED
from windtunnel.labelling.table import Task
from windtunnel.report.charts import figure, lines
from windtunnel.report.figures import save_figures
from windtunnel.report.html import inline_svg, page, texts_table
from windtunnel.report.outcome_page import STYLE
from windtunnel.report.table import Table, clipped, interval, table
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.features import Floats
from windtunnel.training.disk import saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def simulation_table(found: Simulation) -> Table:
    """One row a strategy: accuracy, and the difference to random with its verdict."""
    judged = {verdict.arm: verdict for verdict in found.verdicts}
    heads = (
        "strategy", "verdict", "to random,\npoints", "seeds\nahead", "mean %",
        f"% at\n{found.design.sizes[-1]:,}", "labels\nneeded",
    )  # fmt: skip
    rows = [
        (
            name,
            judged[name].word if name in judged else "baseline",
            points(judged[name].difference).replace(" [", "\n[") if name in judged else "",
            _ahead(found, name) if name in judged else "",
            _plus_minus(scores).replace(" ", "\n"),
            _plus_minus(found.accuracy[name][:, -1]).replace(" ", "\n"),
            _labels_to(found, name),
        )
        for name, scores in found.scores.items()
    ]
    return table("", heads, rows)


def simulation_lines(found: Simulation) -> list[str]:
    """How it was simulated, and what follows."""
    d, n = found.design, len(found.design.seeds)
    verdict = next((v for v in found.verdicts if v.arm == found.best), None)
    told = "No strategy is shown to be better than random here." if verdict is None else _gain(verdict, found)
    return [
        told,
        f"{n} seeds, each with its own {d.held_out:,} held-out texts and first {d.start} labels, the same for every "
        f"strategy; {d.rounds} rounds of {d.batch} labels. Intervals of differences are at the level that was tested "
        f"(Holm), one of less than {100 * d.margin:g} point{'' if d.margin == 0.01 else 's'} does not matter.",
        "mean %: accuracy over the rounds; labels needed: until the mean curve is where random ends, at "
        f"{100 * found.accuracy[RANDOM][:, -1].mean():.1f} %. All labels that are not held out: "
        f"{share(found.everything)}.",
    ]


def curves_figure(found: Simulation) -> Figure:
    """Accuracy over the number of labels, and each strategy's difference to random."""
    sizes = found.design.sizes

    def curve(rows: Any) -> tuple[Any, list[Estimate]]:
        return sizes, [mean_interval(column.tolist()) for column in rows.T]

    accuracy = {name: (sizes, own.mean(axis=0)) for name, own in found.accuracy.items()}
    base = found.accuracy[RANDOM]
    apart = {name: curve(100 * (own - base)) for name, own in found.accuracy.items()}
    return figure(
        lines(accuracy, xlabel="labels", ylabel="accuracy"),
        lines(apart, xlabel="labels", ylabel="points above random, 95 % intervals"),
        size=(11.0, 4.6),
    )


def round_lines(found: Round, data: Data) -> list[str]:
    """What was chosen and why, what looks wrong, and how far annotators agree."""
    counted = f"{len(data.examples):,} texts, {len(data.known):,} with a label"
    how = f"{counted} ({', '.join(data.classes[:8])}{' ...' if len(data.classes) > 8 else ''}); vectors of {data.kind}"
    lines = [how if data.classes else f"{counted}; vectors of {data.kind}", *data_lines(data)]
    lines.append(f"strategy {found.strategy}: {found.why}")
    if found.precision:
        n, chance = len(found.suspicions), f"{100 * PLANTED:g} %"
        held = (
            f"of {chance} errors planted among these labels, the first 20 to be checked held {share(found.precision)}"
        )
        told = f"{n:,} label{'' if n == 1 else 's'} look{'s' if n == 1 else ''} wrong"
        if found.precision.low <= PLANTED:
            told = "no label is called wrong, since planted errors are not shown to be found here"
        lines.append(f"{told}; {held} (a random 20 hold {chance})")
    return lines + (agreement_lines(found.agreement) if found.agreement else [])


def agreement_lines(found: Agreement) -> list[str]:
    """Alpha, and each annotator against the others."""
    alpha = interval(found.alpha, ".3f")
    if np.isnan(found.alpha.estimate):
        alpha = "is not defined where all answers are the same label"
    texts = f"{found.n_texts:,} texts with two answers or more, {len(found.disputed):,} disputed"
    said = [f"{texts}: Krippendorff's alpha {alpha}"]
    for one in found.annotators:
        agrees = (
            f"with most of the others in {share(one.agrees)}"
            if one.agrees
            else "none on a text on which most of the others agree"
        )
        said.append(f"{one.name or 'the table'}: {one.n:,} answers, {agrees}")
    return said


def data_lines(data: Data) -> list[str]:
    """What is wrong with the texts and labels as they are: copies, and one label that is written in two ways."""
    lines = []
    copies = len(data.examples) - len({" ".join(example.text.split()) for example in data.examples})
    if copies:
        lines.append(
            f"{copies:,} of the texts are copies of others: they are asked for once more, and a held-out copy is "
            "known already, so accuracies are too high; delete them"
        )
    alike: dict[str, list[str]] = {}
    for name in data.classes:
        alike.setdefault(_plain(name), []).append(name)
    counts = np.bincount(data.labels, minlength=len(data.classes))
    for names in (names for names in alike.values() if len(names) > 1):
        told = " and ".join(f"{name!r} ({counts[data.classes.index(name)]:,})" for name in names)
        lines.append(f"{told} count as different labels: if they are the same, write them alike")
    return lines


def _plain(label: str) -> str:
    """A label without capitals and spaces; 1.0 is 1."""
    try:
        return f"{float(label):g}"
    except ValueError:
        return "".join(label.casefold().split())


def tasks_table(todo: Sequence[Task], most: int = 10) -> Table:
    """The first tasks, for the terminal."""
    rows = [(t.example.id, t.kind, t.reason, clipped(t.example.text)) for t in todo[:most]]
    more = f"the first {most} of {len(todo)} tasks" if len(todo) > most else f"{len(todo)} tasks"
    return replace(table(more, ("id", "task", "reason", "text"), rows), words=True)


def save_page(
    folder: Path, title: str, said: Sequence[str], simulation: Simulation | None, todo: Sequence[Task] = (),
    name: str = "label",
) -> list[Path]:  # fmt: skip
    """Write a self-contained page with the texts to read, and the figure of a simulation beside it.

    Raises:
        SaveError: when the disk refuses.
    """
    figures = {} if simulation is None else {"curves": curves_figure(simulation)}
    files, drawings = save_figures(figures, folder)
    parts = [f"<p>{escape(line)}</p>" for line in said]
    parts += [f"<figure>{inline_svg(key, svg)}</figure>" for key, svg in drawings.items()]
    parts += [] if simulation is None else [simulation_table(simulation).html()]
    texts = [(t.example.id, t.kind, t.reason, t.example.text) for t in todo]  # in the order of the table to fill in
    parts += [f"<h2>To read</h2>{texts_table(('id', 'task', 'reason', 'text'), texts)}"] if todo else []
    body = f"<h1>{escape(title)}</h1>\n" + "\n".join(parts)
    path = folder / f"{name}.html"
    with saving(path):
        write_text(path, page(title, body, {}, style=STYLE))
    return [*files, path]


def round_dict(found: Round, todo: Sequence[Task]) -> dict[str, Any]:
    """Plain data of a round."""
    agreed = found.agreement
    return {
        "strategy": found.strategy,
        "why": found.why,
        "tasks": [{"id": t.example.id, "task": t.kind, "reason": t.reason} for t in todo],
        "suspicions": [
            {"id": s.example.id, "given": s.given, "likely": s.likely, "believed": s.believed, "other": s.other}
            for s in found.suspicions
        ],
        "precision_on_planted": found.precision,
        "agreement": None if agreed is None else {
            "texts": agreed.n_texts, "alpha": agreed.alpha, "annotators": agreed.annotators,
            "disputed": [example.id for example in agreed.disputed],
        },
        "simulation": None if found.simulation is None else simulation_dict(found.simulation),
    }  # fmt: skip


def simulation_dict(found: Simulation) -> dict[str, Any]:
    """Plain data of a simulation; accuracies by strategy, a row a seed."""
    return {
        "design": found.design,
        "sizes": found.design.sizes,
        "best": found.best,
        "accuracy": {name: own.tolist() for name, own in found.accuracy.items()},
        "all_labels": found.everything,
        "verdicts": [{"strategy": v.arm, "word": v.word, "difference": v.difference, "p": v.p} for v in found.verdicts],
    }


def share(found: Estimate) -> str:
    """`94.1 % [93.2, 95.0]`."""
    if np.isnan(found.low):
        return f"{100 * found.estimate:.1f} %"
    return f"{100 * found.estimate:.1f} % [{100 * max(0.0, found.low):.1f}, {100 * min(1.0, found.high):.1f}]"


def _plus_minus(shares: Floats) -> str:
    """`94.1 ±0.9`, of a mean over seeds, in hundredths."""
    found = mean_interval(shares.tolist())
    half = "" if np.isnan(found.low) else f" ±{100 * (found.high - found.estimate):.1f}"
    return f"{100 * found.estimate:.1f}{half}"


def points(found: Estimate) -> str:
    """`+3.0 [+2.1, +3.9]`, hundredths of a share."""
    return f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _gain(verdict: Verdict, found: Simulation) -> str:
    gained = (
        f"{points(verdict.difference)} points of accuracy over the rounds, ahead in {_ahead(found, verdict.arm)} seeds"
    )
    return f"{verdict.arm} is better than random here: {gained}."


def _ahead(found: Simulation, name: str) -> str:
    ahead = int((found.scores[name] > found.scores[RANDOM]).sum())
    return f"{ahead} of {len(found.design.seeds)}"


def _labels_to(found: Simulation, name: str) -> str:
    """With how many labels the mean curve is where that of random ends."""
    wanted = found.accuracy[RANDOM].mean(axis=0)[-1]
    there = np.flatnonzero(found.accuracy[name].mean(axis=0) >= wanted)
    return f"{found.design.sizes[there[0]]:,}" if len(there) else f"> {found.design.sizes[-1]:,}"
