"""Labels that look wrong are found, in order; annotators' agreement is Krippendorff's own number."""

import numpy as np
import pytest

from windtunnel.labelling.agreement import agreement, counts, krippendorff
from windtunnel.labelling.examples import Example
from windtunnel.labelling.features import vectors
from windtunnel.labelling.next import next_round, prepare
from windtunnel.labelling.simulation import encoded
from windtunnel.labelling.suspects import least_believed, planted, precision_on_planted, suspects


def test_a_confident_contradiction_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.45, 0.55], [0.2, 0.8], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 0, 1, 1])
    # thresholds: mean p(0) of label 0 is .5625, mean p(1) of label 1 is .6
    found = suspects(p, labels)
    assert [(one.index, one.given, one.likely) for one in found] == [(2, 0, 1), (5, 1, 0)]
    assert (found[0].believed, found[0].other) == (0.1, 0.9)
    assert least_believed(p, labels).tolist() == [2, 5, 3, 1, 4, 0]


def test_a_label_that_nobody_has_accuses_nobody():
    assert suspects(np.array([[0.4, 0.1, 0.5]] * 3), np.array([0, 0, 0])) == []


def test_the_likeliest_label_is_not_suspected_and_it_is_what_is_called_likely():
    p = np.array([[0.9, 0.08, 0.02], [0.7, 0.2, 0.1], [0.88, 0.05, 0.07], [0.5, 0.2, 0.3]])
    labels = np.array([0, 1, 2, 0])
    # thresholds .7, .2 and .07: [3] is above them for labels 1 and 2, but most of it is label 0, which it has
    assert [(s.index, s.given, s.likely, s.other) for s in suspects(p, labels)] == [(2, 2, 0, 0.88), (1, 1, 0, 0.7)]


def test_a_label_that_the_classifier_never_saw_is_not_suspected():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.95, 0.05, 0.0]])
    assert suspects(p, np.array([0, 1, 2])) == []


def test_planting_changes_so_many_labels():
    labels = np.repeat([0, 1, 2], 100)
    changed = planted(labels, 3, 0.2, np.random.default_rng(0))
    assert (changed != labels).sum() == 60
    assert set(changed.tolist()) == {0, 1, 2}


def test_planted_errors_are_found_and_the_precision_says_how_often(texts):
    examples = texts(500)
    features, (labels, _) = vectors([e.text for e in examples], "words"), encoded([e.label for e in examples])
    assert precision_on_planted(features, labels, share=0.2, checks=40).low > 0.9
    noise = np.random.default_rng(0).integers(0, 3, 500)
    blind = precision_on_planted(features, noise, share=0.2, checks=40, seeds=8)
    assert blind.low < 0.2 < blind.estimate + 0.1  # labels of no meaning: as good as chance


def test_a_wrong_label_stands_first_in_the_next_round(texts):
    examples = texts(300, labelled=0.8)
    at, wrong = next((i, e) for i, e in enumerate(examples) if e.label == "sport")
    examples[at] = Example(wrong.id, wrong.text, {"": "money"})
    found = next_round(prepare(examples), 5, "random")
    first = found.suspicions[0]
    assert (first.example.id, first.given, first.likely) == (wrong.id, "money", "sport")
    assert first.believed < 0.2 < 0.8 < first.other
    assert found.precision.estimate > 0.8


def test_no_label_is_suspected_where_planted_errors_are_not_found(texts):
    rng = np.random.default_rng(0)
    noise = [Example(e.id, e.text, {"": str(rng.integers(2))}) for e in texts(300)]
    found = next_round(prepare(noise), 5)
    assert found.precision.low <= 0.1
    assert found.suspicions == ()


def answered(*rows):
    return [Example(str(i), "text", {f"a{j}": v for j, v in enumerate(row) if v != "."}) for i, row in enumerate(rows)]


def table(*observers):
    """Texts from one row of answers an observer."""
    return [one for one in answered(*zip(*observers, strict=True)) if len(one.answers) > 1]


def test_alpha_of_published_examples():
    # Krippendorff 2011, "Computing Krippendorff's alpha-reliability": four observers, section C, nominal data: .743.
    units = table(
        "12332141 2...".replace(" ", ""),
        "12332241253"[:10] + ".3",
        ".33323422 51.".replace(" ", ""),
        "123324412 51.".replace(" ", ""),
    )
    found = krippendorff(counts(units))
    assert found.estimate == pytest.approx(0.743, abs=5e-4)
    assert found.low < found.estimate < found.high
    three = table(".....3412113 3.3".replace(" ", ""), "1.213343.......", "..21344.21133.4")
    assert krippendorff(counts(three)).estimate == pytest.approx(0.691, abs=5e-4)


def test_alpha_at_its_ends():
    assert krippendorff(counts(answered("aa", "bb", "aa"))).estimate == 1
    assert np.isnan(krippendorff(counts(answered("aa", "aa"))).estimate)
    rng = np.random.default_rng(0)
    chance = krippendorff(counts(answered(*(rng.choice([*"ab"], 2) for _ in range(400)))))
    assert chance.low < 0 < chance.high
    assert krippendorff(counts(answered("ab", "ab"))).estimate < 0


def test_agreement_of_annotators():
    examples = answered("aaa", "aab", "ab.", "b..", "aac", "abc")
    found = agreement(examples)
    assert found.n_texts == 5
    assert [example.id for example in found.disputed[:2]] == ["2", "5"]  # draws first
    assert {example.id for example in found.disputed} == {"1", "2", "4", "5"}
    by_name = {one.name: one for one in found.annotators}
    assert {name: one.n for name, one in by_name.items()} == {"a0": 6, "a1": 5, "a2": 4}
    assert by_name["a2"].agrees.estimate == pytest.approx(1 / 3)  # of texts 0, 1 and 4; in 5 the others are at a draw
    assert agreement(answered("a.", ".b")) is None
