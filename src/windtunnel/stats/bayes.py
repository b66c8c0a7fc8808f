"""Bayes for a coin: the Beta posterior of a Bernoulli rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv, betaln, expit, log_expit, logit

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson
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
    """
    if not (0 <= successes <= n and min(prior) > 0 and 0 < confidence < 1):
        raise ValueError(
            "expected 0 <= successes <= n, a prior above 0 and 0 < confidence < 1, "
            f"given {successes} of {n}, {prior} and {confidence}"
        )
    a, b = prior[0] + successes, prior[1] + n - successes
    mode, mean, percent = _mode(a, b), a / (a + b), f"{100 * confidence:g} %"
    low, high = betaincinv(a, b, [0.5 - confidence / 2, 0.5 + confidence / 2])
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

    Gauss-Legendre in the log odds, over the density of the narrower posterior, to about 1e-12.
    """
    if _width(a) > _width(b):
        return 1 - probability_better(b, a)
    tail = 1e-18
    low = logit(max(float(betaincinv(a.alpha, a.beta, tail)), 1e-300))
    high = -logit(max(float(betaincinv(a.beta, a.alpha, tail)), 1e-300))
    x, weights = panel_nodes(float(low), float(high), 64)
    density = np.exp(a.alpha * log_expit(x) + a.beta * log_expit(-x) - betaln(a.alpha, a.beta))
    above = betainc(b.beta, b.alpha, expit(-x))  # P(theta_b > x)
    return min(1.0, float(weights @ (density * above)))


def _width(posterior: BetaBernoulli) -> float:
    """About the variance of the log odds."""
    return 1 / posterior.alpha + 1 / posterior.beta


def _mode(a: float, b: float) -> float | None:
    if min(a, b) >= 1 and max(a, b) > 1:
        return (a - 1) / (a + b - 2)
    return None


def _highest_density(a: float, b: float, confidence: float) -> tuple[float, float]:
    """The shortest interval of this probability: its ends have equal density, found by bisection of the lower tail."""
    if a == 1:
        return 0.0, float(betaincinv(a, b, confidence))
    if b == 1:
        return float(betaincinv(a, b, 1 - confidence)), 1.0

    def log_density(x: float) -> float:
        return float((a - 1) * math.log(x) + (b - 1) * math.log1p(-x)) if 0 < x < 1 else -math.inf

    def ends(tail: float) -> tuple[float, float]:
        return float(betaincinv(a, b, tail)), float(betaincinv(a, b, tail + confidence))

    below, above = 0.0, 1 - confidence
    for _ in range(60):
        tail = (below + above) / 2
        low, high = ends(tail)
        below, above = (tail, above) if log_density(low) < log_density(high) else (below, tail)
    return ends((below + above) / 2)
