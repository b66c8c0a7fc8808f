"""The corpus `pets`: sentences of a small grammar whose true probabilities are known exactly.

    He and I can hold the small cat.        She feeds and washes a quiet dog and white horse.

The grammar is a deterministic finite automaton given as data, `GRAMMAR`: state -> [(probability, word, next
state)], the words of a state all different, no cycles. So the distribution of the next word after any
beginning, the entropy of a sentence and the lowest loss that any model can reach are all exact sums over its
arcs. Subject and verb agree in number, a second verb or noun differs from the first, `can` and `will` take
the plain verb.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from windtunnel.errors import DataError
from windtunnel.text.corpora.corpus import Corpus, Truth, Unit, reader

if TYPE_CHECKING:
    from windtunnel.text.tokenizers import Tokenizer

N_SENTENCES = 20_000
SEED = 1234
START, LAST, END = "start", "last", "<end>"

Arc = tuple[float, str, str]  # probability, word, next state
Grammar = dict[str, list[Arc]]

PLAIN: Literal[0] = 0
SINGULAR: Literal[1] = 1

# verb, its third person singular, how often it is chosen; likewise the nouns and adjectives
VERBS = [
    ("hold", "holds", 0.20),
    ("rub", "rubs", 0.16),
    ("feed", "feeds", 0.14),
    ("wash", "washes", 0.12),
    ("see", "sees", 0.12),
    ("brush", "brushes", 0.10),
    ("call", "calls", 0.08),
    ("carry", "carries", 0.08),
]
NOUNS = [
    ("cat", 0.18),
    ("dog", 0.18),
    ("rabbit", 0.12),
    ("horse", 0.10),
    ("bird", 0.10),
    ("mouse", 0.08),
    ("goat", 0.08),
    ("pony", 0.06),
    ("hamster", 0.05),
    ("duck", 0.05),
]
ADJECTIVES = [
    ("small", 0.20),
    ("big", 0.16),
    ("brown", 0.14),
    ("black", 0.12),
    ("white", 0.12),
    ("happy", 0.10),
    ("sleepy", 0.08),
    ("quiet", 0.08),
]


def _grammar() -> Grammar:
    """The automaton, with the states that remember the first verb and the first noun spelled out."""
    grammar: Grammar = {
        START: [
            (0.20, "I", "plural"),
            (0.10, "You", "plural"),
            (0.13, "We", "plural"),
            (0.13, "They", "plural"),
            (0.22, "He", "after He"),
            (0.22, "She", "after She"),
        ],
        "after He": [(0.30, "and", "He and"), *_scaled(0.70, _verb_phrase(SINGULAR))],
        "after She": [(0.30, "and", "She and"), *_scaled(0.70, _verb_phrase(SINGULAR))],
        "He and": [(0.60, "I", "plural"), (0.40, "she", "plural")],
        "She and": [(0.60, "I", "plural"), (0.40, "he", "plural")],
        "plural": _verb_phrase(PLAIN),
        "after modal": _verbs(PLAIN),
        "object": [(0.45, "a", "noun phrase"), (0.55, "the", "noun phrase")],
        "noun phrase": [
            *((0.70 * p, adjective, "noun") for adjective, p in ADJECTIVES),
            *((0.30 * p, noun, f"after {noun}") for noun, p in NOUNS),
        ],
        "noun": [(p, noun, f"after {noun}") for noun, p in NOUNS],
        "after second noun": [(1.0, ".", LAST)],
    }
    for form in (PLAIN, SINGULAR):
        for verb in VERBS:
            word, p = verb[form], verb[2]
            grammar[f"after {word}"] = [(0.30, "and", f"{word} and"), *_scaled(0.70, grammar["object"])]
            rest = [other for other in VERBS if other != verb]
            grammar[f"{word} and"] = [(other[2] / (1 - p), other[form], "object") for other in rest]
    for noun, p in NOUNS:
        grammar[f"after {noun}"] = [(0.50, ".", LAST), (0.50, "and", f"{noun} and")]
        others = [(q / (1 - p), other, "after second noun") for other, q in NOUNS if other != noun]
        adjectives = [(q, adjective, f"{noun} and adjective") for adjective, q in ADJECTIVES]
        grammar[f"{noun} and"] = [*_scaled(0.50, adjectives), *_scaled(0.50, others)]
        grammar[f"{noun} and adjective"] = others
    return grammar


def _verb_phrase(form: Literal[0, 1]) -> list[Arc]:
    return [(0.25, "can", "after modal"), (0.15, "will", "after modal"), *_scaled(0.60, _verbs(form))]


def _verbs(form: Literal[0, 1]) -> list[Arc]:
    return [(verb[2], verb[form], f"after {verb[form]}") for verb in VERBS]


def _scaled(share: float, arcs: list[Arc]) -> list[Arc]:
    return [(share * p, word, state) for p, word, state in arcs]


GRAMMAR: Grammar = _grammar()


def pets_corpus(unit: Unit = "line") -> Corpus:
    """20,000 sentences drawn with a fixed seed, one a line; the same on every machine and Python version."""

    def parts() -> Iterator[Iterator[str]]:
        yield (f"{sentence}\n" for sentence in sentences(N_SENTENCES, SEED))

    return Corpus(
        name="pets",
        unit=unit,
        description="20,000 sentences of a small grammar with known probabilities",
        licence="Apache-2.0 (windtunnel's own)",
        origin=f"generated, seed {SEED}",
        read=reader(parts, unit),
        truth=Truth(entropy_floor, next_token) if unit == "line" else None,  # else a token's sentence is not marked
    )


def sentences(n: int, seed: int) -> Iterator[str]:
    """`n` independent sentences as text."""
    generator = random.Random(seed)
    return (as_text(sample_words(generator)) for _ in range(n))


def sample_words(generator: random.Random) -> list[str]:
    """The words of one random sentence, "." the last."""
    words, state = [], START
    while state != LAST:
        # random() keeps its sequence over Python versions; choices() does not promise that.
        point, arcs = generator.random(), GRAMMAR[state]
        i = 0
        while i < len(arcs) - 1 and point >= arcs[i][0]:
            point -= arcs[i][0]
            i += 1
        _, word, state = arcs[i]
        words.append(word)
    return words


def as_text(words: Sequence[str]) -> str:
    """A sentence as it is written: a space between words, none before the full stop."""
    return "".join(word if i == 0 else _piece(word) for i, word in enumerate(words))


def next_word(words: Sequence[str]) -> dict[str, float]:
    """The true distribution of the word after the beginning of a sentence; {"<end>": 1.0} after the stop.

    A beginning that the grammar cannot produce gives {}.
    """
    state = START
    for given in words:
        following = [target for _, word, target in GRAMMAR.get(state, []) if word == given]
        if not following:
            return {}
        state = following[0]
    return {END: 1.0} if state == LAST else {word: p for p, word, _ in GRAMMAR[state]}


def expected_words() -> float:
    """The mean number of words of a sentence, the full stop counted as one."""
    return math.fsum(_visits(state) for state in GRAMMAR)


def sentence_entropy() -> float:
    """The entropy of a sentence in nats: over all states, visits times the entropy of the arcs."""
    return math.fsum(_visits(state) * -math.fsum(p * math.log(p) for p, _, _ in GRAMMAR[state]) for state in GRAMMAR)


def word_entropy() -> float:
    """The lowest loss a word, in nats, that a model of the words can reach, the full stop counted as one."""
    return sentence_entropy() / expected_words()


def entropy_floor(tokenizer: Tokenizer) -> float:
    """The lowest loss a token, in nats, when all tokens of a sentence and the end mark are predicted.

    It is the mean over all tokens, as a loss that weighs every token alike. Exact for every tokenizer that
    encodes each word, with the space before it, by itself.
    """
    arcs = _token_arcs(tokenizer)
    tokens = math.fsum(_visits(state) * p * len(ids) for state in GRAMMAR for p, ids, _ in arcs[state])
    return sentence_entropy() / (tokens + 1)


def next_token(prefix_ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> npt.NDArray[np.float64]:
    """The true distribution of the token after the beginning of a sentence, (vocab_size,).

    `prefix_ids` is what stands after the end mark that begins the document (that mark itself may be given,
    too); after the mark that ends a sentence the next sentence begins. A prefix that the grammar cannot
    produce gives zeros. Exact for tokenizers as in `entropy_floor`.

    Raises:
        DataError: when the tokenizer has no end mark or no token for a character of the grammar.
    """
    row: npt.NDArray[np.float64] = next_tokens(prefix_ids, tokenizer)[-1]
    return row


def next_tokens(ids: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> npt.NDArray[np.float64]:
    """`next_token` after each beginning of `ids`: row i follows ids[:i].

    The result is (len(ids) + 1, vocab_size). The words that the tokens so far may be part of (" c" may become
    " can" or " call") are followed all at once, each with its probability.
    """
    arcs = _token_arcs(tokenizer)
    rows = np.zeros((len(ids) + 1, tokenizer.vocab_size))
    open_words = arcs[START]
    for i in range(len(ids) + 1):
        if i > 0:
            begins = i == 1 and ids[0] == tokenizer.end_id
            open_words = arcs[START] if begins else _advance(open_words, ids[i - 1], arcs)
        # Divided by the total at every token, so that a long text does not underflow.
        total = math.fsum(p for p, _, _ in open_words)
        open_words = [(p / total, tokens, state) for p, tokens, state in open_words]
        for p, tokens, _ in open_words:
            rows[i, tokens[0]] += p
    return rows


TokenArc = tuple[float, tuple[int, ...], str]  # probability, the word's tokens still to come, next state


def _advance(open_words: list[TokenArc], given: int, arcs: dict[str, list[TokenArc]]) -> list[TokenArc]:
    """The words that may be open after one more token, their probabilities not yet divided by the sum.

    Each has at least one token still to come: where a word is complete, all words that may follow are open.
    """
    after: list[TokenArc] = []
    for p, tokens, state in open_words:
        if tokens[0] == given and len(tokens) > 1:
            after.append((p, tokens[1:], state))
        elif tokens[0] == given:
            after += [(p * q, following, to) for q, following, to in arcs[state]]
    return after


def _token_arcs(tokenizer: Tokenizer) -> dict[str, list[TokenArc]]:
    """The grammar with tokens in place of words; from the last state the end mark leads back to the start."""
    if tokenizer.end_id is None:
        raise DataError("the sentences of pets are documents, and this tokenizer has no end mark to divide them")
    ids: dict[str, tuple[int, ...]] = {}

    def encode(piece: str) -> tuple[int, ...]:
        if piece not in ids:
            ids[piece] = tuple(int(i) for i in tokenizer.encode(piece))
        return ids[piece]

    arcs: dict[str, list[TokenArc]] = {LAST: [(1.0, (tokenizer.end_id,), START)]}
    for state, words in GRAMMAR.items():
        arcs[state] = [(p, encode(word if state == START else _piece(word)), to) for p, word, to in words]
    return arcs


def _piece(word: str) -> str:
    """A word as it stands in a sentence, not at its beginning."""
    return word if word == "." else f" {word}"


@cache
def _visits(state: str) -> float:
    """How often a sentence passes through a state on average: a recursion over the arcs that lead there."""
    if state == START:
        return 1.0
    return math.fsum(_visits(origin) * p for origin in GRAMMAR for p, _, to in GRAMMAR[origin] if to == state)
