"""The envelope of the loss, L*(C) = E + K C^-g, through the lowest points of the parabolas, with its band."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import chdtri

from windtunnel.scaling.draws import WORST_RESIDUAL, spread, summary
from windtunnel.scaling.laws import SCATTER
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats

FEWEST_BUDGETS = 4
EXPONENTS = (0.005, 2.0)
"""Between which g is looked for."""
STEPS, FINER = 50, 9


@dataclass(frozen=True, eq=False)
class Envelope:
    """L* = floor + gain (C / exp(centre))^-exponent in nats per token; draws: those three, (samples, 3)."""

    floor: Estimate
    exponent: Estimate
    gain: float
    centre: float
    draws: Floats = field(repr=False)

    def at(self, compute: float) -> Estimate:
        """L* at so many FLOPs, with its band."""
        z = np.log(compute) - self.centre
        floor, gain, exponent = self.draws.T
        value = self.floor.estimate + self.gain * np.exp(-self.exponent.estimate * z)
        return summary(value, floor + gain * np.exp(-exponent * z), self.floor.n, self.floor.method)


def fit_envelope(
    log_compute: Floats, loss: Floats, draws: Floats, runs: int, method: str, rng: np.random.Generator
) -> Envelope | str:
    """Weighted least squares over a grid of g, with E >= 0 and K >= 0; or the sentence why there are no numbers.

    Where the losses scatter around the curve by more than their own errors do, every draw adds the excess, as a t with
    as many degrees of freedom as there are budgets beyond three.

    Args:
        log_compute: (budgets,); loss: of the vertices, (budgets,); draws: (samples, budgets).
    """
    error = np.maximum(spread(draws), 1e-12)
    centre = float(log_compute.mean())
    z = log_compute - centre
    weights = 1 / error**2
    (fit,) = _fits(z, loss[None], weights)
    df = len(loss) - 3
    rest = loss - fit[0] - fit[1] * np.exp(-fit[2] * z)
    residual = float(np.sqrt(np.mean(np.log1p(-rest / loss) ** 2)))
    if not residual <= WORST_RESIDUAL:
        return (
            f"This law does not fit: the losses at the vertices lie off it by {residual:.3f} in ln L, "
            f"and at most {WORST_RESIDUAL} is taken; read the losses at the budgets, or add budgets beyond them."
        )
    scatter, drawn = float(weights @ rest**2), draws
    if scatter > chdtri(df, SCATTER):
        scale = np.sqrt((scatter - df) / rng.chisquare(df, (len(draws), 1))) * error
        drawn = draws + scale * rng.standard_normal(draws.shape)
    drawn = _fits(z, drawn, weights)
    floor = summary(float(fit[0]), drawn[:, 0], runs, method)
    exponent = summary(float(fit[2]), drawn[:, 2], runs, method)
    return Envelope(floor, exponent, float(fit[1]), centre, drawn)


def _fits(z: Floats, losses: Floats, weights: Floats) -> Floats:
    """Floor, gain and exponent of each row of losses, (rows, budgets): (rows, 3).

    The best exponent of a grid, then twice the best of a finer one between its neighbours.
    """
    grid = np.geomspace(*EXPONENTS, STEPS)
    wrong = np.stack([_linear(z, losses, weights, np.full(len(losses), g))[2] for g in grid])
    best, ratio = grid[np.argmin(wrong, axis=0)], grid[1] / grid[0]
    for _ in range(2):
        tried = best * ratio ** np.linspace(-1, 1, FINER)[:, None]
        wrong = np.stack([_linear(z, losses, weights, g)[2] for g in tried])
        best = tried[np.argmin(wrong, axis=0), np.arange(len(best))]
        ratio **= 2 / (FINER - 1)
    floor, gain, _ = _linear(z, losses, weights, best)
    return np.stack([floor, gain, best], axis=1)


def _linear(z: Floats, losses: Floats, weights: Floats, exponent: Floats) -> tuple[Floats, Floats, Floats]:
    """Floor and gain, both at least 0, and the weighted squares, for an exponent of each row: (rows,) each."""
    x = np.exp(-exponent[:, None] * z)
    total = weights.sum()
    mean, middle = x @ weights / total, losses @ weights / total
    gain = ((losses * (x - mean[:, None])) @ weights) / ((x - mean[:, None]) ** 2 @ weights)
    through_zero = ((losses * x) @ weights) / (x**2 @ weights)
    gain = np.maximum(np.where(middle - gain * mean < 0, through_zero, gain), 0)
    floor = np.maximum(middle - gain * mean, 0)
    return floor, gain, ((losses - floor[:, None] - gain[:, None] * x) ** 2) @ weights
