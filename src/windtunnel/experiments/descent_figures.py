"""The figures of 002-5.1: the noise of a gradient, and the dev loss against steps, names and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = (("#009e73", "-"), (DEV, ":"), (TRAIN, "--"))


def noise_figure(sizes: Sequence[int], variances: np.ndarray) -> Figure:
    """The variance of a batch's gradient against its size, each epoch a point, and the line 1/B."""
    with drawing(5.6, 3.6) as figure:
        axes = figure.subplots()
        for i, row in enumerate(variances):
            axes.plot(sizes, row, "o", color=TRAIN, alpha=0.6, label="an epoch's batches" if i == 0 else None)
        line = variances[:, 0].mean() * sizes[0] / np.array(sizes)
        axes.plot(sizes, line, "--", color=QUIET, label="1/B from the first on")
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="B, examples in a batch", ylabel="variance of the gradient")
        axes.legend()
    return figure


def curve_figure(curves: Mapping[str, Sequence[Mapping[str, list[float]]]], targets: Sequence[float]) -> Figure:
    """Dev loss, a line a seed, against what it cost in three units."""
    with drawing(11.0, 3.8) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        units = {"steps": "steps", "examples": "names seen", "seconds": "seconds of training"}
        for axes, (unit, title) in zip(panels, units.items(), strict=True):
            for (name, own), (colour, line) in zip(curves.items(), LOOKS, strict=True):
                for i, curve in enumerate(own):
                    axes.plot(curve[unit], curve["loss"], line, color=colour, linewidth=1.2, alpha=0.8,
                              label=name if i == 0 else None)  # fmt: skip
            for target in targets:
                axes.axhline(target, color=QUIET, linewidth=0.8)
            axes.set(xscale="log", xlabel=title)
        panels[0].set_ylabel("dev loss, nats a token")
        lowest = min(min(curve["loss"]) for own in curves.values() for curve in own)
        panels[0].set_ylim(lowest - 0.05, 3.4)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
