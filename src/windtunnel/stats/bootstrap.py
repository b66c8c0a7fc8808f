"""Bootstrap intervals, bias-corrected and accelerated (BCa), of one sample and of a ratio of sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats, chunks, sample, scaled


def bca_interval(
    values: ArrayLike,
    statistic: Callable[[Floats], Any] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The statistic of one sample with its BCa interval (Efron 1987); for pairs pass the differences.

    Args:
        statistic: a function of one row of values; the default, `numpy.mean`, is computed for all resamples at once.

    >>> print(wt.stats.bca_interval([2.03, 2.04, 2.01, 2.02, 2.05]))
    2.0300 [2.0160, 2.0420] (n=5, mean, 95 % BCa bootstrap interval)
    """
    row = sample(values, 1)
    name = getattr(statistic, "__name__", "statistic")
    method = f"{name}, {100 * confidence:g} % BCa bootstrap interval"
    if statistic is np.mean:
        return _mean_interval(row, confidence, resamples, seed, method)
    n = len(row)
    drawn = np.array([float(statistic(row[pick])) for picks in _resample(n, resamples, seed) for pick in picks])
    left_out = np.array([float(statistic(np.delete(row, i))) for i in range(n)]) if n > 1 else row
    return _bca(float(statistic(row)), drawn, left_out, confidence, method)


def _mean_interval(row: Floats, confidence: float, resamples: int, seed: int, method: str) -> Estimate:
    """Of values scaled by a power of two, which rounds nothing: no sum overflows. Equal values give a point."""
    (row, exponent), n = scaled(row), len(row)
    if np.ptp(row) == 0:
        drawn = left_out = row
        found = _bca(float(row[0]), drawn, left_out, confidence, method)
    else:
        drawn = np.concatenate([row[picks].mean(axis=1) for picks in _resample(n, resamples, seed)])
        found = _bca(float(row.mean()), drawn, (row.sum() - row) / (n - 1), confidence, method)
    return _times_power(found, exponent)


def _times_power(found: Estimate, exponent: int) -> Estimate:
    estimate, low, high = (float(np.ldexp(x, exponent)) for x in (found.estimate, found.low, found.high))
    return replace(found, estimate=estimate, low=low, high=high)


def ratio_of_sums_interval(
    numerators: ArrayLike, denominators: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """sum(numerators) / sum(denominators) with its BCa interval; a numerator and its denominator are drawn together.

    The loss per token over documents: the numerators are summed losses of each document, the denominators its
    tokens. For the paired difference of two models pass the differences of the summed losses.

    >>> print(wt.stats.ratio_of_sums_interval([20.0, 31.0, 25.0], [10, 15, 12]))
    2.0541 [2.0000, 2.0769] (n=3, ratio of sums, 95 % BCa bootstrap interval)
    """
    above, below = sample(numerators, 1), sample(denominators, 1)
    if len(above) != len(below) or below.min() <= 0:
        raise ValueError(
            "expected as many denominators as numerators, all above 0, "
            f"given {len(above)} numerators and {len(below)} denominators with minimum {below.min():g}"
        )
    (above, exponent), (below, exponent_below), n = scaled(above), scaled(below), len(above)
    drawn = np.concatenate([above[p].sum(axis=1) / below[p].sum(axis=1) for p in _resample(n, resamples, seed)])
    left_out = (above.sum() - above) / (below.sum() - below) if n > 1 else above
    method = f"ratio of sums, {100 * confidence:g} % BCa bootstrap interval"
    found = _bca(float(above.sum() / below.sum()), drawn, left_out, confidence, method)
    return _times_power(found, exponent - exponent_below)


def _resample(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices drawn with replacement: arrays of shape (some resamples, n)."""
    rng = np.random.default_rng(seed)
    for rows in chunks(resamples, n):
        yield rng.integers(0, n, (rows, n))


def _bca(estimate: float, drawn: Floats, left_out: Floats, confidence: float, method: str) -> Estimate:
    """BCa limits (Efron 1987): quantiles of the resampled statistic at levels that correct bias and skew.

    Args:
        drawn: the statistic of each resample; left_out: the statistic without each value in turn (jackknife).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected 0 < confidence < 1, given {confidence}")
    n = len(left_out)
    if n == 1:
        return Estimate(estimate, math.nan, math.nan, 1, method)
    if np.ptp(drawn) <= 1e-14 * np.abs(drawn).max():  # equal values: the resamples differ by rounding at most
        return Estimate(estimate, estimate, estimate, n, method)
    below = (np.mean(drawn < estimate) + np.mean(drawn <= estimate)) / 2
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    deviations = scaled(left_out.mean() - left_out)[0]
    spread = float(np.sum(deviations**2)) ** 1.5
    acceleration = float(np.sum(deviations**3)) / (6 * spread) if spread > 0 else 0.0
    z = bias + ndtri([0.5 - confidence / 2, 0.5 + confidence / 2])
    levels = ndtr(bias + z / np.maximum(1 - acceleration * z, 1e-9))
    low, high = np.quantile(drawn, levels)
    return Estimate(estimate, float(low), float(high), n, method)
