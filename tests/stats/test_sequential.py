"""Looking more than once: the error over all looks stays below alpha, and an effect is still found."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from windtunnel.stats.paired import t_test
from windtunnel.stats.power import power_paired
from windtunnel.stats.sequential import always_valid_p, nominal_level, overall_p

LOOKS = tuple(range(4, 17))


def p_at_looks(rows, looks, sides=2):
    """The t test's p at each look, shape (rows, looks)."""
    alternative = "two-sided" if sides == 2 else "greater"
    return np.column_stack([stats.ttest_1samp(rows[:, :n], 0, axis=1, alternative=alternative).pvalue for n in looks])


@pytest.mark.parametrize(("looks", "alpha", "sides"), [(LOOKS, 0.05, 2), (LOOKS, 0.05, 1), ((2, 3, 9, 16), 0.01, 2)])
def test_any_look_errs_at_most_at_alpha(looks, alpha, sides):
    rows = np.random.default_rng(0).normal(0, 3, (30_000, 16))
    level = nominal_level(looks, alpha, sides)
    p = p_at_looks(rows, looks, sides)
    error = (p <= level).any(axis=1).mean()
    slack = 3 * math.sqrt(alpha * (1 - alpha) / len(rows))
    assert alpha - slack - 0.002 < error <= alpha + slack
    assert (p <= alpha).any(axis=1).mean() > 1.7 * alpha  # what looking again and again does when nobody corrects


@pytest.mark.parametrize(("count", "pocock"), [(2, 0.0294), (3, 0.0221), (5, 0.0158)])
def test_many_observations_give_the_levels_of_pocock(count, pocock):
    """Pocock (1977), table 1: nominal levels for normal responses and 5 % over all looks."""
    level = nominal_level(tuple(10_000 * i for i in range(1, count + 1)), 0.05)
    assert 0.96 * pocock < level < 1.005 * pocock


def test_level_lies_between_bonferroni_and_alpha():
    assert nominal_level((8,), 0.05) == 0.05
    assert 0.05 / 13 < nominal_level(LOOKS, 0.05) < 0.05
    assert nominal_level(LOOKS, 1e-6) == 1e-6 / 13  # too rare to simulate: Bonferroni
    assert nominal_level(LOOKS, 0.025) < nominal_level(LOOKS, 0.05)
    level = nominal_level(LOOKS, 0.05)
    nominal_level.cache_clear()
    assert nominal_level(LOOKS, 0.05) == level


def test_planned_looks_find_an_effect_as_power_predicts():
    """Each look alone rejects as often as a t test at the nominal level; all looks together more often."""
    rows = np.random.default_rng(1).normal(0.9, 1, (20_000, 16))
    level = nominal_level(LOOKS, 0.05)
    rejected = p_at_looks(rows, LOOKS) <= level
    for i in (0, 6, 12):
        predicted = power_paired(0.9, 1, LOOKS[i], level)
        assert rejected[:, i].mean() == pytest.approx(
            predicted, abs=3 * math.sqrt(predicted * (1 - predicted) / 20_000)
        )
    assert rejected.any(axis=1).mean() > power_paired(0.9, 1, 16, level)


def test_always_valid_p_errs_at_most_at_alpha_however_long_one_looks():
    rows = np.random.default_rng(2).normal(0, 0.01, (4000, 300))
    error = np.mean([always_valid_p(row) <= 0.05 for row in rows])
    assert error <= 0.05
    peeking = np.mean([any(t_test(row[:n]).p <= 0.05 for n in range(4, 50)) for row in rows[:300]])
    assert peeking > 0.15


def test_always_valid_p_finds_an_effect_later_than_planned_looks():
    rows = np.random.default_rng(3).normal(1, 1, (2000, 30))
    found = np.mean([always_valid_p(row) <= 0.05 for row in rows])
    planned = (p_at_looks(rows[:, :16], LOOKS) <= nominal_level(LOOKS, 0.05)).any(axis=1).mean()
    early = np.mean([always_valid_p(row[:16]) <= 0.05 for row in rows])
    assert found > 0.95
    assert 0.5 < early < planned


@pytest.mark.parametrize("effect_sd", [0.5, 1.0])
def test_e_value_is_the_bayes_factor_of_the_t_statistic(effect_sd):
    row = np.random.default_rng(4).normal(1.5, 1, 7)

    def bayes_factor(n):
        t = stats.ttest_1samp(row[:n], 0).statistic

        def mixed(effect):
            return stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * stats.norm.pdf(effect, 0, effect_sd)

        return integrate.quad(mixed, -6 * effect_sd, 6 * effect_sd, limit=200)[0] / stats.t.pdf(t, n - 1)

    largest = max(1.0, *(bayes_factor(n) for n in range(2, 8)))
    assert always_valid_p(row, effect_sd) == pytest.approx(1 / largest, rel=1e-5)


def test_always_valid_p_never_rises_and_knows_no_unit():
    row = np.random.default_rng(5).normal(0.7, 1, 40)
    p = [always_valid_p(row[:n]) for n in range(1, 41)]
    assert p[0] == 1
    assert all(later <= earlier for earlier, later in pairwise(p))
    assert always_valid_p(-1e-6 * row) == pytest.approx(p[-1], rel=1e-9)
    assert always_valid_p([0.0] * 20) == 1
    assert always_valid_p([0.0, 0.0, 0.3, 0.3, 0.3, 0.3]) < 1


@pytest.mark.parametrize("looks", [(), (1, 4), (4, 4), (6, 5)])
def test_looks_that_are_none_are_refused(looks):
    with pytest.raises(ValueError, match="growing numbers"):
        nominal_level(looks, 0.05)


def test_settings_that_are_none_are_refused():
    with pytest.raises(ValueError, match="alpha"):
        nominal_level((4, 5), 0.0)
    with pytest.raises(ValueError, match="effect_sd"):
        always_valid_p([1.0, 2.0], effect_sd=0)
    with pytest.raises(ValueError, match="finite"):
        always_valid_p([1.0, math.nan])


def test_the_p_of_a_design_is_the_inverse_of_its_level():
    looks = tuple(range(4, 17))
    for alpha in (0.001, 0.01, 0.03):
        p = nominal_level(looks, alpha)
        assert overall_p(looks, p) == pytest.approx(alpha, rel=0.15)
        assert p < overall_p(looks, p) <= len(looks) * p
    assert overall_p((6,), 0.01) == 0.01
    assert overall_p(looks, 0.5) == 1.0
    assert overall_p(looks, 0.0) < 1e-5
