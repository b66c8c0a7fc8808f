"""Tests of paired and independent samples against scipy, statsmodels, enumeration and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.weightstats import ttost_paired

from windtunnel.stats.paired import mcnemar, permutation_test, sign_flip_test, t_test, tost

ALTERNATIVES = ["two-sided", "less", "greater"]
LEADERBOARD = [0.25373, 0.2584, 0.25489, 0.2568, 0.25732, 0.26765, 0.25119]


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("n", [2, 5, 40])
def test_t_equals_scipy(n, alternative):
    row = np.random.default_rng(n).normal(0.4, 1, n)
    found, expected = t_test(row, 0.1, alternative), stats.ttest_1samp(row, 0.1, alternative=alternative)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert found.n == n


def test_seven_repeats_that_a_leaderboard_took_as_a_pass():
    found = t_test(LEADERBOARD, 0.256525, "greater")
    assert (round(found.statistic, 3), round(found.p, 2)) == (0.311, 0.38)


def test_values_without_spread():
    assert t_test([0.0, 0.0, 0.0]).p == 1
    assert t_test([0.5, 0.5, 0.5]).p == 0
    assert t_test([0.5, 0.5, 0.5], alternative="less").p == 1
    assert tost([0.0, 0.0, 0.0], 0.01).p == 0
    assert sign_flip_test([0.0, 0.0, 0.0]).p == 1


@pytest.mark.parametrize("seed", range(3))
def test_tost_equals_statsmodels(seed):
    a, b = np.random.default_rng(seed).normal(2, 0.5, (2, 10))
    found = tost(b - a, 0.3)
    assert found.p == pytest.approx(ttost_paired(b, a, -0.3, 0.3)[0], rel=1e-9)
    assert tost(b - a + 5, 0.3, mean=5).p == pytest.approx(found.p, rel=1e-9)


def test_tost_error_on_the_margin_is_the_level():
    rows = np.random.default_rng(1).normal(1.0, 1.0, (4000, 30))
    error = np.mean([tost(row, 1.0).p <= 0.05 for row in rows])
    assert 0.035 < error <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("n", [3, 9, 12])
def test_sign_flips_equal_scipy_by_enumeration(n, alternative):
    a, b = np.random.default_rng(n).normal(0, 1, (2, n))
    b = b + 0.5
    expected = stats.permutation_test(
        (b, a), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=math.inf, alternative=alternative,
    )  # fmt: skip
    found = sign_flip_test(b - a, alternative)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)


def test_sign_flips_by_hand():
    assert sign_flip_test([1.0, 2.0, 3.0, 4.0]).p == 2 / 16  # all plus and all minus
    assert sign_flip_test([1.0, 2.0, 3.0, 4.0], "greater").p == 1 / 16
    assert sign_flip_test(np.arange(1.0, 17.0)).p == 2 / 65_536
    assert sign_flip_test([0.1, 0.2, -0.3], "greater").p == 5 / 8  # sums that are 0 but for rounding are ties


def test_many_sign_flips_are_drawn_and_agree_with_t():
    row = np.random.default_rng(3).normal(0.13, 1, 200)
    found = sign_flip_test(row)
    assert found.p == pytest.approx(t_test(row).p, rel=0.2)
    assert found == sign_flip_test(row)
    assert found.p != sign_flip_test(row, seed=1).p
    assert sign_flip_test(row + 9, resamples=99).p == 1 / 100  # never 0: Phipson & Smyth


@given(st.lists(st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=1, max_size=9))
def test_signs_turn_the_sides_around(row):
    turned = [-x for x in row]
    assert sign_flip_test(row, "less").p == sign_flip_test(turned, "greater").p
    assert sign_flip_test(row).p == sign_flip_test(turned).p
    assert sign_flip_test(row).p >= 2 / 2 ** len(row)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 6), (7, 2)])
def test_permutations_equal_scipy_by_enumeration(n, m, alternative):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0, 1, n), rng.normal(0.8, 1, m)
    expected = stats.permutation_test(
        (b, a), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=math.inf, alternative=alternative
    )
    found = permutation_test(a, b, alternative)
    assert found.statistic == pytest.approx(b.mean() - a.mean())
    if alternative != "two-sided":
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    else:  # absolute differences; scipy doubles the smaller side, the same for equal sizes
        count = np.mean(np.abs(expected.null_distribution) >= abs(expected.statistic) - 1e-12)
        assert found.p == pytest.approx(count, rel=1e-9)


def test_many_permutations_are_drawn():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 60), rng.normal(0.16, 1, 80)
    found = permutation_test(a, b)
    assert "20000 random" in found.method
    assert found.p == pytest.approx(stats.ttest_ind(a, b).pvalue, rel=0.25)
    assert permutation_test(a, b + 9, resamples=199).p == 1 / 200


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 3), (1, 7), (12, 30), (0, 5), (900, 1100)])
def test_mcnemar_equals_statsmodels(only_a, only_b):
    expected = statsmodels_mcnemar([[10, only_a], [only_b, 20]], exact=True)
    assert mcnemar(only_a, only_b).p == pytest.approx(expected.pvalue, rel=1e-9)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_mcnemar_mid_p_of_fagerland_lydersen_laake():
    assert round(mcnemar(1, 7).p, 4) == 0.0703
    assert round(mcnemar(1, 7, mid_p=True).p, 4) == 0.0391
    assert mcnemar(4, 4, mid_p=True).p == pytest.approx(1)


@pytest.mark.parametrize("test", [t_test, sign_flip_test, lambda row: tost(row, 1.0)])
def test_diverged_values_are_refused(test):
    with pytest.raises(ValueError, match="finite"):
        test([0.1, math.nan, 0.2])


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ValueError, match="at least 2 values"):
        t_test([1.0])
    with pytest.raises(ValueError, match="margin above 0"):
        tost([1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="alternative"):
        t_test([1.0, 2.0], alternative="both")
    with pytest.raises(ValueError, match="counts"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match="at least 1 resample"):
        sign_flip_test(np.arange(30.0), resamples=0)
