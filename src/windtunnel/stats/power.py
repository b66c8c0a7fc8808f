"""How often a design finds what is there, and how many seeds or examples it takes."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import ndtr, ndtri, stdtrit

from windtunnel.stats.quadrature import chi_nodes


def power_paired(effect: float, sd: float, n: int, alpha: float = 0.05, sides: int = 2) -> float:
    """The chance that a t test of n paired differences rejects, when their mean is `effect` and their spread `sd`.

    Exact: the noncentral t as an integral over the chi distribution of the sample's standard deviation. With
    sides=1 the test looks for a positive effect.

    >>> round(wt.stats.power_paired(effect=0.01, sd=0.01, n=6), 3)
    0.507
    """
    _require(sd, n, alpha)
    if sides not in (1, 2):
        raise ValueError(f"expected 1 or 2 sides, given {sides}")
    if sd == 0:
        return float(effect > 0 if sides == 1 else effect != 0)
    s, weights = chi_nodes(float(n - 1))
    shift, limit = effect / sd * math.sqrt(n), -stdtrit(n - 1, alpha / sides)
    rejects = ndtr(shift - limit * s) + (ndtr(-shift - limit * s) if sides == 2 else 0.0)
    return float(weights @ rejects)


def power_equivalence(effect: float, sd: float, margin: float, n: int, alpha: float = 0.05) -> float:
    """The chance that `tost` of n paired differences shows a mean within the margin (Phillips 1990).

    Exact: both one-sided t tests reject when the mean lies within margin - t s / sqrt(n) of 0; integrated over s.

    >>> round(wt.stats.power_equivalence(effect=0, sd=0.01, margin=0.01, n=12), 3)
    0.889
    """
    _require(sd, n, alpha)
    if not margin > 0:
        raise ValueError(f"expected a margin above 0, given {margin}")
    if sd == 0:
        return float(abs(effect) < margin)
    limit, root = -float(stdtrit(n - 1, alpha)), math.sqrt(n) / sd
    s, weights = chi_nodes(float(n - 1), below=margin * root / limit if limit > 0 else math.inf)
    reach = margin * root - limit * s
    return float(weights @ (ndtr(reach - effect * root) - ndtr(-reach - effect * root)))


def seeds_needed(
    effect: float, sd: float, power: float = 0.8, alpha: float = 0.05, at_most: int = 100_000, sides: int = 2
) -> int | None:
    """The smallest number of pairs whose t test has this power; None when more than `at_most` are needed.

    >>> wt.stats.seeds_needed(effect=0.01, sd=0.01)
    10
    """
    if effect == 0 or (sides == 1 and effect < 0):
        return None
    return _smallest(lambda n: power_paired(effect, sd, n, alpha, sides), power, at_most)


def seeds_to_equivalence(
    effect: float, sd: float, margin: float, power: float = 0.8, alpha: float = 0.05, at_most: int = 100_000
) -> int | None:
    """The smallest number of pairs whose `tost` has this power; None when it is more than `at_most`.

    None too when the effect lies outside of the margin: more seeds would only show that it does.

    >>> wt.stats.seeds_to_equivalence(effect=0, sd=0.01, margin=0.01)
    11
    """
    if abs(effect) >= margin:
        return None
    return _smallest(lambda n: power_equivalence(effect, sd, margin, n, alpha), power, at_most)


def n_proportions(p1: float, p2: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Examples per arm for the pooled two-sided z test of two proportions; None when they are equal.

    n = (z_{1-alpha/2} sqrt(2 p q) + z_power sqrt(p1 q1 + p2 q2))^2 / (p1 - p2)^2 with p the mean of p1 and p2:
    Fleiss, Levin & Paik (2003), chapter 4, without continuity correction. The smallest n that reaches the power.

    >>> wt.stats.n_proportions(0.10, 0.13)
    1774
    """
    if not (min(p1, p2) >= 0 and max(p1, p2) <= 1 and 0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"expected proportions, power and alpha between 0 and 1, given {p1}, {p2}, {power}, {alpha}")
    if p1 == p2:
        return None
    mean = (p1 + p2) / 2
    null, apart = math.sqrt(2 * mean * (1 - mean)), math.sqrt(p1 * (1 - p1) + p2 * (1 - p2))
    return max(1, math.ceil(float((-ndtri(alpha / 2) * null + ndtri(power) * apart) / (p1 - p2)) ** 2 - 1e-9))


def _require(sd: float, n: int, alpha: float) -> None:
    if not (sd >= 0 and n >= 2 and 0 < alpha < 1):
        raise ValueError(f"expected sd >= 0, n >= 2 and 0 < alpha < 1, given {sd}, {n} and {alpha}")


def _smallest(power_of: Callable[[int], float], power: float, at_most: int) -> int | None:
    """Bisection for the smallest n from 2 to at_most with power_of(n) >= power; power grows with n."""
    if not 0 < power < 1:
        raise ValueError(f"expected 0 < power < 1, given {power}")
    low, high = 1, 2
    while high < at_most and power_of(high) < power:
        low, high = high, min(2 * high, at_most)
    if high > at_most or power_of(high) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high
