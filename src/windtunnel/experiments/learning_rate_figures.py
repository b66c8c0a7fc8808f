"""The figures of 002-5.2: paths on a quadratic, what the doctor saw, and the rate that is raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.inspect.doctor.exam import Examination

GREEN = "#009e73"


def path_figure(paths: Mapping[float, np.ndarray]) -> Figure:
    """Left w, right its size on a log scale, step by step, for rates as shares of 2/a."""
    looks = ((TRAIN, "-"), (GREEN, "-"), (GREEN, ":"), (QUIET, "--"), (DEV, ":"), (DEV, "-"))
    with drawing(9.0, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        for (share, w), (colour, line) in zip(paths.items(), looks, strict=True):
            left.plot(w[:21], line, color=colour, linewidth=1.4)
            right.semilogy(np.abs(w), line, color=colour, linewidth=1.8, label=f"{share:g}")
        left.set(xlabel="step", ylabel="w", ylim=(-3, 3), xticks=range(0, 21, 5))
        right.set(xlabel="step", ylabel="|w|", ylim=(1e-4, 1e2))
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=6, title="rate · a / 2")
    return figure


def examination_figure(exams: Mapping[float, Examination]) -> Figure:
    """Left the doctor's range test with the rates that were tried; right its short training at each of them."""
    colours = dict(zip(exams, (TRAIN, DEV, GREEN), strict=False))
    lines = dict(zip(exams, (":", "--", "-"), strict=False))
    tried = next(iter(exams.values())).range
    with drawing(9.4, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        left.semilogx(tried.lrs, tried.smoothed, color="#000000", label="range test, smoothed")
        left.set(xlabel="learning rate, rising in one training", ylabel="loss, nats a token")
        left.set_ylim(min(tried.smoothed) - 0.1, 1.3 * tried.smoothed[0])
        for rate, exam in exams.items():
            left.axvline(rate, color=colours[rate], linestyle=lines[rate])
            right.plot(range(1, len(exam.training.losses) + 1), exam.training.losses, lines[rate], color=colours[rate],
                       linewidth=1.3, label=f"lr {rate:g}")  # fmt: skip
        right.set(xlabel="step of the doctor's short training", ylabel="loss, nats a token")
        left.legend(loc="upper left", fontsize=8)
        right.legend(fontsize=9)
    return figure


def story_figure(stories: Mapping[float, Sequence[Sequence[float]]], slow: int) -> Figure:
    """The loss of the same names at every step, a line a seed, before and after the rate was raised."""
    with drawing(6.4, 3.8) as figure:
        axes = figure.subplots()
        for (rate, own), colour, line in zip(stories.items(), (DEV, GREEN), ("--", "-"), strict=True):
            for i, losses in enumerate(own):
                axes.plot(losses, line, color=colour, linewidth=1, label=f"raised to {rate:g}" if i == 0 else None)
        axes.axvline(slow, color=QUIET, linestyle=":", label="the rate is raised")
        axes.set(xlabel="step", ylabel="loss of all names, nats a token")
        axes.legend(loc="upper right", fontsize=9)
        axes.set_ylim(top=axes.get_ylim()[1] + 0.3)
    return figure
