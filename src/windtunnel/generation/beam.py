"""Beam search: the most probable ends of several rows at once, and of each row as many as are wanted.

Every live hypothesis is continued by every token. Of all continuations of a row, those among the `width` best that
end are finished and leave the batch, and the `width` best that do not end go on, except those that can no longer come
among the wanted. A row is done when `width` of its hypotheses have finished, or none goes on. A width of 1 is greedy
decoding; a width of all continuations finds the best of all texts.

Hypotheses of one length compete by their probability, finished ones by their score: Wu et al. 2016 (arXiv 1609.08144),
equation 14, without its second term, which is about coverage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.generation.decode import Ids, Reader, forbid
from windtunnel.generation.sampling import Floats, best, log_softmax


@dataclass(frozen=True)
class Beam:
    """How wide the search is, how many it gives, and how it compares short with long.

    Raises:
        ConfigError: for a width or a number wanted below 1, more wanted than wide, or a negative length penalty.
    """

    width: int = 1
    """Hypotheses of each row that go on; 1 is greedy."""
    wanted: int = 1
    """Hypotheses that are given of each row, at most."""
    length_penalty: float = 0.6
    """The exponent alpha of `penalty`, 0 for none; 0.6 is that of Vaswani et al. 2017 (arXiv 1706.03762, 6.1)."""

    def __post_init__(self) -> None:
        if min(self.width, self.wanted) < 1:
            raise ConfigError(f"beam and alternatives must be at least 1, given {self.width} and {self.wanted}")
        if self.wanted > self.width:
            raise ConfigError(
                f"a beam of {self.width} finds no more than {self.width}, and alternatives is {self.wanted}; "
                f"give a beam of at least {self.wanted}"
            )
        if not 0 <= self.length_penalty < math.inf:
            raise ConfigError(f"the length penalty must be a number of at least 0, given {self.length_penalty}")

    def penalty(self, n_tokens: int) -> float:
        """((5 + n) / 6)^alpha of n tokens, the end mark counted; 1 for a single token."""
        return float(((5 + n_tokens) / 6) ** self.length_penalty)


@dataclass(frozen=True)
class Hypothesis:
    """What may follow a row."""

    ids: tuple[int, ...]
    """Its tokens, the end mark with them."""
    log_probability: float
    """The natural logarithm of the probability of all of them together, given the row."""
    score: float
    """log_probability / penalty(n_tokens)."""
    complete: bool
    """Whether it ends with the end mark; if not, there was no room for more."""


class Continuations(NamedTuple):
    """Hypotheses and one more token each: those of a row stand together, the most probable first."""

    source_C: Ids
    """The row of the search that each belongs to."""
    live_C: Ids
    """The live hypothesis it continues."""
    id_C: Ids
    total_C: Floats
    """The natural logarithm of its probability."""

    def take(self, which: np.ndarray) -> Continuations:
        return Continuations(*(values_C[which] for values_C in self))

    def first(self, n: int) -> np.ndarray:
        """Whether each is among the first n of its row, (C,)."""
        return np.asarray(np.arange(len(self.source_C)) - self.source_C.searchsorted(self.source_C) < n)


def search(
    reader: Reader, rows_ST: Ids, end: int, room: int, beam: Beam, vocab_size: int | None = None
) -> list[list[Hypothesis]]:
    """What follows each of S rows: at most `beam.wanted` hypotheses, the best first.

    Complete ones come before those that have filled the room, then the higher score, then the lower ids.

    Args:
        reader: of these rows; it has read nothing yet.
        end: the id of the end mark.
        room: how many tokens may follow, at least one, the end mark counted.
        vocab_size: ids from here on are never taken: a model may have more rows than its tokenizer has tokens.
    """
    found: list[list[Hypothesis]] = [[] for _ in rows_ST]
    least_S = np.full(len(rows_ST), -np.inf)
    source_B, total_B = np.arange(len(rows_ST)), np.zeros(len(rows_ST))
    unread_BT, written_BN = rows_ST, np.empty((len(rows_ST), 0), dtype=np.int64)
    for n in range(1, room + 1):
        all_C = continuations(forbid(reader.read(unread_BT), vocab_size), source_B, total_B, beam.width)
        ends_C = all_C.id_C == end
        ended, on = all_C.take(ends_C & all_C.first(beam.width)), all_C.take(~ends_C)
        _note(found, ended, written_BN, beam.penalty(n), True)
        for source in set(ended.source_C.tolist()):
            least_S[source] = _least(found[source], beam)
        on = on.take(on.first(beam.width) & (on.total_C / beam.penalty(room) >= least_S[on.source_C]))
        if n == room:
            _note(found, on, written_BN, beam.penalty(n), False)
        if n == room or not len(on.id_C):
            break
        if not np.array_equal(on.live_C, np.arange(len(source_B))):
            reader.keep(on.live_C)
        source_B, total_B, unread_BT = on.source_C, on.total_C, on.id_C[:, None]
        written_BN = np.hstack([written_BN[on.live_C], unread_BT])
    return [sorted(some, key=lambda one: (not one.complete, -one.score, one.ids))[: beam.wanted] for some in found]


def continuations(logits_BV: Floats, source_B: Ids, total_B: Floats, width: int) -> Continuations:
    """The continuations that can be among the first `width` of a row, or among its first that do not end.

    Equals stand as their live hypotheses do, and those of one hypothesis by their logit, then the lower id first. So
    a width of 1 takes what greedy decoding takes, also where a sum of logarithms cannot tell two tokens apart.
    """
    id_BK = best(logits_BV, width + 1)  # of each hypothesis only one continuation ends
    total_BK = total_B[:, None] + np.take_along_axis(log_softmax(logits_BV), id_BK, axis=1)
    live_BK = np.repeat(np.arange(len(id_BK))[:, None], id_BK.shape[1], axis=1)
    all_C = Continuations(source_B[live_BK.ravel()], live_BK.ravel(), id_BK.ravel(), total_BK.ravel())
    order = np.lexsort((-all_C.total_C, all_C.source_C))  # stable
    return all_C.take(order[all_C.total_C[order] > -np.inf])


def _least(found: list[Hypothesis], beam: Beam) -> float:
    """The score that a further hypothesis must reach to come among the wanted; none does when enough have ended."""
    if len(found) >= beam.width:
        return math.inf
    scores = sorted((one.score for one in found), reverse=True)
    return scores[beam.wanted - 1] if len(scores) >= beam.wanted else -math.inf


def _note(found: list[list[Hypothesis]], new: Continuations, written_BN: Ids, penalty: float, complete: bool) -> None:
    for source, live, id, total in zip(*(values_C.tolist() for values_C in new), strict=True):
        found[source].append(Hypothesis((*written_BN[live].tolist(), id), total, total / penalty, complete))
