"""000-Q4: the three ways choose what they say, and an order is claimed only where the seeds show it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from windtunnel.experiments.what_to_label import contradicts, last, order, words
from windtunnel.labelling.stories import Dials, World, _choose, accuracies, design, logistic, score


def test_the_ways_choose_what_they_say():
    logits = np.array([-3.0, -0.1, 0.2, 2.0, -2.0, 5.0])
    labels = np.array([True, False, True, False, False, True])
    near, drawn, wrong = _choose(logits, labels, 2, np.random.default_rng(0))
    assert set(near.tolist()) == {1, 2}
    assert len(set(drawn.tolist())) == 2
    assert wrong.tolist() == [0, 3]
    *_, filled = _choose(logits, labels, 4, np.random.default_rng(0))
    assert filled[:2].tolist() == [0, 3]
    assert len(set(filled.tolist())) == 4


def test_the_regression_is_scikit_learns():
    rng = np.random.default_rng(0)
    x = design(rng.normal(size=(300, 3)), "quadratic")
    assert x.shape == (300, 1 + 3 + 6)
    y = rng.random(300) < 1 / (1 + np.exp(-x @ rng.normal(size=10)))
    theirs = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-8, max_iter=1000).fit(x, y).coef_[0]
    assert logistic(x, y, 0.7) == pytest.approx(theirs, abs=1e-4)
    assert score(theirs, x[:, 1:4], "quadratic") == pytest.approx(x @ theirs)


def test_wrong_labels_ruin_way_3_and_no_shift_leaves_v1_as_good_as_random():
    dials = [Dials(wrong=wrong, kept=kept) for wrong in (0.0, 0.05) for kept in (False, True)]
    clean, clean_kept, wrong, _ = np.mean(
        [accuracies(World("linear", 0.0), dials, 20_000, seed) for seed in range(3)], axis=0
    )
    assert clean[0] == pytest.approx(clean[2], abs=0.01)  # one source is like all, so V1 is like V2 by way 2
    assert clean_kept[3] > 0.9
    assert wrong[3] < 0.3  # it learns the wrong labels
    assert clean_kept[2] >= clean[2] - 0.002  # more stories


def test_the_same_seed_gives_the_same_world():
    dials = [Dials(wrong=0.05), Dials(wrong=0.05, kept=True)]
    first = accuracies(World(), dials, 5000, 3)
    assert first == accuracies(World(), dials, 5000, 3)
    assert first[1] == accuracies(World(), dials[1:], 5000, 3)[0]
    assert first != accuracies(World(), dials, 5000, 4)


def accuracy(*means, spread=0.002):
    rng = np.random.default_rng(0)
    return np.array([0.5, *means]) + rng.normal(0, spread, (8, 4))


def ordered(own):
    return order(own, words(own))


def test_an_order_is_what_the_seeds_show():
    assert ordered(accuracy(0.7, 0.9, 0.5)) == "2 > 1 > 3"
    assert ordered(accuracy(0.9, 0.901, 0.5))[2:] in ("= 2 > 3", "= 1 > 3")
    assert "?" in ordered(accuracy(0.8, 0.82, 0.5, spread=0.05))
    assert words(accuracy(0.7, 0.9, 0.5)) == {
        (1, 2): "worse", (2, 3): "better", (1, 3): "better", (3, 2): "worse", (2, 1): "better", (3, 1): "worse",
    }  # fmt: skip
    assert last(words(accuracy(0.7, 0.9, 0.5)))
    assert not last(words(accuracy(0.7, 0.9, 0.701)))
    assert contradicts(words(accuracy(0.7, 0.9, 0.5)))
    assert not contradicts(words(accuracy(0.5, 0.9, 0.7)))
    assert not contradicts(words(accuracy(0.7, 0.7, 0.7)))


def test_the_claims(claims_of, outcome_of):
    found = claims_of("what-to-label")
    reading = [claim.verdict for (id, _), claim in found.items() if id == "000-Q4"]
    assert len(reading) == 8
    assert found.one("000-Q4", "left out, 5 % wrong: way 3 beats way 1").verdict == "does not hold"
    assert found.one("000-Q4", "left out, 5 % wrong: way 2 beats way 3").verdict == "holds"
    assert found.one("E4", "in every setting of the grid").verdict == "does not hold"
    assert found.one("E4", "5 % wrong labels cost way 3").verdict == "holds"
    assert sum(found.one("E4", "in every setting of the grid").values["orders"].values()) == 24
    assert {"own-reading", "map-1-percent"} <= set(outcome_of("what-to-label").figures)
