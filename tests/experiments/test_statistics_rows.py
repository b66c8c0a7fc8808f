"""The rows 000-Q1, Q2, Q3 and Q5: their numbers against oracles, and verdicts that follow the numbers."""

import numpy as np
import pytest
import statsmodels.api as sm

from windtunnel.experiments.coin_estimators import METHODS, by_grid, coverage, outcome_chances
from windtunnel.experiments.duplicated_feature import (
    almost,
    fit_all,
    standard_errors,
    synthetic,
    twice,
    weights,
)  # fmt: skip
from windtunnel.experiments.email_ab_test import ARMITAGE, COUNTS, PEEKING, a_a_tests, peeking, templates
from windtunnel.experiments.sparse_logistic_cost import (
    Meter,
    Weights,
    dense_gradient_step,
    lazy_l2_step,
    sparse_dense_l2_step,
    sparse_step,
)  # fmt: skip
from windtunnel.stats.bayes import coin
from windtunnel.stats.logistic import information, newton
from windtunnel.stats.proportions import against_control, wilson


def verdicts(claims):
    return {(claim.id, claim.statement): claim.verdict for claim in claims}


@pytest.fixture(scope="module")
def data():
    return synthetic(800, np.random.default_rng(5))


def test_newton_agrees_with_statsmodels(data):
    x, y = data
    oracle = sm.Logit(y, x).fit(disp=0, method="newton", tol=1e-14)
    assert newton(x, y) == pytest.approx(oracle.params, abs=1e-10)
    alone = standard_errors(x, y, 0.3, np.random.default_rng(0))[2]
    assert alone == pytest.approx(oracle.bse[-1], rel=1e-8)


def test_l2_with_a_copy_is_l2_with_half_the_penalty_on_the_feature(data):
    x, y = data
    w = newton(twice(x), y, l2=0.1)
    total = np.append(w[:-2], w[-2:].sum())
    p = 1 / (1 + np.exp(-x @ total))
    gradient = x.T @ (p - y) / len(y) + 0.1 * total * np.array([0, 1, 1, 0.5])
    assert np.abs(gradient).max() < 1e-12


def test_the_information_of_an_exact_copy_is_singular(data):
    x, y = data
    matrix = information(twice(x), newton(twice(x), y))
    assert np.linalg.matrix_rank(matrix, hermitian=True) == 4
    assert np.linalg.cond(matrix) > 1e15


def test_the_verdicts_on_a_copy(data, outcome_of):
    found = [claim.verdict for claim in outcome_of("duplicated-feature").claims]
    wrong = ["does not hold", "holds", "holds", "holds", "does not hold", "does not hold", "holds", "holds"]
    assert found == [*wrong, "does not hold", "holds", "holds", "holds"]
    other = outcome_of("duplicated-feature", 1)
    assert [claim.verdict for claim in other.claims] == found
    assert other.claims != outcome_of("duplicated-feature").claims


def test_the_verdicts_on_a_copy_follow_the_weights(data):
    fits = [fit_all(*data), fit_all(*synthetic(800, np.random.default_rng(6)))]
    for fit in fits:
        fit["L2, twice, equal start"] = fit["L2, once"][[0, 1, 2, 3, 3]] / [1, 1, 1, 2, 2]  # the old weight, halved
        fit["no penalty, twice, unequal start"] = fit["no penalty, twice, equal start"]
        fit["L1, twice, unequal start"] = fit["L1, twice, equal start"] + [0, 0, 0, 0, 1]
    found = {claim.statement: claim.verdict for claim in weights(fits)}
    assert found["L2: both still add up to the old weight"] == "holds"
    assert found["no penalty: from any start they are equal"] == "holds"
    assert found["L1: both add up to the old weight"] == "does not hold"


def test_standard_errors_that_stay_are_seen():
    se = np.ones((4, 4, 3)) + 0.001 * np.arange(4)[:, None, None]
    grows, stays = almost(se)
    assert (grows.verdict, stays.verdict) == ("does not hold", "holds")


def test_the_published_numbers_of_the_templates(outcome_of):
    claims = {claim.statement: claim for claim in outcome_of("email-ab-test").claims}
    expected = {
        "no correction": (0.01616, 0.00592, "holds"),
        "no correction, Fisher's exact test": (0.0198, 0.0072, "holds"),
        "Bonferroni for 4 comparisons": (0.0646, 0.0237, "does not hold"),
        "Holm for 4 comparisons": (0.0485, 0.0237, "holds"),
        "Dunnett for 4 comparisons": (0.0549, 0.0212, "does not hold"),
    }
    for how, (b, e, verdict) in expected.items():
        claim = claims[f"B is worse and E better than A, {how}"]
        assert claim.values == pytest.approx({"B": b, "E": e}, abs=6e-5)
        assert claim.verdict == verdict
    more = claims["C and D need more mails (for 80 % power)"]
    assert more.verdict == "holds"
    assert more.values["n_per_arm"] == {"C": 5856, "D": 3841}


