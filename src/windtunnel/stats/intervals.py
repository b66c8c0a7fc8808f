"""A number with its evidence: an estimate, its interval, how many values it rests on and by which method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace


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
            return f"{self.estimate:.4f} (one value: no interval)"
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n}, {self.method})"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean with Student's t interval (Student 1908): it covers the true mean of normal values at this rate.

    Raises:
        ValueError: for no values, or a confidence outside (0, 1).
    """
    if not values or not 0 < confidence < 1:
        raise ValueError(f"expected values and 0 < confidence < 1, given {len(values)} values and {confidence}")
    from scipy.special import stdtrit  # the t quantile; scipy.stats takes more than a second to import

    n, mean = len(values), statistics.fmean(values)
    method = f"mean, {100 * confidence:g} % t interval"
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1, method)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, method)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean of b - a over pairs with Student's t interval of the differences.

    Raises:
        ValueError: for samples of different lengths, without values, or with values that are not finite.
    """
    require_pairs(a, b)
    found = mean_interval([y - x for x, y in zip(a, b, strict=True)], confidence)
    return replace(found, method=f"paired difference, {100 * confidence:g} % t interval")


def paired_ratio(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Estimate:
    """mean(b) / mean(a) over pairs with Fieller's interval (Fieller 1954, with the pairs' covariance).

    The interval holds every ratio r whose mean(b - r a) a t test does not reject. It is solved for the distance from
    the estimate, by the residuals b - ratio * a, so that nothing cancels when a and b are nearly equal.

    Raises:
        ValueError: as `paired_difference`, and when mean(a) does not differ from 0 at this confidence, since the
            set of ratios that are not rejected is then no interval.
    """
    require_pairs(a, b)
    of_a, n = mean_interval(list(a), confidence), len(a)
    if of_a.estimate == 0 or of_a.low <= 0 <= of_a.high:
        raise ValueError(
            f"expected a denominator away from 0 at {100 * confidence:g} % confidence, given mean(a) {of_a}"
        )
    ratio, method = statistics.fmean(b) / of_a.estimate, f"paired ratio, {100 * confidence:g} % Fieller interval"
    if n == 1:
        return Estimate(ratio, math.nan, math.nan, 1, method)
    from scipy.special import stdtrit

    residuals = [y - ratio * x for x, y in zip(a, b, strict=True)]
    scale = float(stdtrit(n - 1, 0.5 + confidence / 2)) ** 2 / n
    shared = scale * statistics.covariance(residuals, a)
    leading = of_a.estimate**2 - scale * statistics.variance(a)
    root = math.hypot(shared, math.sqrt(leading * scale) * statistics.stdev(residuals))
    return Estimate(ratio, ratio - (shared + root) / leading, ratio + (root - shared) / leading, n, method)


def require_pairs(a: Sequence[float], b: Sequence[float]) -> None:
    """Raise ValueError unless a and b are finite values in pairs."""
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"expected pairs, as many values in b as in a, given {len(a)} in a and {len(b)} in b")
    if not all(map(math.isfinite, [*a, *b])):
        raise ValueError("expected finite values, given NaN or infinity: leave the diverged pairs out and say so")
