"""How right a set of written targets is: exact match, and edits of a character or a word of the right target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from windtunnel.inspect.edit_distance import edit_distance
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson

FEWEST = 30
"""Sources; of fewer a rate is too uncertain to say something of them."""


@dataclass(frozen=True)
class Score:
    """What holds of some sources. Intervals are 95 %: Wilson's of exact match, of the others by the bootstrap.

    n: the sources. exact: the share whose target is right as a whole (1 - it is the word error rate). edits: per
    character of the right targets; tokens: per phoneme or word of them, None where targets are not counted so.
    loss: nats per token of the right targets, None for what no model wrote.
    """

    name: str
    n: int
    exact: Estimate
    edits: Estimate
    tokens: Estimate | None
    loss: float | None = None

    @property
    def enough(self) -> bool:
        """Whether there are enough sources to say something of them."""
        return self.n >= FEWEST


@dataclass(frozen=True)
class Answers:
    """What was written for each source, and what is right.

    exact: (n,) bool. edits, lengths: (n,) int64, from what was written to the nearest right target, and its characters;
    tokens, token_lengths: the same of what stands between spaces.
    """

    exact: npt.NDArray[np.bool_]
    edits: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    token_lengths: npt.NDArray[np.int64]

    def score(self, name: str, chosen: npt.NDArray[np.bool_], in_tokens: bool) -> Score:
        """Of the sources that are chosen, (n,) bool with one at least."""
        n = int(chosen.sum())
        tokens = _rate(self.tokens[chosen], self.token_lengths[chosen]) if in_tokens else None
        edits = _rate(self.edits[chosen], self.lengths[chosen])
        return Score(name, n, wilson(int(self.exact[chosen].sum()), n), edits, tokens)


def compare_answers(
    written: Sequence[str],
    right: Sequence[Sequence[str]],
    complete: Sequence[bool] | None = None,
    counted: Callable[[str], str] = str,
) -> Answers:
    """Compare what was written with the nearest of the right targets of each source.

    Args:
        complete: whether what was written ended; what did not is wrong, whatever it says.
        counted: what of a target counts; by default all of it.
    """
    texts = [counted(text) for text in written]
    answers = [[counted(text) for text in targets] for targets in right]
    ended = [True] * len(texts) if complete is None else complete
    exact = [end and text in targets for end, text, targets in zip(ended, texts, answers, strict=True)]
    letters = _nearest(texts, answers)
    words = _nearest([text.split() for text in texts], [[t.split() for t in targets] for targets in answers])
    return Answers(np.array(exact, bool), *letters, *words)


def _nearest(
    written: Sequence[Sequence[str]], right: Sequence[Sequence[Sequence[str]]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The fewest edits (n,) to one of the right targets, and its length (n,): of equally near ones the first."""
    pairs = zip(written, right, strict=True)
    found = [
        min(((edit_distance(one, t), len(t)) for t in targets), key=lambda pair: pair[0]) for one, targets in pairs
    ]
    edits, lengths = np.array(found, np.int64).reshape(-1, 2).T
    return edits, lengths


def _rate(edits: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Estimate:
    """Edits by length, both summed. No interval where no resample has another rate, or one may be of no length."""
    if edits.any() and lengths.min() > 0:
        return replace(ratio_of_sums_interval(edits, lengths), method="edits by length, 95 % BCa bootstrap interval")
    reason = "no interval: a target is empty" if edits.any() else "no interval: no edit in any resample"
    rate = float(edits.sum() / lengths.sum()) if lengths.any() else math.nan
    return Estimate(rate, math.nan, math.nan, len(edits), f"edits by length, {reason}")
