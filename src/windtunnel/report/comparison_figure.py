"""The picture of a comparison: every seed of every arm, and the paired differences beside the margin."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from windtunnel.comparison.comparison import ArmResult, Comparison, Judgement
from windtunnel.comparison.verdict import Word
from windtunnel.report.charts import DEV, GREEN, INK, QUIET, TRAIN, drawing
from windtunnel.report.comparison_rows import counts, share, signed
from windtunnel.stats.digits import number
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[Word, str] = {  # the word stands beside each
    "better": GREEN,
    "worse": DEV,
    "no difference that matters": TRAIN,
    "undecided": QUIET,
}
BELOW = 0.27
"""Rows by which a mean stands below its seeds."""
NAME_WIDTH, NAME_LINES = 30, 4


def comparison_figure(found: Comparison) -> Figure:
    """An arm a row. Left: the loss of every seed, joined across arms. Right: what each differs from the baseline.

    The scales are those of the runs that did not diverge; a diverged one is a cross at the edge.
    """
    labels = [_label(arm) for arm in found.arms]
    row = max(0.6, 0.25 + 0.17 * max(label.count("\n") + 1 for label in labels))
    with drawing(12.0, 1.6 + row * len(labels)) as figure:
        losses, differences = figure.subplots(1, 2, sharey=True)
        judged = {j.arm: j for j in found.judgements}
        colours = [COLOURS[judged[arm.name].verdict.word] if arm.name in judged else INK for arm in found.arms]
        _draw_losses(losses, found, colours)
        _draw_differences(differences, found, judged)
        name_rows(losses, labels)
        for axes in (losses, differences):
            numbers_across(axes, 5)
        _legend(figure, found)
    return figure


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """The first row at the top; a name is no formula."""
    axes.set_ylim(len(labels) - 0.4, -0.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)


def numbers_across(axes: Axes, most: int) -> None:
    """Numbers along x alone, at most so many of them, and each written in full."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=most)
    axes.ticklabel_format(axis="x", useOffset=False)


def better_side(found: Comparison) -> str:
    """The side of an axis of the comparison's metric on which the better scores are."""
    return "left" if found.rule.better == "lower" else "right"


def _draw_losses(axes: Axes, found: Comparison, colours: Sequence[str]) -> None:
    values = [
        {run.seed: run.scores.get(found.metric) for run in arm.seeds if run.reason != "diverged"} for arm in found.arms
    ]
    means = [arm.scores.get(found.metric) for arm in found.arms]
    sound = [m for arm, m in zip(found.arms, means, strict=True) if not _diverged(arm)]
    limits = limits_of([v for own in values for v in own.values() if v is not None], sound)
    axes.set_xlim(limits)
    for seed in sorted({seed for own in values for seed in own}):
        line = [math.nan if (value := own.get(seed)) is None else value for own in values]
        axes.plot(line, range(len(line)), color=QUIET, linewidth=0.7, alpha=0.5, zorder=1, gid=f"seed-{seed}")
    for i, (arm, own, mean) in enumerate(zip(found.arms, values, means, strict=True)):
        lost = [run.scores.get(found.metric) for run in arm.seeds if run.reason == "diverged"]
        _dots(axes, i, [v for v in own.values() if v is not None], colours[i], "losses")
        _crosses(axes, i, [v for v in lost if v is not None], limits, colours[i])
        _mean(axes, i, mean, colours[i])
    what = "Loss" if found.unit else found.metric
    axes.set_title(f"{what} of each seed, the same seed joined", loc="left")
    axes.set_xlabel(f"{found.title(found.metric)} ({better_side(found)} is better)")


def _draw_differences(axes: Axes, found: Comparison, judged: dict[str, Judgement]) -> None:
    margin = found.rule.margin
    gone = {arm.name: _diverged(arm) | _diverged(found.baseline) for arm in found.arms}
    kept = {name: [d for seed, d in j.differences if seed not in gone[name]] for name, j in judged.items()}
    points = [-1.15 * margin, 1.15 * margin, *(d for own in kept.values() for d in own)]
    limits = limits_of(points, [j.verdict.difference for name, j in judged.items() if not gone[name]])
    axes.set_xlim(limits)
    axes.axvspan(-margin, margin, color=QUIET, alpha=0.15, linewidth=0, gid="margin")
    axes.axvline(0, color=INK, linewidth=0.8)
    say_beside(axes, 0, "baseline", "")
    for i, arm in enumerate(found.arms[1:], start=1):
        if arm.name not in judged:
            say_beside(axes, i, "not judged", "no seed is there in both arms")
            continue
        j = judged[arm.name]
        lost = [x for seed, x in j.differences if seed in gone[arm.name] and not math.isnan(x)]  # nan: both diverged
        _crosses(axes, i, lost, limits, COLOURS[j.verdict.word])
        more = f": about {j.seeds_needed:,} seeds would decide" if j.seeds_needed else ""
        draw_judgement(axes, i, j, kept[arm.name], more)
    axes.set_title("Difference to the baseline of the same seed", loc="left")
    axes.set_xlabel(f"{found.title(found.metric)} ({better_side(found)} of 0 is better)")


