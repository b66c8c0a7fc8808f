"""Figures of statistics: variants beside their control, and posteriors of a rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.report.charts import DEV, GREEN, INK, QUIET, TRAIN, drawing
from windtunnel.stats.bayes import BetaBernoulli
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import AgainstControl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST_DRAWN = 1e300


def variants_figure(found: AgainstControl) -> Figure:
    """Left each rate with its interval and the control's line; right each difference from the control and zero."""
    level = f"{100 * (1 - found.alpha):g} %"
    names = [f"{found.control} (control)", *(v.name for v in found.variants)]
    with drawing(9.0, 1.4 + 0.42 * len(names)) as figure:
        rates, differences = figure.subplots(1, 2, sharey=True)
        for row, rate in enumerate([found.control_rate, *(v.rate for v in found.variants)]):
            rates.errorbar(rate.estimate, row, xerr=[[rate.estimate - rate.low], [rate.high - rate.estimate]],
                           fmt="o", color=TRAIN if row else QUIET, capsize=4)  # fmt: skip
        rates.axvline(found.control_rate.estimate, color=QUIET, linestyle="--", linewidth=1)
        for row, variant in enumerate(found.variants, start=1):
            d = variant.difference
            clear = d.low > 0 or d.high < 0
            differences.errorbar(d.estimate, row, xerr=[[d.estimate - d.low], [d.high - d.estimate]],
                                 fmt="s" if clear else "o", color=DEV if clear else TRAIN, capsize=4)  # fmt: skip
        differences.axvline(0, color=QUIET, linestyle="--", linewidth=1)
        rates.set_yticks(range(len(names)), names)
        for label in rates.get_yticklabels():
            label.set_parse_math(False)
        rates.set(ylim=(len(names) - 0.5, -0.5), xlabel=f"rate, {level} Wilson interval")
        differences.set_xlabel(f"minus {found.control}, {level} Wald interval, uncorrected").set_parse_math(False)
        differences.set_title("square: the interval leaves out 0", loc="left", fontsize=9)
    return figure


def posterior_figure(coins: Sequence[BetaBernoulli], prior: tuple[float, float] = (1.0, 1.0)) -> Figure:
    """The posterior density of each rate, its prior, the credible interval and the marks of the three estimates."""
    with drawing(3.6 * len(coins) + 0.4, 3.8) as figure:
        panels = figure.subplots(1, len(coins), squeeze=False)[0]
        for axes, found in zip(panels, coins, strict=True):
            _draw_posterior(axes, found, prior)
        panels[0].set_ylabel("density")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_posterior(axes: Axes, found: BetaBernoulli, prior: tuple[float, float]) -> None:
    from scipy.special import betaln

    left, right = _rates_in_view(found)
    theta = np.linspace(left, right, 2001)[1:-1]

    def density(a: float, b: float) -> np.typing.NDArray[np.float64]:
        return np.exp((a - 1) * np.log(theta) + (b - 1) * np.log1p(-theta) - betaln(a, b))

    after = density(found.alpha, found.beta)
    inside = (theta >= found.interval.low) & (theta <= found.interval.high)
    axes.fill_between(theta[inside], after[inside], color=TRAIN, alpha=0.2, linewidth=0, label="95 % equal tails")
    axes.plot(theta, after, color=TRAIN, label="posterior")
    axes.plot(theta, density(*prior), color=QUIET, linestyle=":", label="prior")
    marks = [("MLE", None if found.mle is None else found.mle.estimate, "v", INK, 0.0)]
    marks += [("posterior mean", found.mean, "o", DEV, 0.0), ("MAP", found.map, "s", GREEN, 0.07)]
    top = float(max(after.max(), density(*prior).max()))
    for name, place, marker, colour, lift in marks:
        if place is not None:
            axes.plot(place, -(0.05 + lift) * top, marker, color=colour, label=f"{name}", clip_on=False, markersize=7)
    axes.set(xlim=(left, right), ylim=(-0.17 * top, 1.06 * top), xlabel="rate")
    axes.set_title(f"{found.successes} of {found.n}", loc="left")


def _rates_in_view(found: BetaBernoulli) -> tuple[float, float]:
    """0 to 1, or where the posterior is when it is so narrow that it would be a line, or fall between two points."""
    wide = found.interval.high - found.interval.low
    if wide > 0.02 or wide == 0:
        return 0.0, 1.0
    seen = [found.interval.low - wide, found.interval.high + wide, found.mean]
    seen += [found.mle.estimate] if found.mle else []
    return max(0.0, min(seen)), min(1.0, max(seen))


def values_figure(values: Sequence[float], found: Estimate, against: float | None, name: str = "value") -> Figure:
    """Every value as a dot, the mean with its interval below them, and the number it is compared with as a line.

    Raises:
        ConfigError: for values that no axis can hold.
    """
    largest = max(map(abs, [*values, 0.0 if np.isnan(found.low) else found.high - found.low]))
    if largest > LARGEST_DRAWN:
        raise ConfigError(
            f"expected values up to {LARGEST_DRAWN:g} in a figure, given {largest:g}: leave --figure out or scale them"
        )
    with drawing(6.4, 2.4) as figure:
        axes = figure.subplots()
        axes.plot(values, [1.0] * len(values), "o", color=TRAIN, alpha=0.6, label="each")
        if not np.isnan(found.low):
            axes.plot([found.low, found.high], [0, 0], color=DEV, linewidth=2.5)
        axes.plot(found.estimate, 0, "D", color=DEV, label=found.method)
        if against is not None:
            axes.axvline(against, color=QUIET, linestyle="--", label=f"{against:g}")
        axes.set(ylim=(-0.7, 1.5), yticks=[], xlabel=name)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def power_figure(curve: Mapping[int, float], needed: int, target: float) -> Figure:
    """Power against the number of pairs, with the number that is needed."""
    with drawing(6.0, 3.6) as figure:
        axes = figure.subplots()
        axes.plot(list(curve), list(curve.values()), "o-", color=TRAIN)
        axes.axhline(target, color=QUIET, linestyle="--", label=f"power {target:g}")
        axes.plot(needed, curve[needed], "D", color=DEV, markersize=8, label=f"{needed} pairs")
        axes.set(ylim=(0, 1.02), xlabel="pairs", ylabel="chance to find the effect")
        axes.legend(loc="lower right")
    return figure
