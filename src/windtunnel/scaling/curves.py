"""Points read off the curves of long runs: the loss of a run where it passes a budget, and not where it ended.

A run that passes a budget has not decayed its learning rate there, so its loss is higher than that of a run whose
schedule ends at the budget (Hoffmann et al. 2022, section 3.1); a study of one's own should end its runs there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from windtunnel.errors import DataError
from windtunnel.scaling.points import Points
from windtunnel.stats.paired import Floats

Reading = Literal["polynomial", "interpolation"]


@dataclass(frozen=True, eq=False)
class Curve:
    """The course of one run: flops, tokens and loss in nats per token are (evaluations,), with flops rising.

    epochs_at_end: how often the text had been seen after the last evaluation, or None.
    """

    parameters: float
    flops: Floats
    tokens: Floats
    loss: Floats
    seed: int = 0
    all_parameters: float | None = None
    epochs_at_end: float | None = None

    def __post_init__(self) -> None:
        if not len(self.flops) == len(self.tokens) == len(self.loss) > 0 or np.any(np.diff(self.flops) <= 0):
            raise DataError(
                f"a curve of {len(self.flops)} FLOPs, {len(self.tokens)} tokens and {len(self.loss)} losses: "
                "expected as many of each, and FLOPs that rise"
            )

    def loss_at(self, budget: float, how: Reading = "interpolation", degree: int = 5) -> float | None:
        """The loss where the run passes the budget, or None where it does not.

        Args:
            how: `interpolation` between the two evaluations around it, or the value of a `polynomial` of this degree
                in FLOPs that is fitted to the whole course.
        """
        if not self.flops[0] <= budget <= self.flops[-1]:
            return None
        if how == "interpolation":
            return float(np.interp(budget, self.flops, self.loss))
        if len(self.flops) <= degree:
            raise DataError(f"a curve of {len(self.flops)} evaluations cannot hold a polynomial of degree {degree}")
        return float(np.polynomial.Polynomial.fit(self.flops, self.loss, degree)(budget))


def points_of_curves(curves: Iterable[Curve], budgets: Sequence[float], how: Reading = "interpolation") -> Points:
    """The points of all curves at all budgets that they pass.

    Raises:
        DataError: when no curve passes any budget.
    """
    read = [(curve, budget, curve.loss_at(budget, how)) for curve in curves for budget in budgets]
    rows = [(curve, budget, loss) for curve, budget, loss in read if loss is not None]
    if not rows:
        raise DataError(f"no run passes any of the {len(budgets)} budgets; give smaller budgets or longer runs")
    tokens = np.array([np.interp(budget, curve.flops, curve.tokens) for curve, budget, _ in rows])
    with_all = all(curve.all_parameters for curve, _, _ in rows)
    with_epochs = all(curve.epochs_at_end for curve, _, _ in rows)
    ends = np.array([curve.tokens[-1] for curve, _, _ in rows])
    return Points(
        np.array([curve.parameters for curve, _, _ in rows]),
        tokens,
        np.array([budget for _, budget, _ in rows]),
        np.array([loss for _, _, loss in rows]),
        np.array([curve.seed for curve, _, _ in rows]),
        budget=np.array([budget for _, budget, _ in rows]),
        all_parameters=np.array([curve.all_parameters for curve, _, _ in rows], dtype=float) if with_all else None,
        epochs=np.array([curve.epochs_at_end for curve, _, _ in rows], dtype=float) * tokens / ends
        if with_epochs
        else None,
    )


def plain_vertex(parameters: Floats, loss: Floats) -> float:
    """N at the vertex of the parabola of loss in ln N, (n,) each, as people publish it: no interval, no refusal.

    It may lie outside the sizes, and of a parabola that opens downwards it is the highest point.
    """
    square, slope, _ = np.polyfit(np.log(parameters), loss, 2)
    return float(np.exp(-slope / (2 * square)))
