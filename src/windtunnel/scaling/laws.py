"""The laws through the vertices: power laws N*(C) and D*(C), and the envelope of the loss, each with its band."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import chdtri

from windtunnel.scaling.draws import exp, spread, summary
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats

FEWEST_BUDGETS = 3
SCATTER = 0.1
"""Level of the test whether the vertices scatter around their line. At .05 the bands of four budgets that do scatter
cover less by 3 points, at .2 those of budgets that do not cover more by half a point."""


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = exp(intercept) (C / exp(centre))^exponent; draws: intercepts and exponents, (samples, 2)."""

    exponent: Estimate
    intercept: float
    centre: float
    draws: Floats = field(repr=False)

    def at(self, compute: float) -> Estimate:
        """y at so many FLOPs, with its band."""
        z = np.log(compute) - self.centre
        value = self.intercept + self.exponent.estimate * z
        return exp(summary(value, self.draws @ [1.0, z], self.exponent.n, self.exponent.method))


def fit_power_law(
    log_compute: Floats, values: Floats, draws: Floats, runs: int, method: str, rng: np.random.Generator
) -> PowerLaw:
    """The line of ln y in ln C, weighted by how well each budget's vertex is determined.

    Budgets are drawn as well as seeds: where the vertices scatter around the line by more than their own errors do,
    the excess is a variance between budgets, and every draw adds it.

    Args:
        log_compute: (budgets,); values: ln y, (budgets,); draws: of the values, (samples, budgets).
    """
    error = np.maximum(spread(draws), 1e-12)
    weights = 1 / error**2
    centre = float(np.average(log_compute, weights=weights))
    basis = np.stack([np.ones_like(log_compute), log_compute - centre], axis=1)
    line = _projection(basis, weights)
    fit = line @ values
    df = len(values) - 2
    scatter = float(weights @ (values - basis @ fit) ** 2)
    drawn = draws
    if scatter > chdtri(df, SCATTER):
        between = (scatter - df) / (weights.sum() - (weights**2).sum() / weights.sum())
        weights = 1 / (error**2 + between)
        line = _projection(basis, weights)
        fit = line @ values
        scale = np.sqrt(between * df / rng.chisquare(df, (len(draws), 1)))
        drawn = draws + scale * rng.standard_normal(draws.shape)
        method += f", and of the budgets' scatter, {df} degrees of freedom"
    lines = drawn @ line.T
    exponent = summary(float(fit[1]), lines[:, 1], runs, method)
    return PowerLaw(exponent, float(fit[0]), centre, lines)


def _projection(basis: Floats, weights: Floats) -> Floats:
    """The matrix that makes coefficients of values: (k, n)."""
    weighted = basis.T * weights
    return np.asarray(np.linalg.solve(weighted @ basis, weighted))
