"""Power: against statsmodels, and as often as the tests themselves really reject."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from windtunnel.stats.paired import t_test, tost
from windtunnel.stats.power import n_proportions, power_equivalence, power_paired, seeds_needed, seeds_to_equivalence


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(("n", "size"), [(2, 0.5), (4, 1.0), (8, 1.0), (16, 0.7), (1000, 0.08)])
def test_power_equals_statsmodels(n, size, alpha):
    oracle = TTestPower()
    assert power_paired(3 * size, 3, n, alpha) == pytest.approx(oracle.power(size, n, alpha), abs=1e-9)
    one_sided = oracle.power(size, n, alpha, alternative="larger")
    assert power_paired(3 * size, 3, n, alpha, sides=1) == pytest.approx(one_sided, abs=1e-9)
    assert power_paired(-size, 1, n, alpha) == pytest.approx(power_paired(size, 1, n, alpha), rel=1e-9)


def test_without_effect_power_is_alpha_and_without_spread_it_is_one():
    assert power_paired(0, 1, 5) == pytest.approx(0.05, rel=1e-9)
    assert power_paired(0, 1, 5, 0.01, sides=1) == pytest.approx(0.01, rel=1e-9)
    assert (power_paired(0.1, 0, 2), power_paired(0, 0, 2), power_equivalence(0.1, 0, 0.2, 2)) == (1, 0, 1)


@pytest.mark.parametrize("n", [4, 10])
def test_the_t_test_rejects_as_often_as_predicted(n):
    rows = np.random.default_rng(n).normal(0.9, 1, (4000, n))
    predicted = power_paired(0.9, 1, n)
    found = np.mean([t_test(row).p <= 0.05 for row in rows])
    assert found == pytest.approx(predicted, abs=3 * math.sqrt(predicted * (1 - predicted) / 4000))


@pytest.mark.parametrize(("n", "effect"), [(4, 0.0), (12, 0.0), (12, 0.4)])
def test_equivalence_is_shown_as_often_as_predicted(n, effect):
    rows = np.random.default_rng(n).normal(effect, 1, (4000, n))
    predicted = power_equivalence(effect, 1, 1.2, n)
    found = np.mean([tost(row, 1.2).p <= 0.05 for row in rows])
    assert found == pytest.approx(predicted, abs=3 * math.sqrt(predicted * (1 - predicted) / 4000))


@pytest.mark.parametrize(("n", "effect"), [(2, 0.0), (5, 0.3), (40, -0.1)])
def test_power_of_equivalence_equals_adaptive_quadrature(n, effect):
    margin, limit = 0.8, special.stdtrit(n - 1, 0.95)

    def given_spread(s):
        reach = max(0.0, margin - limit * s / math.sqrt(n))
        inside = special.ndtr((reach - effect) * math.sqrt(n)) - special.ndtr((-reach - effect) * math.sqrt(n))
        return inside * stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    end = margin * math.sqrt(n) / limit
    expected = integrate.quad(given_spread, 0, min(end, 6), points=[1] if end > 1 else None, epsabs=1e-12, limit=200)[0]
    assert power_equivalence(effect, 1, margin, n) == pytest.approx(expected, abs=1e-9)


def test_seeds_are_the_fewest_that_suffice():
    assert seeds_needed(0.5, 1) == 34  # Cohen's medium effect, paired
    assert seeds_needed(0.01, 0.02, power=0.9, alpha=0.01) == seeds_needed(1, 2, power=0.9, alpha=0.01)
    for found, power in [
        (seeds_needed(1, 2), lambda n: power_paired(1, 2, n)),
        (seeds_needed(1, 2, sides=1), lambda n: power_paired(1, 2, n, sides=1)),
        (seeds_to_equivalence(0.2, 1, 0.5), lambda n: power_equivalence(0.2, 1, 0.5, n)),
    ]:
        assert power(found - 1) < 0.8 <= power(found)


def test_seeds_that_no_budget_has():
    assert seeds_needed(0, 1) is None
    assert seeds_needed(-1, 1, sides=1) is None
    assert seeds_needed(1e-4, 1) is None
    assert seeds_needed(0.5, 1, at_most=34) == 34
    assert seeds_needed(0.5, 1, at_most=33) is None
    assert seeds_to_equivalence(0.5, 1, 0.5) is None
    assert (seeds_needed(1, 0), seeds_to_equivalence(0.1, 0, 0.5)) == (2, 2)


@pytest.mark.parametrize(("p1", "p2"), [(0.1, 0.14), (0.5, 0.3), (0.02, 0.021)])
def test_examples_per_arm_equal_statsmodels(p1, p2):
    expected = samplesize_proportions_2indep_onetail(p2 - p1, p1, 0.9, alpha=0.01, alternative="two-sided")
    assert n_proportions(p1, p2, 0.9, 0.01) == math.ceil(expected)
    assert n_proportions(p1, p2) == n_proportions(p2, p1)
    assert n_proportions(p1, p1) is None


def test_examples_per_arm_of_the_mails():
    assert n_proportions(0.2, 0.3) == 294  # 293 has power .7997
    assert [n_proportions(0.1, p) for p in (0.07, 0.085, 0.12, 0.14)] == [1356, 5856, 3841, 1035]


def test_what_has_no_power_is_refused():
    with pytest.raises(ValueError, match="n >= 2"):
        power_paired(1, 1, 1)
    with pytest.raises(ValueError, match="sd >= 0"):
        power_paired(1, -1, 4)
    with pytest.raises(ValueError, match="1 or 2 sides"):
        power_paired(1, 1, 4, sides=3)
    with pytest.raises(ValueError, match="margin above 0"):
        power_equivalence(0, 1, 0, 4)
    with pytest.raises(ValueError, match="power < 1"):
        seeds_needed(1, 1, power=1)
    with pytest.raises(ValueError, match="proportions"):
        n_proportions(0.1, 1.2)
