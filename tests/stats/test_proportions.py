"""Proportions: row 1.0a of the experiments (five arms of 1,000 mails), statsmodels and scipy, exact coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest

from windtunnel.stats.multiplicity import dunnett_p
from windtunnel.stats.proportions import against_control, compare_proportions, fisher_exact, paired_proportions, wilson

MAILS = {"A": (100, 1000), "B": (70, 1000), "C": (85, 1000), "D": (120, 1000), "E": (140, 1000)}
COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def ends(estimate):
    return estimate.low, estimate.high


def test_mails_against_control_as_the_row_says():
    found = against_control(MAILS, "A")
    rows = {v.name: v for v in found.variants}
    assert list(rows) == ["B", "C", "D", "E"]
    assert [round(v.z, 4) for v in found.variants] == [-2.4054, -1.1577, 1.4293, 2.7524]
    assert [round(v.p, 4) for v in found.variants] == [0.0162, 0.2470, 0.1529, 0.0059]
    assert (round(rows["B"].p, 5), round(rows["E"].p, 5)) == (0.01616, 0.00592)
    assert round(rows["B"].fisher_p, 4) == 0.0198
    assert [round(x, 4) for x in ends(rows["B"].difference)] == [-0.0544, -0.0056]
    assert (round(rows["B"].bonferroni, 4), round(rows["E"].bonferroni, 4)) == (0.0646, 0.0237)
    assert (round(rows["B"].holm, 4), round(rows["E"].holm, 4)) == (0.0485, 0.0237)
    assert [v.n_per_arm for v in found.variants] == [1356, 5856, 3841, 1035]
    assert (round(found.chi2, 2), found.chi2_df) == (33.34, 4)


def test_dunnett_of_the_mails():
    """The row's .0551 and .0213 are within .0003 of the exact integral, which a Monte Carlo run would be too."""
    rows = {v.name: v for v in against_control(MAILS, "A").variants}
    assert (rows["B"].dunnett, rows["E"].dunnett) == pytest.approx((0.0551, 0.0213), abs=3e-4)
    correlation = (np.eye(4) + 1) / 2
    normal = stats.multivariate_normal(cov=correlation, seed=0)
    for row in rows.values():
        limit = np.full(4, abs(row.z))
        assert row.dunnett == pytest.approx(1 - normal.cdf(limit, lower_limit=-limit), abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 1), (7, 10), (100, 1000), (1000, 1000)])
@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_wilson_equals_statsmodels(k, n, confidence):
    found = wilson(k, n, confidence)
    assert ends(found) == pytest.approx(proportion_confint(k, n, 1 - confidence, "wilson"), abs=1e-9)
    assert (found.estimate, found.n) == (k / n, n)


@given(COUNTS, COUNTS)
def test_two_proportions_equal_statsmodels_and_scipy(first, second):
    (k1, n1), (k2, n2) = first, second
    found = compare_proportions(k1, n1, k2, n2)
    assert ends(found.difference) == pytest.approx(confint_proportions_2indep(k2, n2, k1, n1, method="wald"), abs=1e-9)
    assert ends(found.newcombe) == pytest.approx(confint_proportions_2indep(k2, n2, k1, n1, method="newcomb"), abs=1e-9)
    assert found.newcombe.low - 1e-12 <= found.difference.estimate <= found.newcombe.high + 1e-12
    table = [[k1, n1 - k1], [k2, n2 - k2]]
    assert found.fisher_p == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)
    if 0 < k1 + k2 < n1 + n2:
        assert (found.z, found.p) == pytest.approx(proportions_ztest([k2, k1], [n2, n1]), rel=1e-9, abs=1e-12)
    else:
        assert (found.z, found.p) == (0, 1)


def test_wilson_ends_at_exactly_0_and_1():
    assert all(wilson(0, n).low == 0 and wilson(n, n).high == 1 for n in range(1, 300))


@given(COUNTS)
def test_failures_mirror_successes(counts):
    k, n = counts
    found, mirrored = wilson(k, n), wilson(n - k, n)
    assert found.low <= found.estimate <= found.high
    assert ends(found) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


@pytest.mark.parametrize("n", [15, 50])
def test_wilson_covers_at_its_rate_on_average(n):
    """Exactly, not by simulation: the chance of a covering count, averaged over true rates."""
    rates, k = np.linspace(0.02, 0.98, 500)[:, None], np.arange(n + 1)
    low, high = np.array([ends(wilson(i, n)) for i in k]).T
    covered = (stats.binom.pmf(k, n, rates) * ((low <= rates) & (rates <= high))).sum(axis=1)
    assert 0.935 < covered.mean() < 0.965


def test_newcombe_covers_at_its_rate_on_average():
    n, k = 20, np.arange(21)
    limits = np.array([[ends(compare_proportions(i, n, j, n).newcombe) for j in k] for i in k])
    rates = np.linspace(0.05, 0.95, 15)
    covered = [
        (np.outer(stats.binom.pmf(k, n, p), stats.binom.pmf(k, n, q)) * inside).sum()
        for p in rates
        for q in rates
        for inside in [(limits[..., 0] <= q - p) & (q - p <= limits[..., 1])]
    ]
    assert 0.935 < np.mean(covered) < 0.965


