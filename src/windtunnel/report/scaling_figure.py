"""The figures of a scaling study, as people know them: IsoFLOP curves, N* and D* against C, and the loss against C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.report.charts import DEV, GREEN, QUIET, TRAIN, Panel, figure
from windtunnel.scaling.fit import Scaling
from windtunnel.scaling.isoflop import Parabola
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 8
"""Budgets that are named in the legend; of more, the first and the last."""


def scaling_figures(found: Scaling, predict: Sequence[float] = ()) -> dict[str, Figure]:
    """`isoflop`, `optimum` and `loss`; the lines go on to the largest compute of `predict`."""
    until = max([*predict, found.largest_budget])
    return {
        "isoflop": figure(_isoflop(found), size=(7.2, 4.8)),
        "optimum": figure(
            _law(found, until, predict, "parameters", "N*, parameters", TRAIN),
            _law(found, until, predict, "tokens", "D*, tokens", GREEN),
            size=(10.0, 4.2),
        ),
        "loss": figure(_loss(found, until, predict), size=(7.2, 4.8)),
    }


def _colours(n: int) -> list[str]:
    """Of n budgets, each to be told from a white page and from a dark one."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.38, 0.82, n)]


def _isoflop(found: Scaling) -> Panel:
    def panel(axes: Axes) -> None:
        budgets = found.points.budgets.tolist()
        fits = {p.budget: p for p in found.parabolas}
        size = getattr(found.points, found.size)
        for i, (nominal, colour) in enumerate(zip(budgets, _colours(len(budgets)), strict=True)):
            here = found.points.nominal == nominal
            named = len(budgets) <= MOST_NAMED or i in (0, len(budgets) - 1)
            parabola = fits.get(nominal)
            usable = parabola is not None and parabola.refusal is None
            label = f"{nominal:.3g} FLOPs{'' if usable else ', refused'}" if named else ""
            axes.plot(size[here], found.points.loss[here], "o", color=colour, markersize=4, alpha=0.7, label=label,
                      markerfacecolor=colour if usable else "none")  # fmt: skip
            if parabola and usable:
                _curve(axes, parabola, colour, "" if i < len(budgets) - 1 else "lowest, 95 %")
        axes.set(xscale="log", xlabel="N, parameters", ylabel="loss, nats per token")

    return panel


def _curve(axes: Axes, parabola: Parabola, colour: str, label: str) -> None:
    assert parabola.polynomial
    assert parabola.parameters
    assert parabola.loss
    x = np.linspace(np.log(parabola.sizes[0]), np.log(parabola.sizes[-1]), 100)
    axes.plot(np.exp(x), np.polyval(parabola.polynomial, x), color=colour, linewidth=1.4)
    _mark(axes, parabola.parameters, parabola.loss, label)


def _mark(axes: Axes, across: Estimate, up: Estimate, label: str) -> None:
    axes.errorbar(
        across.estimate, up.estimate, xerr=_ends(across), yerr=_ends(up),
        fmt="D", color=DEV, markersize=5, capsize=3, zorder=4, label=label,
    )  # fmt: skip


def _ends(found: Estimate) -> list[list[float]]:
    return [[found.estimate - found.low], [found.high - found.estimate]]


def _law(found: Scaling, until: float, predict: Sequence[float], name: str, label: str, colour: str) -> Panel:
    def panel(axes: Axes) -> None:
        for p in found.parabolas:
            at: Estimate | None = getattr(p, name)
            if at:
                axes.errorbar(p.compute, at.estimate, yerr=_ends(at), fmt="o", color=colour, capsize=3)
        law = getattr(found, name)
        if law:
            shown = f"exponent {law.exponent.estimate:.3f} [{law.exponent.low:.3f}, {law.exponent.high:.3f}]"
            _band(axes, found, until, law.at, colour, shown)
            for i, compute in enumerate(predict):
                at = law.at(compute)
                axes.errorbar(compute, at.estimate, yerr=_ends(at), fmt="D", color=DEV, capsize=3,
                              label="" if i else "forecast, 95 %")  # fmt: skip
        if found.law:
            x = _computes(found, until)
            column = 0 if name == "parameters" else 1
            y = [found.law.at(c)[column].estimate for c in x]
            axes.plot(x, y, color=QUIET, linestyle=":", label="parametric law")
        axes.set(xscale="log", yscale="log", xlabel="C, FLOPs", ylabel=label)

    return panel


def _computes(found: Scaling, until: float) -> list[float]:
    least = min([p.compute for p in found.parabolas] or found.points.budgets.tolist())
    return np.geomspace(least, max(until, least * 1.01), 60).tolist()


def _band(axes: Axes, found: Scaling, until: float, law: Callable[[float], Estimate], colour: str, label: str) -> None:
    x = _computes(found, until)
    at = [law(compute) for compute in x]
    axes.plot(x, [e.estimate for e in at], color=colour, linewidth=1.4, label=label)
    axes.fill_between(x, [e.low for e in at], [e.high for e in at], color=colour, alpha=0.15, linewidth=0)


def _loss(found: Scaling, until: float, predict: Sequence[float]) -> Panel:
    def panel(axes: Axes) -> None:
        points = found.points
        axes.plot(points.flops, points.loss, "o", color=QUIET, markersize=3, alpha=0.5, label="runs")
        for p in found.parabolas:
            if p.loss:
                axes.errorbar(
                    p.compute, p.loss.estimate, yerr=_ends(p.loss), fmt="D", color=DEV, capsize=3, markersize=5
                )
        if found.envelope:
            g = found.envelope.exponent
            shown = f"envelope, exponent {g.estimate:.3f} [{g.low:.3f}, {g.high:.3f}]"
            _band(axes, found, until, found.envelope.at, TRAIN, shown)
            for i, compute in enumerate(predict):
                at = found.envelope.at(compute)
                axes.errorbar(compute, at.estimate, yerr=_ends(at), fmt="s", color=TRAIN, capsize=3,
                              label="" if i else "forecast, 95 %")  # fmt: skip
        if found.law:
            law = found.law
            _band(axes, found, until, lambda c: law.at(c)[2], GREEN, "parametric law")
        axes.set(xscale="log", xlabel="C, FLOPs", ylabel="loss, nats per token")

    return panel
