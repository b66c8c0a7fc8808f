"""Tests of paired and of independent samples: t, sign flips, permutations, McNemar, equivalence."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtr

from windtunnel.stats.exact import covariance, square_root
from windtunnel.stats.exact import mean as exact_mean

Alternative = Literal["two-sided", "less", "greater"]
Floats = NDArray[np.float64]
T = TypeVar("T")

EXACT_SIGNS = 16  # up to this many differences all 2^n sign patterns are enumerated
EXACT_SPLITS = 50_000  # up to this many ways to split two samples all are enumerated
CHUNK = 1_000_000  # numbers held at once while resampling


@dataclass(frozen=True)
class Test:
    """A test statistic with its p-value, the number of values it rests on and the method."""

    statistic: float
    p: float
    n: int
    method: str


def sample(values: ArrayLike, at_least: int = 2) -> Floats:
    """The values as one row of finite float64, or a ValueError that says what is wrong with them."""
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or len(row) < at_least:
        raise ValueError(f"expected one row of at least {at_least} values, given the shape {row.shape}")
    if not np.isfinite(row).all():
        raise ValueError("expected finite values, given NaN or infinity: leave the diverged ones out and say so")
    return row


def scaled(row: Floats) -> tuple[Floats, int]:
    """The values times 2^-exponent, the largest between 1/2 and 1, and the exponent: sums and squares stay finite."""
    exponent = math.frexp(float(np.abs(row).max()))[1]
    return np.ldexp(row, -exponent), exponent


def t_test(differences: ArrayLike, mean: float = 0.0, alternative: Alternative = "two-sided") -> Test:
    """Student's t test (1908) that the true mean of the differences is `mean`.

    Equal differences have no spread: the statistic is then infinite and p is 0 (or 1, on the other side);
    where they all equal `mean` there is no evidence at all, and p is 1.

    >>> round(wt.stats.t_test([0.3, 0.2, 0.4, 0.25]).p, 4)
    0.0067
    """
    row = sample(differences)
    n, method = len(row), f"t test, {alternative}"
    t = _t_statistic(row.tolist(), mean)
    if math.isnan(t):
        return Test(0.0, 1.0, n, method)
    below = float(stdtr(n - 1, t)), float(stdtr(n - 1, -t))
    return Test(t, _choose(below[0], below[1], 2 * min(below), alternative), n, method)


def _t_statistic(row: list[float], mean: float) -> float:
    """Student's t from exact moments, so that no scale of the values changes it; NaN where all values equal `mean`."""
    if math.isnan(mean):
        raise ValueError("expected a number to test against, given NaN")
    if math.isinf(mean):
        return -mean
    off, variance = exact_mean(row) - Fraction(mean), covariance(row, row)
    sign = 1 if off > 0 else -1
    if variance == 0:
        return sign * math.inf if off else math.nan
    try:
        return sign * square_root(off**2 * len(row) / variance)
    except OverflowError:
        return sign * sys.float_info.max  # infinite says that there is no spread


