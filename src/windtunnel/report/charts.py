"""Charts: lines, dots, histograms, heat maps and fields of signed numbers, all in one palette.

Each chart is a panel, a function that draws on an axes; `figure` lays panels out side by side. What a chart is given
beyond its own arguments (title, xlabel, yscale, ylim ...) goes to matplotlib's `Axes.set`. matplotlib is imported
when the first figure is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET = "#000000", "#555555"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", INK, "#e69f00", "#56b4e9")
"""Okabe & Ito 2008: told apart with any colour vision."""
TRAIN, DEV, GREEN = PALETTE[:3]
STYLES = tuple(zip(PALETTE, "osD^vXP", ("-", "--", "-.", ":", "-", "--", "-."), strict=True))
"""Colour, mark and dash of the first, second ... series, so that they are told apart in print too."""
MOST_MARKS = 16
"""A line of more points than this has no marks."""
LETTERS, HANDLE = 12, 7
"""Letters of a legend that fit an inch, and those that the line before a name takes up."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
}

Panel = Callable[["Axes"], None]
Curve = tuple[Any, Any]
"""x (N,) and y: (N,) numbers; (S, N), whose mean is drawn thick and each row thin; or N estimates with intervals."""
Marks = Mapping[str, Any]
"""Reference lines by their label: where they are, one number or several."""


