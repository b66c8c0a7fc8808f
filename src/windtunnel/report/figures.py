"""Figures as matplotlib objects: save them with `save_figure`. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from windtunnel.errors import ConfigError
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.digits import number
from windtunnel.stats.intervals import mean_interval
from windtunnel.training.disk import saving
from windtunnel.training.events import Evaluation, Event, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure

Floats = npt.NDArray[np.float64]
MOST_GRID_LABELS = 24  # more tokens than this stay without labels where many heads are drawn
MOST_LABELS = 40
"""Tokens that are named on an axis; of a longer text every second, third ... is."""
MOST_PANELS = 24
"""Heads that have axes of their own; more are drawn as one image, which takes a second where axes take minutes."""
LOOKS, LOOKED_AT = "token that looks", "token looked at"
MOST_INCHES = 100
"""Height of the largest figure: 16,000 dots of a PNG."""
ENDINGS = (".png", ".svg", ".pdf")
BOXED = {"axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}
SCALE: dict[str, Any] = {"shrink": 0.8, "pad": 0.02}


class Map(NamedTuple):
    """What every layer and head looks at, (n_layers, n_heads, T, S), with the texts of the T rows and the S columns."""

    title: str
    weights: npt.NDArray[np.floating[Any]]
    rows: Sequence[str]
    columns: Sequence[str]
    split: int | None = None
    """Before which column a line is drawn."""

    @property
    def labelled(self) -> bool:
        """Whether the tokens are few enough to be named."""
        return max(len(self.rows), len(self.columns)) <= MOST_GRID_LABELS


def attention_figure(
    weights: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    layer: int | None = None,
    head: int | None = None,
    title: str = "",
) -> Figure:
    """Heat map of one head's attention, or a grid of several: rows look, columns are looked at.

    More than `MOST_PANELS` heads are drawn as one image, without the tokens' texts.

    Args:
        weights: (n_layers, n_heads, T, T), as from `windtunnel.inspect.attention`.
        labels: the text of each of the T tokens.
        layer: from 0; None is all layers.
        head: from 0; None is all heads.

    Raises:
        ConfigError: for a layer or head that is not there.
    """
    n_layers, n_heads = weights.shape[:2]
    layers, heads = _chosen("layer", layer, n_layers), _chosen("head", head, n_heads)
    if len(layers) * len(heads) > MOST_PANELS:
        return _overview(weights[np.ix_(layers, heads)], title, layers[0], heads[0])
    if len(layers) > 1 or len(heads) > 1:
        return maps_figure([Map(title, weights[np.ix_(layers, heads)], labels, labels)], layers[0], heads[0])
    heading = ", ".join(part for part in (title, f"layer {layers[0] + 1}, head {heads[0] + 1}") if part)
    return _one_map(weights[layers[0], heads[0]], labels, heading, LOOKS, LOOKED_AT)


def through_time_figure(norms_TT: Floats, labels: Sequence[str], title: str) -> Figure:
    """Heat map of how far each state reaches, on a logarithmic scale; white where the gradient is zero.

    Args:
        norms_TT: at [t, s] the norm of d state_t / d state_s, as from `windtunnel.inspect.through_time`.
        labels: the text of each of the T tokens.
    """
    from matplotlib.colors import LogNorm

    low, high = norms_TT[norms_TT > 0].min(), norms_TT.max()
    scale = LogNorm(min(low, high / 10), high)  # at least a power of ten, so that the scale has numbers
    down, across = "t: the state after this token", "s: the state after this token"
    return _one_map(norms_TT, labels, title, down, across, "norm of d state t / d state s", scale)


def maps_figure(maps: Sequence[Map], first_layer: int = 0, first_head: int = 0) -> Figure:
    """Grids of heat maps below each other, layers down and heads across.

    Args:
        first_layer, first_head: from 0; what the first of each grid is, where others are left out.

    Raises:
        ConfigError: when they are higher than MOST_INCHES.
    """
    sizes = [_panel_size(one) for one in maps]
    widths = [one.weights.shape[1] * width + 0.9 for one, (width, _) in zip(maps, sizes, strict=True)]
    heights = [one.weights.shape[0] * height + (1.5 if one.labelled else 0.8)
               for one, (_, height) in zip(maps, sizes, strict=True)]  # fmt: skip
    if sum(heights) > MOST_INCHES:
        raise ConfigError(
            f"these {len(maps)} grids of attention are {sum(heights):,.0f} inches high, and a figure is at most "
            f"{MOST_INCHES}; give fewer or shorter texts, or write a page"
        )
    with drawing(max(widths), sum(heights), BOXED) as figure:
        places = figure.subfigures(len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
        for place, one in zip(places, maps, strict=True):
            _draw_heads(place, one, first_layer, first_head)
    return figure


def _overview(weights: npt.NDArray[np.floating[Any]], title: str, first_layer: int, first_head: int) -> Figure:
    """Every head's map in one image, layers down and heads across, white lines between them."""
    n_layers, n_heads, n_tokens, _ = weights.shape
    hidden = np.triu(np.ones((n_tokens, n_tokens), dtype=bool), 1) & (weights == 0)
    framed = np.pad(np.where(hidden, np.nan, weights), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    size = n_tokens + 1
    mosaic = framed.swapaxes(1, 2).reshape(n_layers * size, n_heads * size)
    with drawing(*_overview_inches(n_layers, n_heads, n_tokens), BOXED) as figure:
        axes = figure.subplots()
        image = axes.imshow(mosaic, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        middle = (n_tokens - 1) / 2
        axes.set_yticks(middle + size * np.arange(n_layers), [str(first_layer + i + 1) for i in range(n_layers)])
        axes.set_xticks(middle + size * np.arange(n_heads), [str(first_head + j + 1) for j in range(n_heads)])
        figure.supylabel(f"layer; within a map: {LOOKS}, from top to bottom", fontsize=10)
        axes.set_xlabel(f"head; within a map: {LOOKED_AT}, from left to right")
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label="attention weight", shrink=0.5, aspect=40, pad=0.02)
        _plain_title(figure, title)
    return figure


def _overview_inches(n_layers: int, n_heads: int, n_tokens: int) -> tuple[float, float]:
    """Wide and high: a map is half an inch or more, and the whole no higher than a page that one can scroll."""
    each = min(max(0.5, 0.02 * n_tokens), 40 / n_layers, 40 / n_heads)
    return max(6.0, each * n_heads + 2.6), max(4.0, each * n_layers + 1.2)


def _one_map(
    weights_TT: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    title: str,
    down: str,
    across: str,
    what: str = "attention weight",
    scale: Normalize | None = None,
) -> Figure:
    """One large map, what its rows and columns are beside it."""
    size = min(11.0, max(4.5, 2.2 + 0.24 * len(labels)))
    with drawing(size + 1.2, size + 1.5, BOXED) as figure:
        axes = figure.subplots()
        figure.colorbar(_heat(axes, weights_TT, labels, labels, scale), ax=axes, label=what, **SCALE)
        axes.set_ylabel(down)
        axes.set_xlabel(across)
        _plain_title(figure, title)
    return figure


def _panel_size(one: Map) -> tuple[float, float]:
    """Inches of a head's map, wide and high."""
    n_rows, n_columns = one.weights.shape[-2:]
    if not one.labelled:
        return 1.7, min(17.0, max(0.9, 1.7 * n_rows / n_columns))
    return max(1.7, 0.8 + 0.17 * n_columns), max(1.7, 0.8 + 0.17 * n_rows)


def _draw_heads(place: SubFigure, one: Map, first_layer: int, first_head: int) -> None:
    n_layers, n_heads = one.weights.shape[:2]
    axes = place.subplots(n_layers, n_heads, squeeze=False, sharex=True, sharey=True)
    rows, columns = (one.rows, one.columns) if one.labelled else ((), ())
    for (i, j), panel in np.ndenumerate(axes):
        image = _heat(panel, one.weights[i, j], rows, columns)
        panel.set_ylabel("" if j else f"layer {first_layer + i + 1}", fontsize=9)
        panel.tick_params(labeltop=i == 0, labelleft=j == 0)
        if i == 0:
            panel.set_title(f"head {first_head + j + 1}", fontsize=9)
        if one.split is not None:
            panel.axvline(one.split - 0.5, color=DEV, linewidth=1.5)
    place.colorbar(image, ax=axes, label="attention weight", **SCALE)
    place.supylabel(LOOKS, fontsize=9)
    place.supxlabel(LOOKED_AT, fontsize=9)
    _plain_title(place, one.title)


def _plain_title(place: Figure | SubFigure, title: str) -> None:
    place.suptitle(title, fontsize=11).set_parse_math(False)


def curves_figure(
    runs: Sequence[Sequence[Event]],
    title: str,
    vocab_size: int | None = None,
    floor: float | None = None,
    smooth: int = 25,
    noun: str = "token",
) -> Figure:
    """Train and dev loss over the steps: each seed's train loss thin, means thick, a 95 % t band on the dev loss.

    Args:
        runs: the events of each seed's run.
        vocab_size: draws the loss of a blind guess, ln(vocab_size) nats per token.
        floor: draws the lowest loss that any model can reach, in nats per token, where it is known.
        smooth: half-life of the exponential smoothing of the train loss, in steps.
        noun: what has a loss.
    """
    with drawing(10.0, 4.2) as figure:
        axes, close = figure.subplots(1, 2, width_ratios=(3, 2))
        highest = _draw_train(axes, runs, smooth)
        _draw_dev(axes, runs)
        if vocab_size is not None:
            guess = math.log(vocab_size)
            axes.axhline(guess, color=QUIET, linestyle=":", label=f"blind guess, ln {vocab_size} = {number(guess)}")
            highest = max(highest, guess)
        if floor is not None:
            axes.axhline(floor, color=QUIET, linestyle="--", label=f"entropy floor {number(floor)}")
        axes.set_ylim(top=highest * 1.05 if highest > 0 else None)
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        axes.set_ylabel(f"loss, nats per {noun}")
        axes.set_title(title, loc="left").set_parse_math(False)
        _draw_close(close, runs, smooth, floor)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center right", bbox_to_anchor=(1, 0.58))
    return figure


def save_figures(figures: Mapping[str, Figure], folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write each figure as NAME.png and NAME.svg into a folder; returns their paths, and the SVGs' text by name."""
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        for path in (folder / f"{name}.png", folder / f"{name}.svg"):
            save_figure(figure, path)
            files.append(path)
    with saving(folder):
        return files, {name: (folder / f"{name}.svg").read_text(encoding="utf-8") for name in figures}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the ending decides: .png (160 dots an inch), .svg or .pdf.

    Raises:
        ConfigError: for another ending.
        SaveError: when the disk refuses.
    """
    check_ending(path)
    import matplotlib

    # Without a date and with a fixed salt an SVG of the same numbers is the same file.
    fixed: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with saving(path), matplotlib.rc_context({"svg.hashsalt": "windtunnel"}):
        figure.savefig(path, dpi=160, **fixed)


def check_ending(path: Path, what: str = "a figure", endings: Sequence[str] = ENDINGS) -> None:
    """Raises ConfigError for a path with another ending; to be known before what is drawn is computed."""
    if path.suffix not in endings:
        known = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise ConfigError(f"{path}: {what} is written as {known}, given {path.suffix or 'no ending'}")


def smoothed(values: Sequence[float], half_life: float) -> Floats:
    """Exponential moving average, started without bias (Kingma & Ba 2015, section 3)."""
    keep = 0.5 ** (1 / half_life)
    total = weight = 0.0
    result = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result[i] = total / weight
    return result


def dev_losses(runs: Sequence[Sequence[Event]]) -> dict[int, list[float]]:
    """The dev losses of all seeds at each step at which any was evaluated."""
    losses: dict[int, list[float]] = {}
    for events in runs:
        # A resumed run may have evaluated a step twice; the last one counts.
        last = {e.step: e.loss for e in events if isinstance(e, Evaluation) and e.split == "dev"}
        for step, loss in last.items():
            losses.setdefault(step, []).append(loss)
    return dict(sorted(losses.items()))


def _draw_train(axes: Axes, runs: Sequence[Sequence[Event]], smooth: int) -> float:
    """Each seed's smoothed train loss and their mean; the highest of it."""
    curves: dict[int, list[float]] = {}
    highest = 0.0
    for events in runs:
        losses = {e.step: e.loss for e in events if isinstance(e, Step)}
        if not losses:
            continue
        curve = smoothed(list(losses.values()), smooth)
        highest = max(highest, float(curve.max()))
        if len(runs) > 1:
            axes.plot(list(losses), curve, color=TRAIN, linewidth=0.6, alpha=0.45)
        for step, loss in zip(losses, curve, strict=True):
            curves.setdefault(step, []).append(float(loss))
    if curves:
        steps = sorted(curves)
        means = [sum(curves[step]) / len(curves[step]) for step in steps]
        name = "train, smoothed" + (f", mean of {len(runs)} seeds (thin: each)" if len(runs) > 1 else "")
        axes.plot(steps, means, color=TRAIN, linewidth=1.8, label=name)
    return highest


def _draw_dev(axes: Axes, runs: Sequence[Sequence[Event]]) -> None:
    losses = dev_losses(runs)
    if not losses:
        return
    steps = list(losses)
    intervals = [mean_interval(values) for values in losses.values()]
    means = [interval.estimate for interval in intervals]
    banded = any(interval.n > 1 for interval in intervals)
    # No line from before the training to the first evaluation: the loss does not fall along a straight one.
    line = slice(1 if steps[0] == 0 else 0, None)
    if banded:
        low, high = [i.low for i in intervals], [i.high for i in intervals]
        axes.fill_between(
            steps[line],
            low[line],
            high[line],
            color=DEV,
            alpha=0.22,
            linewidth=0,
            label="95 % t interval of the dev mean",
        )
    name = f"dev {number(means[-1])} at step {steps[-1]}" + (f", mean of {len(runs)} seeds" if banded else "")
    axes.plot(steps[: line.start], means[: line.start], color=DEV, marker="o", markersize=4)
    axes.plot(steps[line], means[line], color=DEV, marker="o", markersize=4, linewidth=1.8, label=name)


def _draw_close(axes: Axes, runs: Sequence[Sequence[Event]], smooth: int, floor: float | None) -> None:
    """The second half of the training on its own scale, where the band over the seeds can be seen."""
    _draw_train(axes, runs, smooth)
    _draw_dev(axes, runs)
    first = max((e.step for events in runs for e in events if isinstance(e, Step)), default=0) / 2
    points = np.concatenate([np.zeros((0, 2)), *(line.get_xydata() for line in axes.get_lines())])
    seen = points[(points[:, 0] >= first) & np.isfinite(points[:, 1]), 1].tolist()
    for values in (values for step, values in dev_losses(runs).items() if step >= first and len(values) > 1):
        interval = mean_interval(values)
        seen += [end for end in (interval.low, interval.high) if math.isfinite(end)]
    if seen:
        margin = 0.08 * (max(seen) - min(seen)) or 0.01
        axes.set_ylim(min(seen) - margin, max(seen) + margin)
        axes.set_xlim(left=first)
    if floor is not None:
        axes.axhline(floor, color=QUIET, linestyle="--")
    axes.set_xlabel("step")
    axes.set_title("the second half, closer", loc="left", fontsize=10)


def _heat(
    axes: Axes,
    weights_TS: npt.NDArray[np.floating[Any]],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Normalize | None = None,
) -> Any:
    """One map, from 0 to 1 where no other scale is given.

    The future, which no token sees where there is a causal mask, is left white.
    """
    n_rows, n_columns = weights_TS.shape
    future = np.triu(np.ones(weights_TS.shape, dtype=bool), 1 + n_columns - n_rows)
    low, high = (0, 1) if scale is None else (None, None)
    shown = np.ma.masked_array(weights_TS, future & (weights_TS == 0))
    image = axes.imshow(shown, cmap="cividis", norm=scale, vmin=low, vmax=high)
    rotation = 90 if max((len(label) for label in columns), default=0) > 1 else 0
    across, down = (range(0, len(texts), max(1, math.ceil(len(texts) / MOST_LABELS))) for texts in (columns, rows))
    axes.set_xticks(across, [columns[i] for i in across], rotation=rotation, fontsize=9)
    axes.set_yticks(down, [rows[i] for i in down], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set_parse_math(False)  # a token may be a $
    axes.xaxis.set_label_position("top")
    return image


def _chosen(name: str, index: int | None, n: int) -> list[int]:
    if index is not None and not 0 <= index < n:
        raise ConfigError(f"there is no {name} {index}; this model's are 0 to {n - 1}")
    return list(range(n)) if index is None else [index]
