"""A number with its evidence: an estimate, its interval, how many values it rests on and by which method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


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
