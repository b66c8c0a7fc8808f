"""The doctor's two figures: the training, and what every layer puts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.inspect.doctor.activations import Activations
from windtunnel.inspect.doctor.exam import Examination
from windtunnel.inspect.doctor.gradients import Gradient
from windtunnel.inspect.doctor.history import spikes
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.digits import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PLACES = 48
"""Places whose histograms are drawn; of a deeper model every second, third ... is."""


def training_figure(exam: Examination) -> Figure:
    """Range test, losses, updates against weights, gradients, their norm, and losses with intervals."""
    with drawing(13.0, 7.4) as figure:
        axes = figure.subplots(2, 3)
        _range_test(axes[0, 0], exam)
        _losses(axes[0, 1], exam)
        _ratios(axes[0, 2], exam)
        _gradients(axes[1, 0], exam)
        _norms(axes[1, 1], exam)
        _fit(axes[1, 2], exam)
    return figure


def activations_figure(exam: Examination) -> Figure:
    """The histogram of every place, a row each, before and after training; each row is scaled to its own highest."""
    every = math.ceil(len(exam.activations_end) / MOST_PLACES)
    start, end = exam.activations_start[::every], exam.activations_end[::every]
    with drawing(13.0, 1.6 + 0.24 * len(end)) as figure:
        before, after = figure.subplots(1, 2, sharey=True)
        _histograms(before, start, "before training")
        _histograms(after, end, f"after {exam.step if exam.is_run else exam.steps} steps")
        before.set_yticks(range(len(start)), [a.place for a in start], fontsize=8)
        for label in before.get_yticklabels():
            label.set_parse_math(False)
    return figure


def _range_test(axes: Axes, exam: Examination) -> None:
    tried = exam.range
    axes.semilogx(tried.lrs, tried.losses, color=TRAIN, linewidth=0.7, alpha=0.5)
    axes.semilogx(tried.lrs, tried.smoothed, color=TRAIN, linewidth=1.8, label="range test, smoothed")
    axes.axvline(exam.config.optimizer.lr, color=DEV, linewidth=1.8, label=f"lr {exam.config.optimizer.lr:g}")
    axes.axvline(tried.best, color=QUIET, linestyle=":", label=f"lowest loss at {tried.best:.2g}")
    if math.isfinite(limit := exam.curvature_start.largest_lr):
        axes.axvline(limit, color=QUIET, linestyle="--", label=f"curvature allows {limit:.2g}")
    if tried.losses:
        axes.set_ylim(min(tried.losses) - 0.1, 1.35 * max(tried.losses[0], exam.initial.blind))
    axes.set(xlabel="learning rate", ylabel=f"loss, nats per {exam.config.task.noun}")
    axes.set_title("The rate rises over seven decades", loc="left")
    axes.legend(fontsize=8, loc="upper left")


def _losses(axes: Axes, exam: Examination) -> None:
    past = exam.history
    steps = past.steps if past else range(1, len(exam.training.losses) + 1)
    losses = past.losses if past else exam.training.losses
    axes.plot(steps, losses, color=TRAIN, linewidth=0.9, label="train, each step's batch")
    if past and past.dev:
        axes.plot(*zip(*past.dev, strict=True), color=DEV, marker="o", markersize=4, label="dev")
    for i in spikes(losses):
        axes.plot(steps[i], losses[i], color=DEV, marker="x", linestyle="none")
    blind = exam.initial.blind
    axes.axhline(blind, color=QUIET, linestyle=":", label=f"{exam.blind_guess} {number(blind, 3)}")
    if exam.fit:
        label = f"{exam.config.task.inputless} {number(exam.fit.unigram.estimate, 3)}"
        axes.axhline(exam.fit.unigram.estimate, color=QUIET, linestyle="-.", label=label)
    if exam.floor is not None:
        axes.axhline(exam.floor, color=QUIET, linestyle="--", label=f"entropy floor {number(exam.floor, 3)}")
    axes.set(xlabel="step", ylabel=f"loss, nats per {exam.config.task.noun}")
    axes.set_title("Loss of the run" if past else "Loss of the short training", loc="left")
    axes.legend(fontsize=8)


def _ratios(axes: Axes, exam: Examination) -> None:
    matrices = [g.name for g in exam.gradients_start if len(g.shape) >= 2 and any(exam.training.ratios[g.name])]
    for name in matrices:
        ratios = np.log10(np.maximum(exam.training.ratios[name], 1e-12))
        axes.plot(exam.training.ratio_steps, ratios, color=TRAIN, linewidth=0.9, alpha=0.5)
    axes.axhline(-3, color=QUIET, linestyle="--", label="-3, a rule of thumb for SGD")
    axes.axhline(0, color=DEV, linewidth=1, label="0: as large as the weights")
    axes.set(xlabel="step of the short training", ylabel="log10 (update / weights)")
    axes.set_title("Each matrix: update against weights", loc="left")
    axes.legend(fontsize=8)


def _gradients(axes: Axes, exam: Examination) -> None:
    def draw(found: Sequence[Gradient], colour: str, label: str) -> None:
        places = [i for i, g in enumerate(found) if g.state == "flows"]
        axes.plot([found[i].rms for i in places], places, "o", color=colour, markersize=4, label=label)
        lost = [i for i, g in enumerate(found) if g.state != "flows"]
        axes.plot([1e-12] * len(lost), lost, "x", color=colour)

    draw(exam.gradients_start, QUIET, "before training")
    draw(exam.gradients_end, TRAIN, "after")
    names = [g.name for g in exam.gradients_start]
    every = math.ceil(len(names) / 30)
    axes.set_xscale("log")
    axes.set_yticks(range(0, len(names), every), names[::every], fontsize=6)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="root mean square of the gradient (x: none, or 0)")
    axes.set_title("Gradient of each parameter", loc="left")
    axes.legend(fontsize=8)


def _norms(axes: Axes, exam: Examination) -> None:
    past = exam.history
    norms = past.grad_norms if past else exam.training.grad_norms
    axes.semilogy(past.steps if past else range(1, len(norms) + 1), norms, color=TRAIN, linewidth=0.9, label="norm")
    if exam.config.train.clip is not None:
        axes.axhline(exam.config.train.clip, color=DEV, linewidth=1, label=f"clip {exam.config.train.clip:g}")
    axes.set(xlabel="step", ylabel="norm of the gradient")
    axes.set_title("Gradient norm before clipping", loc="left")
    axes.legend(fontsize=8)


def _fit(axes: Axes, exam: Examination) -> None:
    """Losses with their intervals on one line each."""
    rows = [("before training", exam.initial.loss)]
    if exam.fit:
        rows += [(exam.config.task.inputless, exam.fit.unigram), ("train", exam.fit.train), ("dev", exam.fit.dev)]
    for row, (_, e) in enumerate(rows):
        axes.errorbar(e.estimate, row, xerr=[[e.estimate - e.low], [e.high - e.estimate]], fmt="o", color=TRAIN,
                      capsize=4)  # fmt: skip
        axes.annotate(number(e.estimate, 3), (e.estimate, row), (0, 8), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
    axes.axvline(exam.initial.blind, color=QUIET, linestyle=":", label=exam.blind_guess)
    if exam.floor is not None:
        axes.axvline(exam.floor, color=QUIET, linestyle="--", label="entropy floor")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.margins(x=0.12)
    axes.set(ylim=(len(rows) - 0.5, -0.7), xlabel=f"loss, nats per {exam.config.task.noun}, 95 % interval")
    axes.set_title("What it knows", loc="left")
    axes.legend(fontsize=8)


def _histograms(axes: Axes, found: Sequence[Activations], when: str) -> None:
    """Each row over mean +- 4 standard deviations, in the middle the mean; the standard deviation stands beside it."""
    for row, a in enumerate(found):
        x = np.linspace(-4, 4, len(a.counts))
        heights = np.asarray(a.counts) / max(1, *a.counts)
        axes.fill_between(x, row, row - 0.85 * heights, color=TRAIN, alpha=0.75, linewidth=0)
        says = f"{a.std:.3g}" + (f", dead {a.dead:.0%}" if a.dead else "")
        says += f", saturated {a.saturated:.0%}" if a.saturated else ""
        axes.text(4.15, row, says, fontsize=8, va="bottom")
    axes.set(xlim=(-4, 5.9), ylim=(len(found) - 0.4, -1.4), xlabel="standard deviations from the mean")
    axes.set_xticks(range(-4, 5, 2))
    axes.set_title(f"Values {when}; right: their standard deviation", loc="left")
