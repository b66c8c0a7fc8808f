"""The coin of row 000-Q5, posteriors against scipy, and the chance that one rate beats another."""

import math
from fractions import Fraction

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


def exact_better(a, b):
    """P(theta_b > theta_a) as a finite sum of fractions, for whole numbers in b and any in a (Cook 2005)."""
    a_alpha, a_beta, b_alpha, b_beta = Fraction(a.alpha), Fraction(a.beta), int(b.alpha), int(b.beta)
    term = math.prod((a_beta + j) / (a_alpha + a_beta + j) for j in range(b_beta))
    terms = [term]
    for i in range(b_alpha - 1):
        term *= (a_alpha + i) / (a_alpha + i + a_beta + b_beta) * (b_beta + i) / (1 + i)
        terms.append(term)
    return float(sum(terms))


WHOLE = [((7, 10), (9, 10)), ((0, 1), (1, 1)), ((30, 60), (2, 30)), ((3, 4), (40, 70)), ((0, 30), (30, 30))]
SPARSE = [1e-12, 1e-6, 0.05, 0.3, 1.0, 7.5, 1e3, 1e6, 1e12]


@pytest.mark.parametrize(("a", "b"), WHOLE)
def test_probability_better_equals_the_exact_sum(a, b):
    a, b = coin(*a), coin(*b)
    assert probability_better(a, b) == pytest.approx(exact_better(a, b), abs=1e-13)


@pytest.mark.parametrize("alpha", SPARSE)
@pytest.mark.parametrize("beta", SPARSE)
def test_a_sparse_or_a_huge_posterior_equals_the_exact_sum(alpha, beta):
    a, b = coin(0, 0, (alpha, beta)), coin(2, 8)
    assert probability_better(a, b) == pytest.approx(exact_better(a, b), abs=1e-12)
    assert probability_better(a, b) + probability_better(b, a) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("prior", [(0.05, 0.05), (1e-3, 0.5), (1e-12, 1e-12), (0.3, 40)])
def test_two_sparse_posteriors(prior):
    """One success more adds B(a + b) / (B(a) B(b) alpha_b) (Miller 2010); equal ones begin at a half."""
    a, expected = coin(0, 10, prior), 0.5
    for k in range(8):
        b = coin(k, 10 + k, prior)
        assert probability_better(a, b) == pytest.approx(expected, abs=1e-12)
        logs = special.betaln(a.alpha + b.alpha, a.beta + b.beta) - special.betaln(a.alpha, a.beta)
        expected += math.exp(logs - special.betaln(b.alpha, b.beta) - math.log(b.alpha))


EXPONENTS = st.one_of(st.floats(-12, 12), st.integers(-12, 12))


@settings(max_examples=200)
@given(EXPONENTS, EXPONENTS)
def test_equal_posteriors_of_any_size(alpha, beta):
    found = coin(0, 0, (min(1e12, max(1e-12, 10.0**alpha)), min(1e12, max(1e-12, 10.0**beta))))
    assert probability_better(found, found) == pytest.approx(0.5, abs=1e-10 if max(alpha, beta) <= 6 else 1e-8)


def test_a_prior_that_is_all_but_flat_has_a_mode():
    """The sum of 1 and the number after it rounds to 2, so that a + b - 2 is 0."""
    more = math.nextafter(1, 2)
    assert (coin(0, 0, (1.0, more)).map, coin(0, 0, (more, 1.0)).map, coin(0, 0, (more, more)).map) == (0, 1, 0.5)


@pytest.mark.parametrize("n", [10**8, 10**10, 10**12])
@pytest.mark.parametrize("deviations", [-3, -0.2, 0, 0.2, 1, 6])
def test_huge_counts_are_normal(n, deviations):
    more = round(deviations * math.sqrt(n / 2))
    found = probability_better(coin(n // 2, n), coin(n // 2 + more, n))
    assert found == pytest.approx(special.ndtr(more / math.sqrt(n / 2)), abs=1e-8)
    ends = coin(n // 2, n).hdi
    half = special.ndtri(0.975) * math.sqrt(0.25 / n)
    assert (ends.low - 0.5, ends.high - 0.5) == pytest.approx((-half, half), rel=1e-4)


@settings(max_examples=40)
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


@pytest.mark.parametrize(
    ("n", "prior"), [(1, (1e308, 1)), (1, (1, math.inf)), (1, (1e-300, 1)), (10**13, (1, 1)), (10**400, (1, 1))]
)
def test_counts_and_priors_beyond_floats_are_refused(n, prior):
    with pytest.raises(ValueError, match=r"expected n up to 1e\+12 and a prior between 1e-12 and 1e\+12"):
        coin(1, n, prior)


def test_an_end_below_any_float_is_zero():
    assert coin(0, 10, (1e-6, 1.0)).interval.low == 0
