"""The coin of row 000-Q5, posteriors against scipy, and the chance that one rate beats another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from windtunnel.stats.bayes import coin, probability_better

COINS = st.integers(0, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("k", "n", "mle", "mean", "mode"), [(7, 10, 0.7, 0.666667, 0.7), (0, 10, 0, 0.083333, 0), (1, 1, 1, 0.666667, 1)]
)
def test_three_estimators_of_the_row(k, n, mle, mean, mode):
    found = coin(k, n)
    assert (found.mle.estimate, round(found.mean, 6), found.map) == (mle, mean, mode)
    mass, moment = (integrate.quad(lambda p, i=i: p**i * stats.binom.pmf(k, n, p), 0, 1)[0] for i in (0, 1))
    assert found.mean == pytest.approx(moment / mass, rel=1e-9)


@given(COINS, st.sampled_from([(1.0, 1.0), (2.0, 5.0), (0.5, 0.5)]), st.sampled_from([0.5, 0.95]))
def test_intervals_hold_their_probability(counts, prior, confidence):
    found = coin(*counts, prior, confidence)
    posterior = stats.beta(found.alpha, found.beta)
    assert (found.interval.low, found.interval.high) == pytest.approx(posterior.interval(confidence), abs=1e-9)
    assert found.mean == pytest.approx(posterior.mean(), rel=1e-9)
    if found.hdi is None:
        assert found.map is None
        return
    low, high = found.hdi.low, found.hdi.high
    assert low <= found.map <= high
    assert posterior.cdf(high) - posterior.cdf(low) == pytest.approx(confidence, abs=1e-9)
    assert high - low <= found.interval.high - found.interval.low + 1e-9
    if low > 0 and high < 1:
        assert posterior.logpdf(low) == pytest.approx(posterior.logpdf(high), abs=1e-6)


def test_a_mode_that_does_not_exist():
    assert coin(0, 0).map is None
    assert coin(0, 0).mle is None
    assert coin(0, 0).hdi is None
    assert coin(0, 4, prior=(0.5, 0.5)).map is None  # unbounded at 0
    assert (coin(0, 4).map, coin(4, 4).map) == (0, 1)


def sum_over_beta(a, b):
    """P(theta_b > theta_a) for whole numbers, as a finite sum (Cook 2005; Miller 2010)."""
    i = range(int(b.alpha))
    return sum(
        special.beta(a.alpha + j, a.beta + b.beta)
        / ((b.beta + j) * special.beta(1 + j, b.beta) * special.beta(a.alpha, a.beta))
        for j in i
    )


@pytest.mark.parametrize(("a", "b"), [((7, 10), (9, 10)), ((0, 1), (1, 1)), ((30, 60), (2, 30)), ((3, 4), (40, 70))])
def test_probability_better_equals_the_finite_sum(a, b):
    a, b = coin(*a), coin(*b)
    assert probability_better(a, b) == pytest.approx(sum_over_beta(a, b), abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(COINS, COINS, st.sampled_from([(1.0, 1.0), (0.5, 0.5)]))
def test_one_of_the_two_is_better(first, second, prior):
    a, b = coin(*first, prior), coin(*second, prior)
    assert probability_better(a, b) + probability_better(b, a) == pytest.approx(1, abs=1e-10)
    assert probability_better(a, a) == pytest.approx(0.5, abs=1e-10)


def test_probability_better_of_narrow_and_wide_posteriors():
    narrow, wide = coin(500_000, 1_000_000), coin(3, 5)
    expected = special.betainc(wide.beta, wide.alpha, 0.5)  # the narrow one is a point, nearly
    assert probability_better(narrow, wide) == pytest.approx(expected, abs=1e-6)
    near = probability_better(narrow, coin(500_700, 1_000_000))
    assert near == pytest.approx(special.ndtr(700 / 500_000**0.5), abs=1e-4)


@pytest.mark.parametrize(("k", "n", "prior"), [(3, 2, (1, 1)), (-1, 2, (1, 1)), (1, 2, (0, 1))])
def test_what_is_no_coin_is_refused(k, n, prior):
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        coin(k, n, prior)
