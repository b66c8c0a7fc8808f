"""The parametric law L = E + A / N^a + B / D^b, fitted to all points at once, with its band.

Hoffmann et al. 2022, section 3.3, with the corrections of Besiroglu et al. 2024: the Huber loss of ln L is summed and
not averaged, the tolerance is tight, and no start is left before it has converged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from windtunnel.scaling.draws import LEAST_USABLE, WORST_RESIDUAL, exp, summary
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats, chunks

DELTA = 1e-3
"""Where Huber's loss of a residual of ln L turns from its square to its size."""
FEWEST_POINTS = 8
GRID = np.linspace(0.05, 1.2, 12)
"""Starts of a and b."""
STARTS = 8
HELD = 4_000_000
"""Residuals computed in all while resampling; more points are resampled less often, at least 100 times."""
METHOD = "95 % parametric bootstrap of the residuals"


@dataclass(frozen=True, eq=False)
class Parametric:
    """L = floor + A / N^a + B / D^b in nats per token.

    residual: root mean square of ln L - ln fit; flops_per: C / ND of the points; draws: (samples, 5) of ln A, ln B,
    ln E, a and b.
    """

    floor: Estimate
    A: Estimate
    a: Estimate
    B: Estimate
    b: Estimate
    exponent: Estimate
    residual: float
    flops_per: float
    theta: Floats = field(repr=False)
    draws: Floats = field(repr=False)

    def at(self, compute: float) -> tuple[Estimate, Estimate, Estimate]:
        """N*, D* and the loss at so many FLOPs, with their bands."""
        best, drawn = (_optimum(theta, compute / self.flops_per) for theta in (self.theta[None], self.draws))
        n, d, loss = (summary(float(x[0]), y, self.a.n, METHOD) for x, y in zip(best, drawn, strict=True))
        return exp(n), exp(d), loss


