"""A number with its evidence: an estimate, its interval, how many values it rests on and by which method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from html import escape

from windtunnel.stats import digits, exact


@dataclass(frozen=True)
class Estimate:
    """An estimate with a confidence interval; low and high are NaN when one value says nothing about the spread."""

    estimate: float
    low: float
    high: float
    n: int
    method: str

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{digits.number(self.estimate)} (one value: no interval)"
        return f"{digits.interval(self)} (n={self.n}, {self.method})"

    def _repr_html_(self) -> str:
        """In a notebook: as text."""
        return f"<span>{escape(str(self))}</span>"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean with Student's t interval (Student 1908): it covers the true mean of normal values at this rate.

    Raises:
        ValueError: for no values, or a confidence outside (0, 1).

    >>> print(wt.stats.mean_interval([2.031, 2.034, 2.028, 2.031]))
    2.0310 [2.0271, 2.0349] (n=4, mean, 95 % t interval)
    """
    if not values or not 0 < confidence < 1:
        raise ValueError(f"expected values and 0 < confidence < 1, given {len(values)} values and {confidence}")
    from scipy.special import stdtrit  # the t quantile; scipy.stats takes more than a second to import

    n, method = len(values), f"mean, {100 * confidence:g} % t interval"
    if not all(map(math.isfinite, values)):
        return Estimate(sum(values) / n, math.nan, math.nan, n, method)
    mean = float(exact.mean(values))
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1, method)
    error = _root_or_refuse(exact.covariance(values, values) / n)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    if math.isinf(abs(mean) + half):
        raise ValueError("expected an interval that fits into a float, given values too large and too far apart")
    return Estimate(mean, mean - half, mean + half, n, method)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of b - a over pairs with Student's t interval of the differences.

    Raises:
        ValueError: for samples of different lengths, without values, or with values that are not finite.

    >>> print(wt.stats.paired_difference([2.03, 2.04, 2.02], [2.01, 2.03, 2.01]))
    -0.0133 [-0.0277, 0.0010] (n=3, paired difference, 95 % t interval)
    """
    require_pairs(a, b)
    differences = [y - x for x, y in zip(a, b, strict=True)]
    if not all(map(math.isfinite, differences)):
        raise ValueError("expected differences that fit into a float, given values too far apart")
    found = mean_interval(differences, confidence)
    return replace(found, method=f"paired difference, {100 * confidence:g} % t interval")


def paired_ratio(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Estimate:
    """mean(b) / mean(a) over pairs with Fieller's interval (Fieller 1954, with the pairs' covariance).

    The interval holds every ratio r whose mean(b - r a) a t test does not reject. It is solved for the distance from
    the estimate, with exact moments, so that nothing cancels when a and b are nearly equal.

    Raises:
        ValueError: as `paired_difference`, and when mean(a) does not differ from 0 at this confidence, since the
            set of ratios that are not rejected is then no interval.

    >>> print(wt.stats.paired_ratio([2.0, 2.2, 2.1], [1.0, 1.2, 1.1]))
    0.5238 [0.4599, 0.5742] (n=3, paired ratio, 95 % Fieller interval)
    """
    require_pairs(a, b)
    of_a, n = mean_interval(list(a), confidence), len(a)
    if of_a.estimate == 0 or of_a.low <= 0 <= of_a.high:
        raise ValueError(
            f"expected a denominator away from 0 at {100 * confidence:g} % confidence, given mean(a) {of_a}"
        )
    exact_ratio = exact.mean(b) / exact.mean(a)
    ratio, method = float(exact_ratio), f"paired ratio, {100 * confidence:g} % Fieller interval"
    if n == 1:
        return Estimate(ratio, math.nan, math.nan, 1, method)
    from scipy.special import stdtrit

    scale = Fraction(float(stdtrit(n - 1, 0.5 + confidence / 2))) ** 2 / n
    aa, ab, bb = exact.covariance(a, a), exact.covariance(a, b), exact.covariance(b, b)
    residual = bb - 2 * exact_ratio * ab + exact_ratio**2 * aa
    leading = exact.mean(a) ** 2 - scale * aa
    shift = scale * (ab - exact_ratio * aa) / leading
    half = _root_or_refuse(shift**2 + scale * residual / leading)
    return Estimate(ratio, ratio - (float(shift) + half), ratio + (half - float(shift)), n, method)


def _root_or_refuse(value: Fraction) -> float:
    try:
        return exact.square_root(value)
    except OverflowError:
        raise ValueError("expected a spread that fits into a float, given values too far apart") from None


def require_pairs(a: Sequence[float], b: Sequence[float]) -> None:
    """Raise ValueError unless a and b are finite values in pairs."""
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"expected pairs, as many values in b as in a, given {len(a)} in a and {len(b)} in b")
    if not all(map(math.isfinite, [*a, *b])):
        raise ValueError("expected finite values, given NaN or infinity: leave the diverged pairs out and say so")
