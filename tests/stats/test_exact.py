"""Constant, huge and tiny samples: what exact arithmetic gives, whatever the scale."""

import math
from fractions import Fraction

import numpy as np
import pytest

from windtunnel.stats.bootstrap import bca_interval, ratio_of_sums_interval
from windtunnel.stats.exact import covariance, square_root
from windtunnel.stats.intervals import mean_interval, paired_ratio
from windtunnel.stats.paired import permutation_test, sign_flip_test, t_test, tost
from windtunnel.stats.sequential import always_valid_p

VALUES = [0.5, 0.875, 1.25, -0.125, 0.75, 1.5]
SCALES = [2.0**600, 2.0**-700, 2.0**1000]


@pytest.mark.parametrize("value", [0.04, 0.1, 1e-200, 1e300])
def test_equal_values_have_no_spread(value):
    row = [value] * 10
    assert t_test(row, value).p == 1
    assert t_test(row).p == 0
    found = mean_interval(row)
    assert (found.estimate, found.low, found.high) == (value, value, value)
    found = bca_interval(row)
    assert (found.estimate, found.low, found.high) == (value, value, value)
    found = paired_ratio(row, [2 * value] * 10)
    assert (found.estimate, found.low, found.high) == (2, 2, 2)


@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_of_the_values_changes_no_test(scale):
    row = [scale * x for x in VALUES]
    for test in (t_test, sign_flip_test):
        assert test(row).p == test(VALUES).p
    assert t_test(row, 0.25 * scale) == t_test(VALUES, 0.25)
    assert tost(row, 2 * scale).p == tost(VALUES, 2).p
    assert permutation_test(row[:3], row[3:]).p == permutation_test(VALUES[:3], VALUES[3:]).p
    assert always_valid_p(row) == always_valid_p(VALUES) < 1


@pytest.mark.parametrize("scale", SCALES)
def test_intervals_have_the_scale_of_the_values(scale):
    row, ones = [scale * x for x in VALUES], [scale] * 5 + [2 * scale]
    for found, before in [
        (mean_interval(row), mean_interval(VALUES)),
        (bca_interval(row), bca_interval(VALUES)),
        (ratio_of_sums_interval(row, [1, 1, 1, 1, 1, 2]), ratio_of_sums_interval(VALUES, [1, 1, 1, 1, 1, 2])),
    ]:
        expected = [scale * x for x in (before.estimate, before.low, before.high)]
        assert [found.estimate, found.low, found.high] == pytest.approx(expected, rel=1e-15)
    found, before = paired_ratio(ones, row), paired_ratio([1, 1, 1, 1, 1, 2], VALUES)
    assert (found.estimate, found.low, found.high) == (before.estimate, before.low, before.high)


def test_sums_beyond_the_largest_float():
    assert mean_interval([1e308, 1e308]).estimate == 1e308
    assert bca_interval([1e308, 1e308, 1.5e308]).estimate == pytest.approx(1e308 * (3.5 / 3))
    with pytest.raises(ValueError, match="too far apart"):
        mean_interval([-1.7e308, 1.7e308])
    assert t_test([-1.7e308, 1.7e308]).p == 1


def test_moments_are_exact():
    assert covariance([1e16, 1.0, 1.0], [1e16, 1.0, 1.0]) == Fraction(int(1e16) - 1) ** 2 / 3
    rng = np.random.default_rng(0)
    row = (1e8 + rng.normal(0, 1e-3, 50)).tolist()
    exact = [Fraction(x) for x in row]
    spread = sum((x - sum(exact) / 50) ** 2 for x in exact) / 49
    assert covariance(row, row) == spread
    for value in (spread, Fraction(2), Fraction(10) ** 500, Fraction(1, 10**500), Fraction(0)):
        assert abs(Fraction(square_root(value)) ** 2 - value) <= value / 10**15
    with pytest.raises(ValueError, match="given NaN"):
        t_test(VALUES, math.nan)