def test_fisher_of_many_counts():
    expected = stats.fisher_exact([[50_100, 49_900], [49_400, 50_600]]).pvalue
    assert fisher_exact(50_100, 100_000, 49_400, 100_000) == pytest.approx(expected, rel=1e-7)


def test_global_chi_square_and_unequal_sizes():
    counts = {"old": (30, 400), "new": (25, 200), "bold": (20, 100)}
    found = against_control(counts, "old", alpha=0.1)
    expected = stats.chi2_contingency([[k, n - k] for k, n in counts.values()], correction=False)
    assert (found.chi2, found.chi2_p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert found.control_rate == wilson(30, 400, 0.9)
    for row in found.variants:
        assert row.rate == wilson(*counts[row.name], 0.9)
        assert row.p < row.dunnett < row.bonferroni
    adjusted = dunnett_p([row.z for row in found.variants], ratios=[0.5, 0.25])
    assert [row.dunnett for row in found.variants] == pytest.approx(adjusted, rel=1e-12)


def test_arms_that_are_all_alike():
    found = against_control({"A": (0, 9), "B": (0, 9)}, "A")
    row = found.variants[0]
    assert (row.p, row.holm, row.dunnett, row.n_per_arm, found.chi2) == (1, 1, pytest.approx(1), None, 0)


def test_what_is_no_count_is_refused():
    with pytest.raises(ValueError, match="11 of 10"):
        wilson(11, 10)
    with pytest.raises(ValueError, match="n > 0"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="control among them"):
        against_control(MAILS, "F")
    with pytest.raises(ValueError, match="at least two arms"):
        against_control({"A": (1, 2)}, "A")


@pytest.mark.parametrize(
    ("counts", "p"),
    [
        ((10**7, 10**8, 10**7 + 20_000, 10**8), 2.45639e-6),
        ((5 * 10**8, 10**9, 5 * 10**8 + 30_000, 10**9), 0.179727),
    ],
)
def test_fisher_of_a_billion_does_not_list_all_tables(counts, p):
    assert fisher_exact(*counts) == pytest.approx(p, rel=1e-4)


@pytest.mark.parametrize("n", [10**9, 10**12])
def test_fisher_of_huge_counts(n):
    """Few of many: given the sum, the split is binomial; many: the z test, with the continuity correction."""
    assert fisher_exact(1, n, 9, n) == pytest.approx(stats.binomtest(1, 10).pvalue, rel=1e-6)
    assert fisher_exact(n - 1, n, n - 9, n) == pytest.approx(stats.binomtest(1, 10).pvalue, rel=1e-6)
    assert fisher_exact(1, 2, 1, n) == pytest.approx(4 / n, rel=1e-6)
    more = int(1.4 * n**0.5)
    z = (more - 1) / (n / 2) ** 0.5
    assert fisher_exact(n // 2, n, n // 2 + more, n) == pytest.approx(2 * stats.norm.sf(z), abs=1e-6)
    assert fisher_exact(1, n, n // 2, n) == 0


def test_counts_that_floats_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"expected n up to 1e\+12"):
        wilson(1, 10**13)


@pytest.mark.parametrize("chances", [(0.7, 0.1, 0.1, 0.1), (0.85, 0.05, 0.0, 0.1), (0.5, 0.2, 0.05, 0.25)])
def test_the_interval_of_paired_proportions_covers(chances):
    draw = np.random.default_rng(0)
    truth = chances[1] - chances[2]
    found = [paired_proportions(*draw.multinomial(80, chances).tolist()) for _ in range(2000)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.935 < covered < 0.985


def test_paired_proportions_that_always_agree_are_no_point():
    found = paired_proportions(50, 0, 0, 10)
    assert found.estimate == 0
    assert found.low == pytest.approx(-found.high)
    assert 0.02 < found.high < 0.06
    assert paired_proportions(500, 0, 0, 100).high < found.high / 5
    both = paired_proportions(60, 0, 0, 0)
    assert -0.07 < both.low < 0 < both.high < 0.07


def test_paired_proportions_as_newcombe_computes_them():
    # phi = (20 x 16 - 12 x 2 - 25) / sqrt(32 x 18 x 22 x 28); the ends .0562 and .3292 are those of his paper.
    found, a, b = paired_proportions(20, 12, 2, 16), wilson(32, 50), wilson(22, 50)
    phi = 271 / (32 * 18 * 22 * 28) ** 0.5
    down, up = a.estimate - a.low, b.high - b.estimate
    assert found.estimate == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - (down**2 - 2 * phi * down * up + up**2) ** 0.5)
    assert found.low == pytest.approx(0.0562, abs=5e-5)
    assert found.high == pytest.approx(0.3292, abs=5e-5)
