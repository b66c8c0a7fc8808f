"""Bayes for a coin: the Beta posterior of a Bernoulli rate."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincc, betaincinv, betaln, expit

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats
from windtunnel.stats.proportions import LARGEST, wilson
from windtunnel.stats.quadrature import panel_nodes


@dataclass(frozen=True)
class BetaBernoulli:
    """All usual estimates of a rate after `successes` of n, and the posterior Beta(alpha, beta) they come from."""

    successes: int
    n: int
    alpha: float
    beta: float
    mle: Estimate | None  # with Wilson's interval; None without observations
    mean: float  # of the posterior
    map: float | None  # posterior mode; None where the density is flat or unbounded
    interval: Estimate  # equal tails; its estimate is the posterior mean
    hdi: Estimate | None  # highest density; its estimate is the mode; None where there is no mode


def coin(successes: int, n: int, prior: tuple[float, float] = (1.0, 1.0), confidence: float = 0.95) -> BetaBernoulli:
    """The rate of a coin with a Beta(prior) before it: MLE, posterior mean, MAP and credible intervals.

    With the flat prior (1, 1) the mean is Laplace's (k + 1) / (n + 2) and the MAP equals the MLE k / n.

    >>> print(wt.stats.coin(7, 10).interval)
    0.6667 [0.3903, 0.8907] (n=10, posterior mean, 95 % equal-tailed interval)
    """
    if not (0 <= successes <= n and min(prior) > 0 and 0 < confidence < 1):
        raise ValueError(
            "expected 0 <= successes <= n, a prior above 0 and 0 < confidence < 1, "
            f"given {successes} of {n}, {prior} and {confidence}"
        )
    if n > LARGEST or min(prior) < 1 / LARGEST or max(prior) > LARGEST:
        raise ValueError(
            f"expected n up to {LARGEST:.0e} and a prior between {1 / LARGEST:.0e} and {LARGEST:.0e}, beyond which "
            f"scipy's quantiles err, given n = {n} and {prior}: give a smaller prior or fewer counts"
        )
    a, b = prior[0] + successes, prior[1] + n - successes
    mode, mean, percent = _mode(a, b), a / (a + b), f"{100 * confidence:g} %"
    low, high = betaincinv(a, b, [0.5 - confidence / 2, 0.5 + confidence / 2])
    low, high = (end if end > sys.float_info.min else 0.0 for end in (low, high))  # what is below any float
    hdi = None
    if mode is not None:
        hdi = Estimate(mode, *_highest_density(a, b, confidence), n, f"MAP, {percent} highest density interval")
    return BetaBernoulli(
        successes, n, a, b,
        mle=wilson(successes, n, confidence) if n else None,
        mean=mean,
        map=mode,
        interval=Estimate(mean, float(low), float(high), n, f"posterior mean, {percent} equal-tailed interval"),
        hdi=hdi,
    )  # fmt: skip


def probability_better(a: BetaBernoulli, b: BetaBernoulli) -> float:
    """P(theta_b > theta_a) for independent posteriors: the integral of the density of one times the CDF of the other.

    Gauss-Legendre in the log odds, over the density of the narrower posterior; beyond +-edge both are power laws, and
    the integral is a closed form. The absolute error is below 1e-10 where alpha and beta are at most 1e6, and below
    1e-8 up to 1e12.

    >>> round(wt.stats.probability_better(wt.stats.coin(7, 10), wt.stats.coin(9, 10)), 3)
    0.845
    """
    if 1 / a.alpha + 1 / a.beta > 1 / b.alpha + 1 / b.beta:  # about the variance of the log odds
        return 1 - probability_better(b, a)
    edge = 40 + math.log(max(1, a.alpha + a.beta, b.alpha + b.beta))
    left_a, left_b = (_power_tail(c.alpha, c.beta, edge) for c in (a, b))
    right_a, right_b = (_power_tail(c.beta, c.alpha, edge) for c in (a, b))
    left = left_a * (1 - left_b * a.alpha / (a.alpha + b.alpha))
    right = right_a * right_b * a.beta / (a.beta + b.beta)
    mode = math.log(a.alpha / a.beta)
    t, weights = panel_nodes(_end(a, -edge - mode), _end(a, edge - mode), 64)
    x, density = mode + t, np.exp(_log_density(a, t))
    # P(theta_b > x): of 1 - theta where theta nears 1. Not at x = 0 already: betainc(5e11, 5e11, .4999) errs by 1e-4.
    above = np.where(x < 2, betaincc(b.alpha, b.beta, expit(x)), betainc(b.beta, b.alpha, expit(-x)))
    middle = float(weights @ (density * above) / weights.dot(density)) * (1 - left_a - right_a)
    return min(1.0, max(0.0, left + middle + right))


def _power_tail(alpha: float, beta: float, edge: float) -> float:
    """P(log odds < -edge), to a relative error of (alpha + beta) e^-edge."""
    return math.exp(-alpha * edge - math.log(alpha) - float(betaln(alpha, beta)))


def _log_density(posterior: BetaBernoulli, t: Floats) -> Floats:
    """Of the log odds t beside their mode, against that at the mode: n (p t - log(1 + p (e^t - 1))), p = alpha / n.

    Written for the rarer side, where the logarithm's argument is at least 1/2: little cancels, even for a huge n.
    """
    n, rarer = posterior.alpha + posterior.beta, min(posterior.alpha, posterior.beta)
    p, t = rarer / n, t if rarer == posterior.alpha else -t
    found: Floats = n * (p * t - np.log1p(p * np.expm1(t)))
    return found


def _end(posterior: BetaBernoulli, far: float) -> float:
    """Where on the way from the mode to `far` the density falls below e^-45 of its highest, or `far`."""
    near = 0.0
    for _ in range(60 if _log_density(posterior, np.array(far)) < -45 else 0):
        middle = (near + far) / 2
        near, far = (near, middle) if _log_density(posterior, np.array(middle)) < -45 else (middle, far)
    return far


def _mode(a: float, b: float) -> float | None:
    if min(a, b) >= 1 and max(a, b) > 1:
        return (a - 1) / ((a - 1) + (b - 1))  # a + b - 2 is 0 for a = 1 and the number after it
    return None


def _highest_density(a: float, b: float, confidence: float) -> tuple[float, float]:
    """The shortest interval of this probability: its ends have equal density, found by bisection of the lower tail."""
    if a == 1:
        return 0.0, float(betaincinv(a, b, confidence))
    if b == 1:
        return float(betaincinv(a, b, 1 - confidence)), 1.0

    mode, rest = (a - 1) / (a + b - 2), (b - 1) / (a + b - 2)

    def log_density(x: float) -> float:  # against the mode's, where little cancels for a huge a + b
        if not 0 < x < 1:
            return -math.inf
        up, down = (x - mode) / mode, (mode - x) / rest
        log_x = math.log1p(up) if up > -0.5 else math.log(x / mode)
        log_rest = math.log1p(down) if down > -0.5 else math.log((1 - x) / rest)
        return (a - 1) * log_x + (b - 1) * log_rest

    def ends(tail: float) -> tuple[float, float]:
        return float(betaincinv(a, b, tail)), float(betaincinv(a, b, tail + confidence))

    below, above = 0.0, 1 - confidence
    for _ in range(60):
        tail = (below + above) / 2
        low, high = ends(tail)
        below, above = (tail, above) if log_density(low) < log_density(high) else (below, tail)
    return ends((below + above) / 2)