@contextmanager
def drawing(width: float, height: float, changes: Mapping[Any, Any] | None = None) -> Iterator[Figure]:
    """An empty figure, width x height inches; what is drawn on it here is in the house style.

    The figure belongs to no window and to no global list.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, **(changes or {})}):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def figure(*panels: Panel, size: tuple[float, float] | None = None, columns: int = 3, share: str = "") -> Figure:
    """Panels side by side, `columns` in a row.

    The legend stands below when it is the same for all panels, else in each.

    Args:
        size: inches; by the number of panels when not given.
        share: "x", "y" or "xy": the axes that are the same for all panels.
    """
    n_columns = min(columns, len(panels))
    n_rows = math.ceil(len(panels) / n_columns)
    width, height = size or (max(6.4, 4.0 * n_columns), 3.6 * n_rows)
    with drawing(width, height, {"axes.titlelocation": "left"}) as drawn:
        grid = drawn.subplots(n_rows, n_columns, squeeze=False, sharex="x" in share, sharey="y" in share)
        for panel, axes in zip(panels, grid.flat, strict=False):
            panel(axes)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[:, 1:].flat if "y" in share else ():
            axes.set_ylabel("")
        for i, axes in enumerate(grid.flat[: len(panels)] if "x" in share else ()):
            below = i + n_columns < len(panels)
            axes.tick_params(labelbottom=not below)
            axes.set_xlabel("" if below else axes.get_xlabel())
        _legends(drawn, list(grid.flat))
    return drawn


def lines(
    curves: Mapping[str, Curve | list[Curve]],
    across: Marks | None = None,
    down: Marks | None = None,
    ticks: Sequence[float] = (),
    log: str = "",
    joined: Sequence[str] | None = None,
    **settings: Any,
) -> Panel:
    """A line a name.

    Args:
        curves: a list of curves is drawn in one look.
        across, down: horizontal and vertical reference lines.
        ticks: the places that are named on the x axis, and no others.
        log: "x", "y" or "xy": the axes with a log scale.
        joined: the names whose points are joined to a line; all when not given.
    """

    def panel(axes: Axes) -> None:
        for index, ((name, own), (colour, mark, dash)) in enumerate(zip(curves.items(), cycle(STYLES), strict=False)):
            alone = joined is not None and name not in joined
            look: dict[str, Any] = {"color": colour, "linestyle": "" if alone else dash}
            look |= {"markerfacecolor": "none", "zorder": 3} if alone else {}
            for i, (x, y) in enumerate(own if isinstance(own, list) else [own]):
                # Each mark is smaller than those below it, so that series which coincide are seen.
                look |= {"marker": mark if alone or len(x) <= MOST_MARKS else "", "markersize": max(4, 8 - index)}
                _line(axes, x, y, {**look, "label": "" if i else name})
        _finish(axes, across, down, {**_scales(log), **settings})
        if ticks:
            axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
            axes.set_xticks([], minor=True)

    return panel


def dots(
    series: Mapping[str, Mapping[str, Any]],
    rows: Sequence[str],
    across: Marks | None = None,
    down: Marks | None = None,
    log: str = "",
    **settings: Any,
) -> Panel:
    """Values on one line a row, or an estimate with its interval; series that share a row stand below each other.

    Args:
        series: of each name, by row, numbers or one estimate.
        rows: from top to bottom.
        across, down, log: as of `lines`.
    """

    def panel(axes: Axes) -> None:
        for (name, own), (colour, mark, _) in zip(series.items(), cycle(STYLES), strict=False):
            for i, (row, found) in enumerate(own.items()):
                beside = [other for other, theirs in series.items() if row in theirs]
                place = rows.index(row) + 0.24 * (beside.index(name) - (len(beside) - 1) / 2)
                e = found if isinstance(found, Estimate) else None
                values = [e.estimate] if e else list(np.atleast_1d(found))
                spread = [[e.estimate - e.low], [e.high - e.estimate]] if e else None
                axes.errorbar(values, [place] * len(values), xerr=spread, fmt=mark, color=colour, capsize=4,
                              alpha=0.6 if len(values) > 1 else 1, label="" if i else name)  # fmt: skip
        axes.set_yticks(range(len(rows)), rows)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        _finish(axes, across, down, {**_scales(log), "ylim": (len(rows) - 0.5, -0.5), **settings})

    return panel


def histograms(values: Mapping[str, Any], bins: int = 41, down: Marks | None = None, **settings: Any) -> Panel:
    """Shares of values: the first filled, the others as outlines over it.

    Args:
        values: of each name the values, or (counts (N,), edges (N + 1,)).
    """

    def panel(axes: Axes) -> None:
        for i, ((name, own), (colour, _, _)) in enumerate(zip(values.items(), cycle(STYLES), strict=False)):
            counts, edges = own if isinstance(own, tuple) else np.histogram(np.ravel(own), bins)
            share = np.asarray(counts) / max(1, np.sum(counts))
            axes.stairs(share, edges, fill=not i, color=colour, alpha=1 if i else 0.5, linewidth=1.4, label=name)
        axes.locator_params(axis="x", nbins=6)
        _finish(axes, None, down, {"ylabel": "share", **settings})

    return panel


def heat(
    matrix: Any,
    labels: Sequence[str],
    rows: Sequence[str] | None = None,
    label: str = "share",
    **settings: Any,
) -> Panel:
    """A matrix of numbers from 0 to 1, below which all have one colour; rows from top to bottom.

    Args:
        labels: of the columns, and of the rows where they have no others.
        rows: labels of the rows; a scale of colours then stands beside, instead of each number in its cell.
        label: what the numbers are; it stands beside that scale.
    """

    def panel(axes: Axes) -> None:
        values, below = np.asarray(matrix), labels if rows is None else rows
        across, down = (np.arange(len(names) + 1) - 0.5 for names in (labels, below))
        image = axes.pcolormesh(across, down, values, cmap="cividis", vmin=0, vmax=1)
        if rows is not None:
            _scale(axes, image, label)
        for (i, j), value in np.ndenumerate(values) if rows is None else ():
            axes.text(j, i, f"{value:.4f}", ha="center", va="center", color="black" if value > 0.5 else "white")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(below)), below)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set(**{"ylim": (down[-1], down[0]), "aspect": "equal", **settings})

    return panel


def field(matrix: Any, label: str, **settings: Any) -> Panel:
    """A matrix of any numbers as colours, 0 in the middle of the scale; rows from top to bottom, counted from 0.

    Args:
        label: what the numbers are; it stands beside the scale.
    """

    def panel(axes: Axes) -> None:
        values = np.asarray(matrix)
        most = float(np.abs(values).max()) or 1.0
        down, across = (np.arange(n + 1) - 0.5 for n in values.shape)
        image = axes.pcolormesh(across, down, values, cmap="PuOr", vmin=-most, vmax=most)
        _scale(axes, image, label)
        axes.grid(visible=False)
        axes.set(**{"ylim": (down[-1], down[0]), **settings})

    return panel


def _scale(axes: Axes, image: Any, label: str) -> None:
    """The colours of an image with their numbers, beside it."""
    bar = axes.figure.colorbar(image, ax=axes, label=label)
    assert bar.solids is not None
    bar.solids.set_rasterized(False)  # a raster is a link in an SVG


def _line(axes: Axes, x: Sequence[float], y: Any, look: dict[str, Any]) -> None:
    values = list(y)
    if isinstance(values[0], Estimate):
        spread = [[e.estimate - e.low for e in values], [e.high - e.estimate for e in values]]
        axes.errorbar(x, [e.estimate for e in values], yerr=spread, capsize=3, **look)
        return
    rows = np.atleast_2d(np.asarray(values, dtype=float))
    if len(rows) > 1:
        axes.plot(x, rows.T, color=look["color"], linewidth=0.6, alpha=0.45)
    axes.plot(x, rows.mean(axis=0), **look)


def _finish(axes: Axes, across: Marks | None, down: Marks | None, settings: Mapping[str, Any]) -> None:
    marks: list[tuple[Any, str, Any]] = [(axes.axhline, *mark) for mark in (across or {}).items()]
    marks += [(axes.axvline, *mark) for mark in (down or {}).items()]
    for (draw, label, places), dash in zip(marks, cycle(("--", ":", "-.")), strict=False):
        for i, place in enumerate(np.atleast_1d(places)):
            draw(place, color=QUIET, linestyle=dash, linewidth=1, label="" if i else label)
    axes.set(**settings)


def _scales(log: str) -> dict[str, str]:
    return {f"{axis}scale": "log" for axis in log}


def _legends(drawn: Figure, panels: Sequence[Axes]) -> None:
    named = [dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)) for axes in panels]
    shown = [own for own in named if own]
    if shown and all(list(own) == list(shown[0]) for own in shown):
        longest = max(map(len, shown[0])) + HANDLE
        n_columns = min(3, len(shown[0]), max(1, int(LETTERS * drawn.get_figwidth() / longest)))
        drawn.legend(shown[0].values(), shown[0], loc="outside lower center", ncols=n_columns)
        return
    for axes, own in zip(panels, named, strict=True):
        if own:
            axes.legend(own.values(), own, fontsize=8)