def tost(differences: ArrayLike, margin: float, mean: float = 0.0) -> Test:
    """Equivalence: a small p says that the true mean lies within `margin` of `mean` (Schuirmann 1987).

    Two one-sided t tests against mean - margin and mean + margin; both have to reject, so p is the larger one.

    >>> round(wt.stats.tost([0.001, -0.002, 0.001, 0.0], margin=0.01).p, 4)
    0.0004
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"expected a finite margin above 0, given {margin}: no data can show that nothing differs")
    tests = t_test(differences, mean - margin, "greater"), t_test(differences, mean + margin, "less")
    worst = max(tests, key=lambda test: test.p)
    return Test(worst.statistic, worst.p, worst.n, f"two one-sided t tests, margin {margin:g}")


def sign_flip_test(
    differences: ArrayLike, alternative: Alternative = "two-sided", resamples: int = 20_000, seed: int = 0
) -> Test:
    """The mean difference against all flips of signs: valid for any distribution symmetric around 0 (Fisher 1935).

    Exact up to 16 differences; above, p = (1 + at least as extreme) / (1 + resamples) of random flips, which unlike
    the plain fraction is a valid p-value (Phipson & Smyth 2010).

    >>> wt.stats.sign_flip_test([0.3, 0.2, 0.4, 0.25, 0.3, 0.1]).p
    0.03125
    """
    row, exponent = scaled(sample(differences, 1))
    n, exact = len(row), len(row) <= EXACT_SIGNS

    def flipped_sums() -> Iterator[Floats]:
        if exact:
            yield 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1) @ row - row.sum()
            return
        rng = np.random.default_rng(seed)
        for rows in chunks(resamples, n):
            yield 2 * (rng.integers(0, 2, (rows, n), dtype=np.int8) @ row) - row.sum()

    kind = f"exact, {2**n} sign patterns" if exact else f"{resamples} random sign patterns"
    p = _resampled_p(float(row.sum()), flipped_sums, float(np.abs(row).sum()), alternative, exact)
    return Test(math.ldexp(float(row.mean()), exponent), p, n, f"sign-flip test, {alternative}, {kind}")


def permutation_test(
    a: ArrayLike, b: ArrayLike, alternative: Alternative = "two-sided", resamples: int = 20_000, seed: int = 0
) -> Test:
    """mean(b) - mean(a) of two independent samples against all ways to split their union (Pitman 1937).

    Exact up to 50,000 splits; above, random splits with the correction of Phipson & Smyth (2010). Two-sided counts
    the splits whose absolute difference is at least the observed one.

    >>> round(wt.stats.permutation_test([1.0, 1.2, 1.1, 1.3], [1.5, 1.6, 1.4, 1.7]).p, 3)
    0.029
    """
    first, second = sample(a, 1), sample(b, 1)
    (both, exponent), size = scaled(np.concatenate([second, first])), len(second)
    splits = math.comb(len(both), size)
    exact = splits <= EXACT_SPLITS

    def difference(sums: Floats) -> Floats:
        return sums / size - (both.sum() - sums) / len(first)

    def differences() -> Iterator[Floats]:
        if exact:
            fewer = min(size, len(first))  # choose the smaller part: the larger one follows
            sums = both[np.array(list(combinations(range(len(both)), fewer)))].sum(axis=1)
            yield difference(sums if fewer == size else both.sum() - sums)
            return
        rng = np.random.default_rng(seed)
        for rows in chunks(resamples, len(both)):
            shuffled = rng.permuted(np.broadcast_to(both, (rows, len(both))), axis=1)
            yield difference(shuffled[:, :size].sum(axis=1))

    kind = f"exact, {splits} splits" if exact else f"{resamples} random splits"
    observed, scale = float(difference(both[:size].sum())), float(np.abs(both).sum())
    p = _resampled_p(observed, differences, scale, alternative, exact)
    return Test(float(np.ldexp(observed, exponent)), p, len(both), f"permutation test, {alternative}, {kind}")


def paired_table(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Of n items how many both A and B succeed on, only A, only B, and neither; a, b: (n,)."""
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())


def mcnemar(only_a: int, only_b: int, mid_p: bool = False) -> Test:
    """Do A and B succeed equally often on the same items? Exact binomial test of the discordant pairs (McNemar 1947).

    Args:
        only_a: items on which A succeeds and B fails; `only_b` the reverse. Items on which they agree say nothing.
        mid_p: count half the probability of the observed table: less conservative, and close to the nominal level
            (Fagerland, Lydersen & Laake 2013).

    >>> round(wt.stats.mcnemar(4, 15).p, 3)
    0.019
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"expected counts of items, 0 or more, given {only_a} and {only_b}")
    fewer, n = min(only_a, only_b), only_a + only_b
    tail = float(bdtr(fewer, n, 0.5))
    at = tail - (float(bdtr(fewer - 1, n, 0.5)) if fewer else 0.0)
    p = min(1.0, 2 * tail - (at if mid_p else 0.0))
    return Test(float(fewer), p, n, "McNemar, mid-p" if mid_p else "McNemar, exact binomial")


def chunks(resamples: int, n: int) -> Iterator[int]:
    """How many resamples of n values to draw at a time, so that memory stays bounded; they sum to `resamples`."""
    if resamples < 1:
        raise ValueError(f"expected at least 1 resample, given {resamples}")
    rows = max(1, CHUNK // n)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _resampled_p(
    observed: float, draws: Callable[[], Iterator[Floats]], scale: float, alternative: Alternative, exact: bool
) -> float:
    """The fraction of draws at least as extreme as the observed value; what differs by rounding only is a tie."""
    slack = 1e-12 * scale
    extreme = total = 0
    for drawn in draws():
        low, high = drawn <= observed + slack, drawn >= observed - slack
        extreme += int(np.sum(_choose(low, high, np.abs(drawn) >= abs(observed) - slack, alternative)))
        total += len(drawn)
    return extreme / total if exact else (extreme + 1) / (total + 1)


def _choose(less: T, greater: T, two_sided: T, alternative: Alternative) -> T:
    sides = {"less": less, "greater": greater, "two-sided": two_sided}
    if alternative not in sides:
        raise ValueError(f"expected the alternative two-sided, less or greater, given {alternative!r}")
    return sides[alternative]