def draw_judgement(axes: Axes, row: int, j: Judgement, kept: Sequence[float], more: str = "") -> None:
    """A row of differences: those of the seeds that are kept, their mean, and the verdict, with `more` after it."""
    colour, d = COLOURS[j.verdict.word], j.verdict.difference
    _dots(axes, row, kept, colour, "differences")
    _mean(axes, row, d, colour)
    numbers = f"{signed(d).replace(chr(10), ' ')} ({share(j.relative)})" if d.n else "no seed finished in both"
    say_beside(axes, row, j.verdict.word + more, numbers)


def _dots(axes: Axes, row: int, values: Sequence[float], colour: str, name: str) -> None:
    axes.scatter(
        values, [row] * len(values), s=26, color=colour, alpha=0.6, linewidths=0, zorder=2, gid=f"{name}-{row}"
    )


def _crosses(axes: Axes, row: int, values: Sequence[float], limits: tuple[float, float], colour: str) -> None:
    """Diverged runs, at the edge of the scale when they are beyond it."""
    if values:
        places = [min(max(value, limits[0]), limits[1]) for value in values]
        gid = f"diverged-{row}"
        axes.scatter(places, [row] * len(places), s=40, color=colour, marker="x", zorder=3, clip_on=False, gid=gid)


def _mean(axes: Axes, row: int, mean: Estimate | None, colour: str) -> None:
    """The mean below its seeds with its interval, which runs off the scale when it is far wider than the seeds."""
    if mean is None or math.isnan(mean.estimate):
        return
    y = row + BELOW
    if not math.isnan(mean.low):
        axes.plot([mean.low, mean.high], [y, y], color=colour, linewidth=1.8, marker="|", markersize=8, zorder=3)
    left, right = axes.get_xlim()
    marker = "<" if mean.estimate < left else ">" if mean.estimate > right else "D"
    place = min(max(mean.estimate, left), right)
    axes.plot([place], [y], color=colour, marker=marker, markersize=6, zorder=4, clip_on=False)


def say_beside(axes: Axes, row: int, word: str, numbers: str) -> None:
    """The verdict to the right of its row."""
    across = axes.get_yaxis_transform()
    axes.text(1.03, row, word, transform=across, weight="bold", fontsize=9.5, va="bottom" if numbers else "center")
    axes.text(1.03, row + 0.03, numbers, transform=across, fontsize=9, va="top", color=QUIET)


def _legend(figure: Figure, found: Comparison) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seed = Line2D([], [], color=QUIET, marker="o", linestyle="", alpha=0.6, label="a seed")
    mean = Line2D(
        [], [], color=QUIET, marker="D", linewidth=1.8, label="mean; interval 95 % left, at its test's level right"
    )
    band = f"does not matter: below {number(found.rule.margin)}"
    band += "" if math.isnan(found.margin_share) else f", {found.margin_share:.2%} of the baseline"
    handles = [seed, mean, Patch(color=QUIET, alpha=0.15, linewidth=0, label=band)]
    if any(map(_diverged, found.arms)):
        label = "diverged: at the edge, no loss"
        handles.append(Line2D([], [], color=QUIET, marker="x", linestyle="", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)


def _label(arm: ArmResult) -> str:
    """The arm's name in short lines, and what did not go well."""
    lines = textwrap.wrap(arm.name, NAME_WIDTH, max_lines=NAME_LINES, placeholder=" …") or [""]
    return "\n".join([*lines, *([counts(arm)] if counts(arm) else [])])


def _diverged(arm: ArmResult) -> set[int]:
    return {run.seed for run in arm.seeds if run.reason == "diverged"}


def limits_of(points: Sequence[float], means: Iterable[Estimate | None]) -> tuple[float, float]:
    """A scale with all points on it, and the ends of the intervals unless they are far beyond."""
    known = [mean for mean in means if mean is not None]
    ends = [end for mean in known for end in (mean.estimate, mean.low, mean.high) if not math.isnan(end)]
    if not points:
        points = ends or [0.0, 1.0]
    low, high = min(points), max(points)
    span = (high - low) or abs(high) * 0.01 or 1.0
    low, high = max(min([low, *ends]), low - span), min(max([high, *ends]), high + span)
    return low - 0.04 * (high - low or span), high + 0.04 * (high - low or span)
