"""The expressions of row 004-3: the published counts, and the split of scikit-learn."""

from collections import Counter
from itertools import pairwise

from windtunnel.experiments.verbal_arithmetic import NUMBERS, counting, expressions, source_split


def test_the_table_is_whole_and_has_the_published_counts():
    pairs = expressions()
    assert len({text for text, _ in pairs}) == 800
    assert Counter(label for _, label in pairs) == {"negative": 190, "zero": 21, "positive": 589}
    assert dict(pairs)["three minus five"] == "negative"
    assert dict(pairs)["zero plus zero"] == dict(pairs)["nineteen minus nineteen"] == "zero"


def test_the_parts_have_the_published_counts_and_nothing_in_common():
    parts = source_split()
    counts = {name: Counter(label for _, label in own) for name, own in parts.items()}
    assert counts["train"] == {"negative": 100, "zero": 13, "positive": 335}
    assert counts["dev"] == {"negative": 43, "zero": 6, "positive": 143}
    assert counts["test"] == {"negative": 47, "zero": 2, "positive": 111}
    assert sorted(pair for own in parts.values() for pair in own) == sorted(expressions())
    assert source_split() == parts


def test_counting_says_nothing_of_two_numbers_but_successors():
    told = counting()
    assert set(" ".join(told).split()) == {*NUMBERS, "plus", "minus", "is"}
    for line in told:
        words = line.split()
        if "is" in words:
            assert words[2] == "one"
        else:
            places = [NUMBERS.index(word) for word in words]
            assert {b - a for a, b in pairwise(places)} in ({1}, {-1})
    tried = {text for text, _ in expressions()}
    assert not tried & set(told)
