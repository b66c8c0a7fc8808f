"""Adjusted p-values against statsmodels, scipy's Dunnett, published critical values and special cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from windtunnel.stats.multiplicity import adjust, dunnett_p, false_discovery


@pytest.mark.parametrize("method", ["holm", "bonferroni"])
@pytest.mark.parametrize("p_values", [[0.3], [0.01, 0.04, 0.03], [0.2, 0.0, 0.2, 0.9, 1.0, 0.001]])
def test_adjust_equals_statsmodels(p_values, method):
    assert adjust(p_values, method) == pytest.approx(multipletests(p_values, method=method)[1], rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    raw, holm, bonferroni = (adjust(p_values, method) for method in ("none", "holm", "bonferroni"))
    assert raw == p_values
    assert all(a <= b <= c for a, b, c in zip(raw, holm, bonferroni, strict=True))
    assert adjust(p_values[::-1], "holm") == holm[::-1]


@pytest.mark.parametrize("df", [2, 6, 30, 61, 2000, math.inf])
@pytest.mark.parametrize("ratio", [0.1, 1, 10])
def test_dunnett_of_one_arm_is_the_t_test(df, ratio):
    for t in (0.0, 1.3, -2.5, 6.0):
        expected = 2 * (special.ndtr(-abs(t)) if df == math.inf else special.stdtr(df, -abs(t)))
        assert dunnett_p([t], df, [ratio]) == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize(
    ("arms", "df", "critical"),
    [(2, 5, 3.03), (4, 20, 2.65), (9, 20, 2.95), (4, math.inf, 2.44), (9, math.inf, 2.69)],
)
def test_dunnett_gives_his_table(arms, df, critical):
    """Two-sided critical values at 5 % (Dunnett 1964), printed to two decimals."""
    assert dunnett_p([critical - 0.006] + [0.0] * (arms - 1), df)[0] > 0.05
    assert dunnett_p([critical + 0.006] + [0.0] * (arms - 1), df)[0] < 0.05


def test_dunnett_equals_scipy():
    rng = np.random.default_rng(0)
    arms = [rng.normal(mean, 1, 12) for mean in (0.0, 0.5, 1.1)]
    expected = stats.dunnett(*arms[1:], control=arms[0], rng=np.random.default_rng(0))
    assert dunnett_p(expected.statistic, 33) == pytest.approx(expected.pvalue, abs=3e-4)


def test_dunnett_of_unequal_sizes_is_the_multivariate_normal():
    loadings = np.sqrt(np.array([4.0, 0.5]) / np.array([5.0, 1.5]))
    correlation = np.outer(loadings, loadings)
    np.fill_diagonal(correlation, 1)
    inside = stats.multivariate_normal(cov=correlation).cdf([1.9, 1.9], lower_limit=[-1.9, -1.9])
    assert dunnett_p([1.9, 0.0], ratios=[4.0, 0.5])[0] == pytest.approx(1 - inside, abs=1e-7)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=5))
def test_dunnett_lies_between_no_correction_and_independence(z):
    raw = [2 * float(special.ndtr(-abs(x))) for x in z]
    for p, adjusted in zip(raw, dunnett_p(z), strict=True):
        assert p - 1e-9 <= adjusted <= 1 - (1 - p) ** len(z) + 1e-9


def test_any_false_winner_is_as_rare_as_the_level():
    rng = np.random.default_rng(1)
    z = rng.standard_normal((20_000, 5))
    largest = np.abs(z[:, 1:] - z[:, :1]).max(axis=1) / math.sqrt(2)
    at_level = np.quantile(largest, 0.95)
    assert dunnett_p([at_level, 0, 0, 0])[0] == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 20_000))


def test_what_is_no_p_value_is_refused():
    with pytest.raises(ValueError, match="p-values in"):
        adjust([0.1, math.nan])
    with pytest.raises(ValueError, match="method"):
        adjust([0.1], "hochberg")
    with pytest.raises(ValueError, match="one ratio above 0"):
        dunnett_p([1.0, 2.0], ratios=[1.0])
    with pytest.raises(ValueError, match="given \\[nan\\]"):
        dunnett_p([math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p):
    assert false_discovery(p) == pytest.approx(list(stats.false_discovery_control(p)))
