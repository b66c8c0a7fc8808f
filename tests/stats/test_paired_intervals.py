"""Paired differences and ratios: what the interval holds, and how often it holds the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from windtunnel.stats.intervals import paired_difference, paired_ratio
from windtunnel.stats.paired import t_test

PAIRS = st.lists(st.tuples(st.floats(1, 2), st.floats(-5, 5)), min_size=4, max_size=12)


def ends(estimate):
    return estimate.low, estimate.high


def test_difference_equals_scipy():
    a, b = np.random.default_rng(0).normal(2, 1, (2, 9))
    expected = stats.ttest_rel(b, a)
    found = paired_difference(a.tolist(), b.tolist(), 0.9)
    assert ends(found) == pytest.approx(tuple(expected.confidence_interval(0.9)), rel=1e-9)
    assert (found.estimate, found.n) == (pytest.approx((b - a).mean()), 9)


@pytest.mark.parametrize("n", [3, 12])
def test_fieller_ends_where_the_t_test_begins_to_reject(n):
    rng = np.random.default_rng(n)
    a = rng.normal(3, 0.4, n)
    b = 1.2 * a + rng.normal(0, 0.3, n)
    found = paired_ratio(a, b)
    assert found.estimate == pytest.approx(b.mean() / a.mean())
    for ratio in ends(found):
        assert t_test(b - ratio * a).p == pytest.approx(0.05, rel=1e-9)


@given(PAIRS, st.floats(0.1, 10))
def test_symmetries(pairs, factor):
    a, b = zip(*pairs, strict=True)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth.low <= forth.estimate <= forth.high
    assert ends(forth) == pytest.approx((-back.high, -back.low), abs=1e-9)
    scaled = paired_difference([factor * x for x in a], [factor * x for x in b])
    assert ends(scaled) == pytest.approx((factor * forth.low, factor * forth.high), abs=1e-9)
    try:
        ratio = paired_ratio(a, b)
    except ValueError:
        return  # the spread of a is too large for its mean
    assert ratio.low <= ratio.estimate <= ratio.high
    scaled = paired_ratio(a, [factor * x for x in b])
    assert ends(scaled) == pytest.approx((factor * ratio.low, factor * ratio.high), abs=1e-9)


def test_the_inverse_ratio_has_the_inverse_interval():
    rng = np.random.default_rng(2)
    a, b = rng.normal(3, 0.4, 8), rng.normal(2, 0.3, 8)
    forth, back = paired_ratio(a, b), paired_ratio(b, a)
    assert ends(back) == pytest.approx((1 / forth.high, 1 / forth.low), rel=1e-9)


def test_equal_arms_and_tiny_differences_lose_no_digits():
    a = [2.1, 2.3, 2.2, 2.4]
    assert ends(paired_ratio(a, a)) == (1.0, 1.0)
    rises = [x * tenths for x, tenths in zip(a, (1, 2, 1, 2), strict=True)]
    found, rise = paired_ratio(a, [x + 1e-10 * y for x, y in zip(a, rises, strict=True)]), paired_ratio(a, rises)
    assert (found.low - 1, found.high - 1) == pytest.approx((1e-10 * rise.low, 1e-10 * rise.high), rel=1e-4)


@pytest.mark.parametrize("n", [4, 15])
def test_coverage(n):
    rng = np.random.default_rng(n)
    a = rng.normal(3, 0.5, (2000, n))
    b = 0.9 * a + rng.normal(0.3, 0.4, a.shape)  # true means 3 and 3
    differences = [paired_difference(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    ratios = [paired_ratio(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert 0.935 < np.mean([e.low <= 0 <= e.high for e in differences]) < 0.965
    assert 0.935 < np.mean([e.low <= 1 <= e.high for e in ratios]) < 0.965


def test_one_pair_has_no_interval():
    assert math.isnan(paired_difference([1.0], [3.0]).low)
    assert math.isnan(paired_ratio([2.0], [3.0]).high)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "given 2 in a and 1 in b"),
        ([], [], "expected pairs"),
        ([1.0, math.nan], [1.0, 2.0], "finite"),
        ([-1.0, 1.2, 0.3], [1.0, 2.0, 3.0], "away from 0"),
        ([0.0], [1.0], "away from 0"),
    ],
)
def test_what_has_no_ratio_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(a, b)
