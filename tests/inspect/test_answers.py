"""Edit distance, exact match and edit rates: hard cases by hand, and against the textbook's recursion."""

import math
import re
import sys
from functools import cache

import numpy as np
import pytest

from windtunnel.inspect.answers import compare_answers
from windtunnel.inspect.edit_distance import edit_distance
from windtunnel.inspect.library_scores import library_scores
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.proportions import wilson
from windtunnel.text.corpora.pronunciations import without_stress


@pytest.mark.parametrize(("one", "other", "edits"), [
    ("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("a", "b", 1),
    ("kitten", "sitting", 3), ("intention", "execution", 5), ("flaw", "lawn", 2), ("ab", "ba", 2),
    ("abcdef", "azced", 3), ("aaaa", "aa", 2), ("xabcabc", "abcabcx", 2), ("é", "e\u0301", 2),
    ("a" * 300, "b" + "a" * 299, 1), (["HH", "AH0", "L"], ["AH0", "L", "OW1"], 2), (["AH0"], ["AH1"], 1),
])  # fmt: skip
def test_edit_distance_of_hard_cases(one, other, edits):
    assert edit_distance(one, other) == edit_distance(other, one) == edits
    assert type(edit_distance(one, other)) is int


def by_recursion(one, other):
    @cache
    def of(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

    return of(len(one), len(other))


def test_edit_distance_is_that_of_the_recursion():
    rng = np.random.default_rng(0)
    for _ in range(300):
        one, other = ("".join(rng.choice(list("abc"), rng.integers(0, 9))) for _ in range(2))
        assert edit_distance(one, other) == by_recursion(one, other)


EVERY = np.ones(3, bool)


def test_any_right_target_counts_and_the_nearest_is_compared_with():
    written = ["T AH0 M EY1", "R EH1 D", "K AE1 T"]
    right = [("T AH0 M AA1", "T AH0 M EY1 T"), ("R IY1 D", "R EH1 D"), ("D AO1 G Z",)]
    found = compare_answers(written, right)
    assert found.exact.tolist() == [False, True, False]
    # In characters EY1 is two from AA1, and " T" is two: the first of equally near ones. In phonemes each is one off.
    assert list(zip(found.edits.tolist(), found.lengths.tolist(), strict=True)) == [(2, 11), (0, 7), (5, 9)]
    assert list(zip(found.tokens.tolist(), found.token_lengths.tolist(), strict=True)) == [(1, 4), (0, 3), (4, 4)]
    score = found.score("all", EVERY, in_tokens=True)
    assert (score.n, score.exact) == (3, wilson(1, 3))
    assert (score.edits.estimate, score.tokens.estimate) == (7 / 27, 5 / 11)
    bootstrap = ratio_of_sums_interval([1, 0, 4], [4, 3, 4])
    assert (score.tokens.low, score.tokens.high) == (bootstrap.low, bootstrap.high)
    assert found.score("one", np.array([True, False, False]), in_tokens=False).edits.estimate == 2 / 11
    assert compare_answers(written, [targets[:1] for targets in right]).exact.tolist() == [False, False, False]


def test_stress_digits_may_be_left_out():
    assert without_stress("HH AH0 L OW1") == "HH AH L OW"
    written, right = ["HH AH1 L OW0"], [("HH AH0 L OW1",)]
    assert not compare_answers(written, right).exact[0]
    assert compare_answers(written, right, counted=without_stress).exact[0]


def test_what_did_not_end_is_wrong_whatever_it_says():
    assert compare_answers(["ab", "ab"], [("ab",), ("ab",)], complete=[False, True]).exact.tolist() == [False, True]


def test_a_rate_has_no_interval_where_the_bootstrap_has_none():
    right = compare_answers(["ab"] * 3, [("ab",)] * 3).score("all", EVERY, False)
    assert right.edits.estimate == 0
    assert math.isnan(right.edits.high)
    empty = compare_answers(["a", "ab", "b"], [("",), ("ab",), ("b",)]).score("all", EVERY, False)
    assert empty.edits.estimate == 1 / 3
    assert math.isnan(empty.edits.high)
    assert "a target is empty" in empty.edits.method
    assert math.isnan(compare_answers(["a"], [("",)]).score("all", EVERY[:1], False).edits.estimate)


def test_the_library_scores_where_a_resample_has_no_match():
    """Of three translations one has letters of its target; of the resamples of three, 8 in 27 do not have that one."""
    (chrf,), _ = library_scores(["ethay", "xx", "xx"], [("ethay",), ("ab",), ("ab",)])
    assert chrf.score > 0
    assert re.search(r"μ = \d+\.\d+ ± \d+", chrf.text)


def test_the_library_scores_with_its_signature():
    (chrf,), (remark,) = library_scores(["ethay", "airway"], [("ethay",), ("airwax", "airway")])
    assert (chrf.name, chrf.score) == ("chrF", 100)
    assert chrf.signature.startswith("nrefs:var|bs:1000|seed:12345|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert remark.startswith("BLEU is left out: it counts runs of 4 words")
    scores, remarks = library_scores(["a b c d e"] * 2, [("a b c d e",), ("a b c d f",)])
    assert remarks == ()
    precisions = [9 / 10, 7 / 8, 5 / 6, 3 / 4]
    assert scores[1].score == pytest.approx(100 * math.prod(precisions) ** 0.25)


def test_without_the_library_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    scores, (remark,) = library_scores(["a"], [("a",)])
    assert scores == ()
    assert "pip install sacrebleu" in remark
