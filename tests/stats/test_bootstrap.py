"""BCa intervals against scipy's, and how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from windtunnel.stats.bootstrap import bca_interval, ratio_of_sums_interval


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std])
def test_equals_scipy_from_the_same_seed(statistic):
    row = np.random.default_rng(0).exponential(1, 60)
    expected = stats.bootstrap((row,), statistic, n_resamples=3000, rng=np.random.default_rng(7)).confidence_interval
    found = bca_interval(row, statistic, resamples=3000, seed=7)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert (found.estimate, found.n) == (pytest.approx(statistic(row)), 60)


def test_the_mean_at_once_equals_the_mean_one_by_one():
    row = np.random.default_rng(2).exponential(1, 25)
    found, slow = bca_interval(row), bca_interval(row, lambda values: values.mean())
    assert (found.low, found.high) == pytest.approx((slow.low, slow.high), rel=1e-9)


def test_ratio_of_sums_equals_scipy():
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 200, 80).astype(float)
    losses = tokens * rng.normal(2.5, 0.4, 80)

    def ratio(x, y, axis):
        return x.sum(axis) / y.sum(axis)

    expected = stats.bootstrap(
        (losses, tokens), ratio, paired=True, n_resamples=3000, rng=np.random.default_rng(7), vectorized=True
    ).confidence_interval
    found = ratio_of_sums_interval(losses, tokens, resamples=3000, seed=7)
    assert found.estimate == losses.sum() / tokens.sum()
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_equal_lengths_make_the_ratio_a_mean():
    row = np.random.default_rng(4).normal(3, 1, 30)
    found, mean = ratio_of_sums_interval(4 * row, np.full(30, 4.0)), bca_interval(row)
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high), rel=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-100, 100))
def test_moves_and_scales_with_the_values(seed, factor, shift):
    row = np.random.default_rng(seed).normal(0, 1, 12)
    found = bca_interval(row, resamples=500)
    moved = bca_interval(factor * row + shift, resamples=500)
    assert found.low < found.estimate < found.high
    expected = (factor * found.low + shift, factor * found.high + shift)
    assert (moved.low, moved.high) == pytest.approx(expected, abs=1e-9 * (factor + abs(shift)))


def test_coverage():
    rows = np.random.default_rng(5).normal(1, 2, (2000, 40))
    found = [bca_interval(row, resamples=600, seed=i) for i, row in enumerate(rows)]
    assert 0.935 < np.mean([e.low <= 1 <= e.high for e in found]) < 0.965


def test_coverage_of_a_ratio_of_sums():
    rng = np.random.default_rng(6)
    tokens = rng.integers(20, 60, (2000, 40)).astype(float)
    losses = tokens * rng.normal(2.5, 0.5, tokens.shape)
    found = [ratio_of_sums_interval(*pair, resamples=600, seed=i) for i, pair in enumerate(zip(losses, tokens))]  # noqa: B905
    assert 0.935 < np.mean([e.low <= 2.5 <= e.high for e in found]) < 0.965


def test_seeds_repeat_and_differ():
    row = np.random.default_rng(7).normal(0, 1, 20)
    assert bca_interval(row) == bca_interval(row)
    assert bca_interval(row).low != bca_interval(row, seed=1).low


def test_edges():
    equal = bca_interval([0.1] * 7)
    assert equal.low == equal.estimate == equal.high
    assert math.isnan(bca_interval([2.0]).low)
    highest = bca_interval(np.arange(9.0), np.max)  # every resample is at most the estimate
    assert highest.low <= highest.high == 8
    different = bca_interval(np.arange(30.0), lambda row: len(np.unique(row)))  # every resample is below the estimate
    assert different.low <= different.high < different.estimate == 30
    large = bca_interval(np.arange(30_000.0), resamples=100)  # more than one chunk of memory
    assert large.high - large.low == pytest.approx(2 * 1.96 * 30_000 / math.sqrt(12 * 30_000), rel=0.3)


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        ratio_of_sums_interval([1.0, 2.0], [3.0, 0.0])
    with pytest.raises(ValueError, match="as many denominators"):
        ratio_of_sums_interval([1.0, 2.0], [3.0])
    with pytest.raises(ValueError, match="confidence"):
        bca_interval([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="finite"):
        bca_interval([1.0, math.inf])
