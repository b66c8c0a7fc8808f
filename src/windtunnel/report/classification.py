"""A classifier beside its baselines: the first line, tables, the reliability figure, and a page with its mistakes."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windtunnel.files import write_text
from windtunnel.inspect.classification import Judged, Scores
from windtunnel.report.charts import figure, lines
from windtunnel.report.figures import save_figures
from windtunnel.report.html import inline_svg, page, texts_table
from windtunnel.report.outcome_page import STYLE
from windtunnel.report.table import Table, clipped, interval, table
from windtunnel.stats.digits import number, p_is
from windtunnel.training.disk import saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "A classifier beside its baselines"
WIDEST = 12
"""A confusion matrix of more labels than this is on the page only."""
MOST_MISTAKES = 200
"""Mistakes on the page."""
AGAINST = ".against :is(th, td) { white-space: normal; } .against :is(th, td):last-child { text-align: left; }"
"""Six columns, one of them of sentences: an interval stands below its number where there is no room."""


FLATTERED = {
    "train": "the model learned from these texts, and so did its baselines: the number to report is of a test split",
    "dev": "checkpoint, temperature and a baseline's C are chosen on dev, which flatters them there: the number to "
    "report is of a test split",
}
"""What is to be said of a split that had a part in the model."""


def first_line(found: Judged) -> str:
    """Whether the classifier beats its baselines, with both numbers."""
    best = found.best
    of = f"{found.split} accuracy {interval(found.scores.accuracy, '.3f')} on {found.n:,} texts"
    other = f"{best.name} {interval(best.scores.accuracy, '.3f')}"
    if found.beats:
        return f"beats its baselines: {of}; the best of them is {other}, McNemar's {p_is(best.p or 0.0)}"
    unbeaten = [one for one in found.against if one.word in ("worse", "not shown to differ")]
    named = "; ".join(
        f"{'worse than' if one.word == 'worse' else 'not shown to differ from'} {one.name} "
        f"{one.scores.accuracy.estimate:.3f} (McNemar's {p_is(one.p or 0.0)})"
        for one in unbeaten
    )
    return f"does not beat its baselines: {of}; {named}"


def judged_lines(found: Judged) -> list[str]:
    """What the numbers rest on."""
    chosen = f"the model is that of step {found.step}; every number is of the {found.split} split"
    told = [f"{chosen}; intervals at 95 %: accuracy Wilson's, all others bootstrap over texts"]
    told += [FLATTERED[found.split]] if found.split in FLATTERED else []
    if len(found.seeds) > 1:
        told.append(f"accuracy over {len(found.seeds)} seeds: {found.over_seeds}; all else is of the first")
    t = found.temperature
    warmed = f"; with the temperature {t:.2f}, found on dev: {found.tempered.error:.3f}" if t else ""
    told.append(f"expected calibration error {found.reliability.error:.3f}{warmed}")
    told += _thresholds(found)
    if found.n_cut:
        told.append(
            f"{found.n_cut:,} of {found.n:,} texts are longer than the context; their end was not read: give a larger "
            "model.context_length"
        )
    missing = [one for one in found.against if one.p is None and one.how.startswith("cannot")]
    return told + [f"{one.name} {one.how}" for one in missing]


def _thresholds(found: Judged) -> list[str]:
    """What is right of the texts that are answered, if only some are: risk and coverage."""
    some = [
        f"{number(one.accuracy.estimate, 3)} on {100 * one.share.estimate:.0f} % (from p {number(one.threshold, 3)} on)"
        for one in found.surest
        if one.accuracy
    ]
    told = [f"accuracy on the texts it is surest of: {', '.join(some)}"]
    if one := found.answered:
        right = f"{interval(one.accuracy, '.3f')} of these rightly" if one.accuracy else "so nothing is answered"
        share = interval(one.share, ".3f")
        told.append(f"threshold {one.threshold:g}: it answers {share} of the texts, {right}; else: none of these")
    return told


def baselines_table(found: Judged) -> Table:
    """The classifier and every baseline: accuracy, macro-F1, loss, the paired difference and its verdict."""
    rows = [("this model", *_scores(found.scores), "", "")]
    for one in found.against:
        apart = f"{interval(one.difference, '+.3f')}" if one.difference else ""
        verdict = f"{one.word}, {p_is(one.p)}" if one.p is not None else one.how
        rows.append((one.name, *_scores(one.scores), apart, verdict))
    return table("", ("", "accuracy", "macro-F1", "nats per text", "this minus it", "this is, by McNemar"), rows)


def confusion_table(found: Judged) -> Table:
    """A row a true label, a column a predicted one."""
    rows = [(label, *row.tolist()) for label, row in zip(found.labels, found.confusion, strict=True)]
    return table("", ("true \\ predicted", *found.labels), rows)


def mistakes_table(found: Judged, most: int = 5) -> Table:
    """The mistakes that the model was surest of, for the terminal."""
    rows = [(clipped(m.text), m.label, m.said, number(m.probability, 3)) for m in found.mistakes[:most]]
    title = f"the surest {len(rows)} of {len(found.mistakes):,} mistakes"
    return table(title, ("text", "label", "predicted", "probability"), rows)


def reliability_figure(found: Judged) -> Figure:
    """Accuracy over stated confidence, before and after the temperature."""
    own = {"as trained": found.reliability}
    own |= {f"temperature {found.temperature:.2f}": found.tempered} if found.temperature else {}
    curves: dict[str, Any] = {name: (one.confidence, one.accuracy) for name, one in own.items()}
    curves["calibrated"] = ([0.0, 1.0], [0.0, 1.0])
    panel = lines(curves, xlabel="stated probability of the predicted label", ylabel="share that is right")
    return figure(panel, size=(6.4, 4.6))


def save_judged(found: Judged, folder: Path) -> list[Path]:
    """Write the figure and a self-contained page with the mistakes into a folder.

    Raises:
        SaveError: when the disk refuses.
    """
    files, drawings = save_figures({"reliability": reliability_figure(found)}, folder)
    said = [first_line(found), *judged_lines(found)]
    parts = [f"<h1>{TITLE}</h1>", *(f"<p>{escape(line)}</p>" for line in said)]
    parts += [
        f'<div class="against">{baselines_table(found).html()}</div>',
        "<h2>Confusion</h2>",
        confusion_table(found).html(),
        "<h2>Reliability</h2>",
    ]
    parts += [f"<figure>{inline_svg(name, svg)}</figure>" for name, svg in drawings.items()]
    heads = ("label", "predicted", "probability", "text")
    mistakes = ((m.label, m.said, f"{m.probability:.3f}", m.text) for m in found.mistakes[:MOST_MISTAKES])
    parts.append(f"<h2>The mistakes it was surest of</h2>{texts_table(heads, mistakes)}")
    path = folder / "classifier.html"
    with saving(path):
        write_text(path, page(TITLE, "\n".join(parts), {}, style=STYLE + AGAINST))
    return [*files, path]


def judged_dict(found: Judged) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        "verdict": first_line(found), "beats_baselines": found.beats, "run": found.run, "step": found.step,
        "split": found.split, "texts": found.n, "labels": found.labels, "scores": found.scores,
        "baselines": found.against, "confusion": found.confusion.tolist(),
        "calibration_error": found.reliability.error, "temperature": found.temperature,
        "calibration_error_tempered": found.tempered.error, "cut_texts": found.n_cut, "seeds": found.seeds,
        "over_seeds": found.over_seeds, "mistakes": found.mistakes, "surest": found.surest,
        "answered": found.answered,
    }  # fmt: skip


def _scores(own: Scores) -> tuple[str, str, str]:
    f1 = "" if own.macro_f1.estimate != own.macro_f1.estimate else interval(own.macro_f1, ".3f")
    return interval(own.accuracy, ".3f"), f1, interval(own.loss, ".3f") if own.loss else "-"
