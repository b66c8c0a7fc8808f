"""Pig Latin: the rule in its hard cases, the bundled words, and the kinds of hard words."""

import gzip
import hashlib
import re
import runpy
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.errors import DataError
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.pig_latin import (
    FILE,
    N_LARGE,
    N_SMALL,
    SLICES,
    made_words,
    move_one_letter,
    pig_latin,
    slices,
    words,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_pig_latin.py"


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("air", "airway"),  # vowels
        ("i", "iway"),
        ("king", "ingkay"),  # consonants
        ("street", "eetstray"),
        ("schemes", "emesschay"),
        ("queen", "eenquay"),  # qu
        ("square", "aresquay"),
        ("quy", "yquay"),
        ("quay", "ayquay"),
        ("equal", "equalway"),
        ("qatar", "atarqay"),
        ("yet", "yetay"),  # y at the beginning, inside and alone
        ("years", "yearsay"),
        ("yttrium", "yttriumay"),
        ("rhyme", "ymerhay"),
        ("my", "ymay"),
        ("y", "yay"),
        ("nth", "nthay"),  # no vowel
        ("q", "qay"),
        ("well-known", "ellway-ownknay"),  # hyphens
        ("a-b--c", "away-bay--cay"),
        ("-", "-"),
        ("", ""),
        ("The cat, sir!", "ethay atcay, irsay!"),  # what is no letter stays
    ],
)
def test_the_rule(english, expected):
    assert pig_latin(english) == expected


def test_a_sentence():
    assert pig_latin("the air conditioning is working") == "ethay airway onditioningcay isway orkingway"


def plainly(word: str) -> str:
    """The rule letter by letter."""
    if word[0] in "aeiou":
        return word + "way"
    n = 0
    while n < len(word) and word[n] not in "aeiouy":
        if word[n : n + 2] == "qu":
            n += 2
            break
        n += 1
    return word[n:] + word[:n] + "ay"


@given(st.text("aeyqub", min_size=1, max_size=8))
def test_the_rule_letter_by_letter(word):
    assert pig_latin(word) == plainly(word)


def test_the_bundled_words():
    """Numbers measured on these corpora hold only while the words stay the same."""
    data = gzip.decompress(FILE.read_bytes())
    assert hashlib.sha256(data).hexdigest() == "e492838c59e202a5e6d9446ddc36d72f1f7f1f39baeb53b52e9408448d9c012e"
    assert len(FILE.read_bytes()) < 150_000
    found = data.decode().splitlines()
    assert found == list(words())
    assert len(found) == len(set(found)) == N_LARGE == 22_402
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", word) for word in found)
    assert found[:3] == ["prince", "of", "by"]


@pytest.mark.parametrize(("name", "n", "mean"), [("pig-latin", 22_402, 19.68), ("pig-latin-small", 3_198, 16.83)])
def test_the_corpora(name, n, mean):
    corpus = open_corpus(name)
    assert (corpus.unit, corpus.fields) == ("line", ("source", "target"))
    assert "public domain" in corpus.licence
    pairs = [corpus.split(document) for document in corpus.read()]
    assert [source for source, _ in pairs] == list(words(n))
    assert all(target == plainly_by_part(source) for source, target in pairs)
    lengths = [len(source) + 1 + len(target) + 1 for source, target in pairs]  # with a turn and an end mark
    assert sum(lengths) / n == pytest.approx(mean, abs=0.005)
    for unit in ("text", "file"):
        with pytest.raises(DataError, match=f"{name} is .*unit="):
            open_corpus(name, unit)


def plainly_by_part(word: str) -> str:
    return "-".join(plainly(part) for part in word.split("-"))


def test_small_is_the_beginning_of_large():
    assert N_SMALL == 3_198
    assert list(words(N_SMALL)) == list(words())[:N_SMALL]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("king", ()),
        ("air", ("vowel",)),
        ("street", ("cluster",)),
        ("queen", ("qu",)),
        ("square", ("cluster", "qu")),
        ("equal", ("vowel",)),
        ("yet", ("y",)),
        ("rhyme", ("cluster", "y")),
        ("say", ()),
        ("well-known", ("cluster", "hyphen")),
        ("self-assured", ("vowel", "hyphen")),
        ("abcdefghijkl", ("vowel", "long")),
        ("abcdefghijk", ("vowel",)),
        ("tragical-comi", ("cluster", "hyphen", "long")),
        ("tragical-com", ("cluster", "hyphen")),
    ],
)
def test_slices(word, expected):
    assert slices(word) == expected


def test_every_slice_is_in_the_small_corpus():
    counts = Counter(name for word in words(N_SMALL) for name in slices(word))
    assert set(counts) == set(SLICES)
    assert min(counts.values()) >= 20


def test_moving_one_letter_is_right_for_three_words_of_four():
    assert move_one_letter("the well-known air") == "hetay ellway-nownkay airway"
    for n, share in [(N_SMALL, 0.7577), (N_LARGE, 0.7588)]:
        assert sum(move_one_letter(word) == pig_latin(word) for word in words(n)) / n == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize("name", SLICES)
def test_made_up_words_belong_to_their_slice_and_are_no_real_ones(name):
    made = list(islice(made_words(name), 300))
    assert made == list(islice(made_words(name), 300))
    assert len(set(made)) == 300
    assert not set(made) & set(words())
    assert all(name in slices(word) and re.fullmatch("[a-z]+(-[a-z]+)*", word) for word in made)
    assert max(map(len, made)) <= max(map(len, words()))


def test_the_script_takes_words_in_order_and_by_frequency():
    choose = runpy.run_path(str(SCRIPT))["choose"]
    works = {
        "hamlet": "Ham. 'Tis the king's mouse--a well-known mouse, th' end. XII",
        "lear": "LEAR. Nothing but nothing but a Fool; a fool but brrr Cordelia, Cordelia. Regan.",
    }
    assert choose(works, "hamlet", 3, 9) == ["the", "king", "mouse", "a", "but", "fool", "nothing", "end", "well-known"]
    assert choose(works, "hamlet", 3, 10)[9:] == ["cordelia"]
    with pytest.raises(SystemExit, match="only 6 words in hamlet and 10 in all"):
        choose(works, "hamlet", 3, 12)
