"""Each strategy chooses what its name says, once each, and says why in numbers."""

import numpy as np
import pytest

from windtunnel.labelling.features import out_of_fold, vectors
from windtunnel.labelling.strategies import STRATEGIES, Pool, different, entropy, margin, reason
from windtunnel.text.features import fit, kind_of_features

P = np.array([[0.98, 0.01, 0.01], [0.5, 0.49, 0.01], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]])
ANGLES = np.radians([0, 10, 90, 100])
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def chosen(name, n, seed=0, labelled=CIRCLE[:0]):
    return STRATEGIES[name](Pool(P, CIRCLE, labelled), n, np.random.default_rng(seed))


def test_scores():
    assert margin(P) == pytest.approx([0.97, 0.01, 0.1, 0.5])
    assert entropy(np.array([[0.25] * 4, [1, 0, 0, 0]])) == pytest.approx([np.log(4), 0])


@pytest.mark.parametrize(("name", "first"), [("margin", [1, 2]), ("entropy", [2, 3]), ("least-confidence", [2, 1])])
def test_the_least_certain_come_first(name, first):
    rows, scores = chosen(name, 2)
    assert rows.tolist() == first
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_nothing_is_chosen_twice_and_all_can_be(name):
    rows, scores = chosen(name, 9)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    assert scores.shape == (4,)
    again = chosen(name, 9)
    assert again[0].tolist() == rows.tolist()


def test_random_is_even():
    counts = np.bincount([chosen("random", 1, seed)[0][0] for seed in range(400)], minlength=4)
    assert counts.min() > 60


def test_diverse_is_far_from_what_is_labelled():
    firsts = np.bincount([chosen("diverse", 1, seed, CIRCLE[:1])[0][0] for seed in range(2000)], minlength=4)
    squares = np.array([0, 2 - 2 * np.cos(np.radians(10)), 2, 2 - 2 * np.cos(np.radians(100))])
    assert firsts[0] == 0
    assert firsts / 2000 == pytest.approx(squares / squares.sum(), abs=0.04)
    twos = [set(chosen("diverse", 2, seed)[0].tolist()) for seed in range(200)]
    assert sum(pair in ({0, 1}, {2, 3}) for pair in twos) < 10  # neighbours


def test_cluster_margin_weighs_by_the_margin():
    firsts = np.bincount([chosen("cluster-margin", 1, seed)[0][0] for seed in range(2000)], minlength=4)
    weights = 1 - margin(P)
    assert firsts / 2000 == pytest.approx(weights / weights.sum(), abs=0.04)


def test_copies_of_what_is_labelled_can_still_be_chosen():
    pool = Pool(P[:2], CIRCLE[[0, 0]], CIRCLE[:1])
    assert sorted(STRATEGIES["diverse"](pool, 2, np.random.default_rng(0))[0].tolist()) == [0, 1]


def test_of_two_labels_no_strategy_is_there_twice():
    assert list(different(2)) == ["random", "margin", "diverse", "cluster-margin"]
    assert list(different(3)) == list(STRATEGIES)


def test_reasons():
    classes = ("a", "b", "c")
    assert reason("random", P[1], 0.0, classes) == "drawn at random"
    assert reason("margin", P[1], 0.99, classes) == "the likeliest labels are 0.01 apart: a 0.50, b 0.49"
    assert reason("least-confidence", P[2], 0.6, classes) == "no label is likelier than 0.40: a 0.40, c 0.30"
    for name in STRATEGIES:
        assert reason(name, P[1], 0.5, classes)
    assert reason("diverse", np.ones(1), 4.0, ()) == "squared distance 4.00 to the nearest labelled or chosen text"


def test_vectors(texts):
    stories = [example.text for example in texts(300)]
    assert kind_of_features(stories) == "words"
    assert kind_of_features(["Ada", "Bob Lee"]) == "characters"
    for kind in ("words", "characters"):
        found = vectors(stories, kind)
        assert np.linalg.norm(found, axis=1) == pytest.approx(1)
        assert found.shape == (300, 36 if kind == "words" else 128)


def test_a_classifier_learns_and_has_not_seen_what_it_is_asked_of(texts):
    examples = texts(400)
    features = vectors([example.text for example in examples], "words")
    labels = np.array([["money", "ship", "sport"].index(example.label) for example in examples])
    p = out_of_fold(features, labels, 3)
    assert p.sum(axis=1) == pytest.approx(1)
    assert (p.argmax(axis=1) == labels).mean() > 0.95
    noise = np.random.default_rng(0).integers(0, 2, 400)  # nothing to learn: only what was seen is known
    assert (fit(features, noise, 2)(features).argmax(axis=1) == noise).mean() > 0.58
    assert (out_of_fold(features, noise, 2).argmax(axis=1) == noise).mean() < 0.55


def test_without_two_classes_nothing_is_learned():
    rows = np.eye(3)
    assert fit(rows[:0], np.array([], dtype=int), 1)(rows).tolist() == [[1.0]] * 3
    assert fit(rows[:2], np.array([1, 1]), 3)(rows).tolist() == [[0, 1, 0]] * 3
    assert fit(rows[:2], np.array([0, 2]), 3)(rows)[:, 1].tolist() == [0, 0, 0]
