"""The picture of a comparison by slice: the paired differences on each kind of sources, a panel for each arm."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from windtunnel.comparison.comparison import Comparison, Judgement, Slice
from windtunnel.report.charts import INK, QUIET, drawing
from windtunnel.report.comparison_figure import (
    better_side,
    draw_judgement,
    limits_of,
    name_rows,
    numbers_across,
    say_beside,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 70
"""Letters of a title that fit one line."""
Row = tuple[Slice, Judgement | None]


def comparison_slices_figure(found: Comparison) -> Figure:
    """A slice a row: the difference of every seed, the mean with its interval, and the verdict.

    A seed in which a run diverged has no difference and is left out.
    """
    arms = [j.arm for j in found.judgements]
    rows = {arm: [(part, _of(part, arm)) for part in found.slices] for arm in arms}
    with drawing(10.0, 0.7 + len(arms) * (1.2 + 0.6 * len(found.slices))) as figure:
        for axes, (arm, own) in zip(figure.subplots(len(arms), 1, squeeze=False)[:, 0], rows.items(), strict=True):
            _draw(axes, own)
            lines = textwrap.wrap(f"{arm} against {found.baseline.name}", TITLE, max_lines=2, placeholder=" …")
            axes.set_title("\n".join(lines), loc="left", parse_math=False)
            axes.set_xlabel(f"difference, {found.title(found.metric)} ({better_side(found)} of 0 is better)")
        legend = "dots: seeds; diamond: their mean, its interval at the level of its test; grey band: does not matter"
        figure.supxlabel(legend, fontsize=9, color=QUIET)
    return figure


def _of(part: Slice, arm: str) -> Judgement | None:
    return next((j for j in part.judgements if j.arm == arm), None)


def _draw(axes: Axes, rows: list[Row]) -> None:
    kept = [[d for _, d in j.differences if math.isfinite(d)] if j else [] for _, j in rows]
    margins = [part.margin for part, j in rows if j]
    points = [d for own in kept for d in own] + [sign * 1.15 * margin for margin in margins for sign in (-1, 1)]
    axes.set_xlim(limits_of(points, [j.verdict.difference if j else None for _, j in rows]))
    axes.axvline(0, color=INK, linewidth=0.8)
    for i, ((part, j), own) in enumerate(zip(rows, kept, strict=True)):
        if j is None:
            say_beside(axes, i, "not judged" if part.enough else "too few to say", "")
            continue
        axes.barh(i, 2 * part.margin, 0.9, -part.margin, color=QUIET, alpha=0.15, linewidth=0, gid=f"margin-{i}")
        draw_judgement(axes, i, j, own)
    name_rows(axes, [f"{part.name} ({part.n:,})" for part, _ in rows])
    numbers_across(axes, 6)
