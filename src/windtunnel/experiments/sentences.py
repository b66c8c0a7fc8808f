"""A text of sentences as a small GPT reads it, with the true probability of every token (row 001-2).

A sentence of n tokens is one example: its first n - 1 tokens are read, its last n - 1 predicted. Nothing marks where it
begins or ends.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from windtunnel.errors import DataError
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.pets import next_tokens
from windtunnel.text.tokenizers import Tokenizer

Ids = tuple[int, ...]
Floats = npt.NDArray[np.float64]
BATCH, LONGEST = 4, 64
TRAINED = 0.8
"""The share of sentences that is trained on: the first ones, not shuffled."""


@dataclass(frozen=True)
class Sentences:
    """Sentences as ids, and what is known of them.

    judged: those on which a loss is compared with that of the truth.
    truth: after each beginning of a sentence (n,), from that of one token on, the true probabilities (n - 1, V).
    known: what the truth is, for people.
    """

    train: list[Ids]
    judged: list[Ids]
    truth: Callable[[Sequence[int]], Floats]
    known: str

    def true_losses(self) -> list[Floats]:
        """Nats of each predicted token of the judged sentences, under the truth: no model does better on average."""
        return [-np.log(self.truth(ids[:-1])[np.arange(len(ids) - 1), ids[1:]]) for ids in self.judged]


def read_sentences(corpus: str, tokenizer: Tokenizer, n_judged: int) -> Sentences:
    """The sentences of a corpus.

    The truth of `pets` is its grammar, and it is judged on sentences that were held out. Of another text it is how
    often each token follows each beginning in what is trained on, and that is judged too.

    Args:
        n_judged: the most sentences to judge on.

    Raises:
        DataError: when the text has fewer than 10 sentences of at least two tokens, or one of more than 64.
    """
    own = open_corpus(corpus)
    lines = own.read() if own.unit == "line" else split_sentences("".join(own.read()))
    ids = [tuple(row.tolist()) for row in tokenizer.encode_batch(list(lines)) if len(row) > 1]
    if len(ids) < 10:
        raise DataError(f"{corpus} has {len(ids)} sentences of two tokens or more; expected at least 10, each with '.'")
    if (longest := max(map(len, ids))) > LONGEST:
        raise DataError(f"{corpus} has a sentence of {longest} tokens; expected at most {LONGEST}: shorten or cut it")
    train, held_out = ids[: int(TRAINED * len(ids))], ids[int(TRAINED * len(ids)) :]
    if corpus == "pets":
        return Sentences(train, held_out[:n_judged], lambda ids: next_tokens(ids, tokenizer)[1:], "its grammar")
    frequencies = Frequencies(train, tokenizer.vocab_size)
    return Sentences(train, train[:n_judged], frequencies, "the frequencies of its trained sentences")


def split_sentences(text: str) -> list[str]:
    """The parts of a text that end with a full stop."""
    return [part for part in re.split(r"(?<=\.)\s+", text.strip()) if part]


class Frequencies:
    """How often each token follows each beginning of some sentences."""

    def __init__(self, sentences: Sequence[Ids], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.after: dict[Ids, Counter[int]] = defaultdict(Counter)
        for ids in sentences:
            for end in range(1, len(ids)):
                self.after[ids[:end]][ids[end]] += 1

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Shares (n, V) after ids[:1], ids[:2] ... ids; zeros after a beginning that none of the sentences has."""
        rows = np.zeros((len(ids), self.vocab_size))
        for row, end in zip(rows, range(1, len(ids) + 1), strict=True):
            found = self.after.get(tuple(ids[:end]), Counter[int]())
            for id, n in found.items():
                row[id] = n / found.total()
        return rows


def masked(losses: Sequence[Floats]) -> float:
    """The mean over all tokens, without padding."""
    return float(np.concatenate(losses).mean())


def diluted(losses: Sequence[Floats], size: int = BATCH) -> float:
    """The expected loss of a minibatch that counts its padding, which costs a trained model nothing, among the tokens.

    The minibatch is drawn with replacement. A sentence of l predicted tokens stands in one whose longest has at most m
    with probability (share of sentences of at most m) ^ (size - 1).
    """
    lengths = np.array([len(own) for own in losses])
    longest = np.unique(lengths)
    at_most = np.array([(lengths <= length).mean() for length in longest]) ** (size - 1)
    total = 0.0
    for own in losses:
        below = np.where(longest >= len(own), at_most, 0.0)
        chances = np.array([b - a for a, b in pairwise([0.0, *below])])
        total += own.sum() * (chances / longest).sum()
    return float(total / len(losses))


def minibatches(losses: Sequence[Floats], n: int, seed: int, size: int = BATCH) -> Floats:
    """The losses (n,) of minibatches drawn with replacement, which count their padding."""
    lengths, sums = np.array([len(own) for own in losses]), np.array([own.sum() for own in losses])
    drawn = np.random.default_rng(seed).integers(len(losses), size=(n, size))
    return np.asarray(sums[drawn].sum(1) / (size * lengths[drawn].max(1)))