def fit_parametric(
    parameters: Floats, tokens: Floats, loss: Floats, flops_per: float, samples: int, rng: np.random.Generator
) -> Parametric | str:
    """The law, or the sentence why it has no numbers. All columns are (n,)."""
    n = len(loss)
    if n < FEWEST_POINTS or len(np.unique(parameters)) < 3 or len(np.unique(tokens)) < 3:
        runs = "1 run" if n == 1 else f"{n} runs"
        return f"{runs} cannot hold the five numbers of the parametric law; it needs 8, of 3 sizes and 3 lengths."
    logs = np.stack([np.log(parameters), np.log(tokens)])
    theta = _descend(logs, np.log(loss))
    fit = _log_loss(theta[None], logs)[0]
    rest = np.log(loss) - fit
    residual = float(np.sqrt(np.mean(rest**2)))
    if residual > WORST_RESIDUAL:
        return (
            f"This law does not fit: its residual of ln L is {residual:.3f}, and at most {WORST_RESIDUAL} is taken; "
            "fit fewer budgets, or read the parabolas alone."
        )
    deviation = float(np.sqrt(np.sum((loss - np.exp(fit)) ** 2) / (n - 5)))
    drawn = []
    for rows in chunks(min(samples, max(100, HELD // n)), 5 * n):
        scale = deviation * np.sqrt((n - 5) / rng.chisquare(n - 5, (rows, 1)))
        noise = scale * rng.standard_normal((rows, n))
        targets = np.log(np.maximum(np.exp(fit) + noise, np.exp(fit) / 2))
        drawn.append(_polished(np.tile(theta, (rows, 1)), logs, targets))
    draws = np.concatenate(drawn)
    falls = np.all(draws[:, 3:] > 0, axis=1)
    if np.any(theta[3:] <= 0) or falls.mean() < LEAST_USABLE:
        return (
            f"The loss falls with both N and D in {100 * falls.mean():.0f} % of the resamples of the parametric law, "
            f"and {100 * LEAST_USABLE:.0f} % are needed; add budgets or seeds."
        )
    draws[:, 3:] = np.maximum(draws[:, 3:], 1e-3)
    return _law(theta, draws, residual, flops_per, n)


def _law(theta: Floats, drawn: Floats, residual: float, flops_per: float, n: int) -> Parametric:
    alpha, beta, floor, a, b = (summary(float(theta[i]), drawn[:, i], n, METHOD) for i in range(5))
    exponent = summary(theta[4] / (theta[3] + theta[4]), drawn[:, 4] / (drawn[:, 3] + drawn[:, 4]), n, METHOD)
    return Parametric(exp(floor), exp(alpha), a, exp(beta), b, exponent, residual, flops_per, theta, drawn)


def _log_loss(theta: Floats, logs: Floats) -> Floats:
    """ln L of laws (rows, 5) at points (2, n): (rows, n)."""
    alpha, beta, floor, a, b = theta.T[:, :, None]
    return np.asarray(np.logaddexp(np.logaddexp(alpha - a * logs[0], beta - b * logs[1]), floor))


def _shares(theta: Floats, logs: Floats, fit: Floats) -> tuple[Floats, Floats, Floats]:
    """What the terms of N, of D and of E are of the loss, (rows, n) each."""
    alpha, beta, floor, a, b = theta.T[:, :, None]
    return np.exp(alpha - a * logs[0] - fit), np.exp(beta - b * logs[1] - fit), np.exp(floor - fit)


def _huber(rest: Floats) -> Floats:
    size = np.abs(rest)
    return np.where(size <= DELTA, rest**2 / 2, DELTA * (size - DELTA / 2))


def _objective(theta: Floats, logs: Floats, target: Floats) -> tuple[float, Floats]:
    """Huber's loss, summed, over DELTA^2, and its gradient (5,)."""
    fit = _log_loss(theta[None], logs)
    rest = (fit - target)[0]
    of_n, of_d, of_floor = (share[0] for share in _shares(theta[None], logs, fit))
    slope = np.clip(rest, -DELTA, DELTA)
    terms = (of_n, of_d, of_floor, -of_n * logs[0], -of_d * logs[1])
    return float(_huber(rest).sum()) / DELTA**2, np.array([slope @ term for term in terms]) / DELTA**2


def _descend(logs: Floats, target: Floats) -> Floats:
    """The best of L-BFGS from a grid of starts: ln A, ln B, ln E, a, b."""
    from scipy.optimize import minimize

    ends = [
        minimize(_objective, start, (logs, target), "L-BFGS-B", jac=True,
                 options={"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 20}).x
        for start in _starts(logs, target)
    ]  # fmt: skip
    ends = [*ends, *_polished(np.array(ends), logs, np.tile(target, (len(ends), 1)))]
    return np.asarray(min(ends, key=lambda theta: _objective(theta, logs, target)[0]))


def _starts(logs: Floats, target: Floats) -> list[Floats]:
    """For every pair of exponents of the grid A, B and E by least squares without signs; the best of these."""
    from scipy.optimize import nnls

    pick = slice(None, None, max(1, len(target) // 2000))
    (n, d), y = logs[:, pick], target[pick]
    found = []
    for a in GRID:
        for b in GRID:
            basis = np.stack([np.exp(-a * (n - n.mean())), np.exp(-b * (d - d.mean())), np.ones_like(n)], axis=1)
            terms = np.maximum(nnls(basis * np.exp(-y)[:, None], np.ones_like(y))[0], 1e-3)
            wrong = float(_huber(np.log(basis @ terms) - y).sum())
            alpha, beta, floor = np.log(terms)
            found.append((wrong, np.array([alpha + a * n.mean(), beta + b * d.mean(), floor, a, b])))
    return [theta for _, theta in sorted(found, key=lambda pair: pair[0])[:STARTS]]


def _polished(theta: Floats, logs: Floats, targets: Floats, steps: int = 60) -> Floats:
    """Levenberg-Marquardt on Huber's loss by reweighting, all rows at once: laws (rows, 5) for targets (rows, n)."""
    centre = logs.mean(axis=1)
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    fit = _log_loss(theta, logs)
    best = _huber(fit - targets).sum(axis=1)
    for _ in range(steps):
        rest = fit - targets
        of_n, of_d, of_floor = _shares(theta, logs, fit)
        slopes = (of_n, of_d, of_floor, -of_n * (logs[0] - centre[0]), -of_d * (logs[1] - centre[1]))
        jacobian = np.stack(slopes, axis=1)  # of ln A and ln B at the middle of the points
        weighted = jacobian * (np.minimum(1, DELTA / np.maximum(np.abs(rest), 1e-12)))[:, None]
        normal = weighted @ jacobian.transpose(0, 2, 1)
        diagonal = np.einsum("rii->ri", normal)
        diagonal += damping[:, None] * diagonal + 1e-12
        step = -np.linalg.solve(normal, weighted @ rest[..., None])[..., 0]
        step[:, 0] += step[:, 3] * centre[0]
        step[:, 1] += step[:, 4] * centre[1]
        tried = theta + np.clip(step, -20, 20)
        new = _log_loss(tried, logs)
        wrong = _huber(new - targets).sum(axis=1)
        better = wrong < best
        theta[better], fit[better] = tried[better], new[better]
        if np.all(np.abs(best - wrong) <= 1e-9 * best):
            break
        best = np.where(better, wrong, best)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e6)
    return theta


def _optimum(theta: Floats, product: float) -> tuple[Floats, Floats, Floats]:
    """ln N, ln D and the loss of the best size where N D is `product`; theta is (rows, 5)."""
    alpha, beta, floor, a, b = theta.T
    n = (np.log(a) + alpha - np.log(b) - beta + b * np.log(product)) / (a + b)
    d = np.log(product) - n
    return n, d, np.exp(floor) + np.exp(alpha - a * n) + np.exp(beta - b * d)