def test_the_verdicts_on_templates_follow_the_counts():
    far = {name: (10 * k, 10 * n) for name, (k, n) in COUNTS.items()}
    claims = list(templates(against_control(far, "A")))
    assert [claim.verdict for claim in claims] == ["holds", "holds", "does not hold", "holds", "holds", "holds"]
    swapped = {**COUNTS, "B": COUNTS["E"], "E": COUNTS["B"]}
    assert next(templates(against_control(swapped, "A"))).verdict == "does not hold"


def test_peeking_makes_false_winners_as_published(outcome_of):
    p, differences = a_a_tests(2000, 20, np.random.default_rng(3))
    assert p.shape == differences.shape == (20, 2000)
    for looks, published in zip((1, 2, 5, 10, 20), ARMITAGE, strict=False):
        assert (p[:looks].min(axis=0) < 0.05).mean() == pytest.approx(published, abs=0.03)
    outcome = outcome_of("email-ab-test")
    assert [claim.verdict for claim in outcome.claims[-3:]] == ["does not hold", "holds", "holds"]


def test_the_p_of_a_look_is_the_pooled_z_test():
    p, differences = a_a_tests(3, 2, np.random.default_rng(0))
    opened = np.random.default_rng(0).binomial(100, 0.1, (2, 2, 3))
    k = opened.sum(axis=1)[:, 1]
    found = against_control({"a": (int(k[0]), 200), "b": (int(k[1]), 200)}, "a")
    assert p[1, 1] == pytest.approx(found.variants[0].p, abs=1e-12)
    assert differences[0, 0] == (opened[1, 0, 0] - opened[0, 0, 0]) / 100


def test_the_verdict_on_peeking_follows_the_shares():
    shares = {rule: [wilson(50, 1000)] for rule in (PEEKING, "level for planned looks", "always-valid p")}
    assert [claim.verdict for claim in list(peeking((1,), shares))[:3]] == ["undecided"] * 3
    shares[PEEKING] = [wilson(10, 1000)]
    assert next(peeking((1,), shares)).verdict == "holds"


ROWS = [([0, 2], [1.0, 2.0]), ([1], [3.0])]


@pytest.mark.parametrize(
    ("step", "multiply_adds", "touched"),
    [(sparse_step, 6, {0, 1, 2}), (sparse_dense_l2_step, 11, {0, 1, 2, 3, 4}),
     (dense_gradient_step, 11, {0, 1, 2, 3, 4}), (lazy_l2_step, 7, {0, 1, 2})],
)  # fmt: skip
def test_a_step_counts_what_it_does(step, multiply_adds, touched):
    meter = Meter()
    step(ROWS, [1.0, 0.0], Weights([0.0] * 5, meter), meter)
    assert (meter.multiply_adds, meter.touched) == (multiply_adds, touched)


def test_weights_note_what_is_read_and_what_is_written():
    meter = Meter()
    weights = Weights([1.0, 2.0, 3.0], meter)
    assert weights[1] == 2
    assert meter.touched == {1}
    weights[2] = 4.0
    assert meter.touched == {1, 2}


def test_a_dense_gradient_moves_the_weights_like_a_sparse_one():
    meter = Meter()
    one, other = Weights([0.5] * 5, meter), Weights([0.5] * 5, meter)
    sparse_step(ROWS, [1.0, 0.0], one, meter)
    dense_gradient_step(ROWS, [1.0, 0.0], other, meter)
    assert one == pytest.approx(other, abs=1e-15)
    assert one[3] == 0.5
    assert one[0] > 0.5 > one[1]


def test_the_verdicts_on_cost(outcome_of):
    outcome = outcome_of("sparse-logistic-cost")
    found = verdicts(outcome.claims)
    assert [key for key, verdict in found.items() if verdict != "holds"] == [
        ("E3", "CSR, L2 on every weight: still O(mk)"),
        ("E3", "CSR, gradient as a dense vector: still O(mk)"),
    ]
    assert len(found) == 9


@pytest.mark.parametrize(("k", "n", "mean"), [(7, 10, 2 / 3), (0, 10, 1 / 12), (1, 1, 2 / 3), (3, 8, 0.4)])
def test_sums_over_a_grid_find_the_estimates(k, n, mean):
    found = by_grid(coin(k, n))
    assert found["argmax"] == pytest.approx(k / n, abs=1e-5)
    assert found["mean"] == pytest.approx(mean, abs=1e-8)
    assert found["tails"] == pytest.approx(0.95, abs=1e-6)
    assert found["hdi"] == pytest.approx(0.95, abs=1e-6)


def test_coverage_is_that_of_simulated_coins():
    rates = np.array([0.2, 0.5])
    tosses = np.random.default_rng(0).binomial(10, 0.2, 20_000)
    spans = [coin(k, 10).mle for k in range(11)]
    simulated = np.mean([spans[k].low <= 0.2 <= spans[k].high for k in tosses])
    exact = coverage(METHODS[1], rates, outcome_chances(rates))
    assert exact[0] == pytest.approx(simulated, abs=0.01)
    assert exact[1] == pytest.approx(1002 / 1024, abs=1e-12)  # 2 to 8 heads of 10


def test_the_verdicts_on_coins(outcome_of):
    found = verdicts(outcome_of("coin-estimators").claims)
    assert [key[1][:5] for key, verdict in found.items() if verdict != "holds"] == ["k/n ±"]
    assert len(found) == 9
