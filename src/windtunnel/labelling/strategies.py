"""Ways to choose what to label next: functions of what a classifier says of the unlabelled texts, and of their vectors.

A strategy gives the chosen texts, the first one first, and a score for each. Uncertainty: Lewis & Gale 1994, and
Scheffer et al. 2001 for the margin. Diversity: k-means++, Arthur & Vassilvitskii 2007. `cluster-margin` draws as
k-means++ does, with 1 - margin as weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.stats.digits import number
from windtunnel.text.features import Floats, Ints

CHUNK = 256  # rows whose distances to all others are held at once


@dataclass(frozen=True)
class Pool:
    """What can be chosen from.

    probabilities: (U, C) of the U unlabelled texts. features: (U, F), rows of length 1.
    labelled: (L, F), the features of what has a label already.
    """

    probabilities: Floats
    features: Floats
    labelled: Floats


Chosen = tuple[Ints, Floats]
"""Rows of the pool (n,), and the score of each (n,): higher is more wanted."""
Strategy = Callable[[Pool, int, np.random.Generator], Chosen]


def entropy(p: Floats) -> Floats:
    """Nats, (U,), of probabilities (U, C)."""
    return -np.sum(p * np.log(np.maximum(p, 1e-300)), axis=1)


def margin(p: Floats) -> Floats:
    """How far the two likeliest labels are apart, (U,)."""
    top = np.sort(p, axis=1)[:, -2:]
    return top[:, -1] - top[:, 0] if p.shape[1] > 1 else np.ones(len(p))


def by_score(score: Callable[[Floats], Floats]) -> Strategy:
    """The texts with the highest scores; chance orders those that are equal."""

    def choose(pool: Pool, n: int, rng: np.random.Generator) -> Chosen:
        scores = score(pool.probabilities)
        order = np.lexsort((rng.random(len(scores)), -scores))[:n]
        return order, scores[order]

    return choose


def spread(weight: Callable[[Floats], Floats] | None) -> Strategy:
    """k-means++ that goes on from what is labelled: each draw is in proportion to weight x squared distance.

    The distance is that to the nearest text that is labelled or drawn already. Without any such the first draw is in
    proportion to the weight alone.
    """

    def choose(pool: Pool, n: int, rng: np.random.Generator) -> Chosen:
        squares = _squares_to(pool.features, pool.labelled)
        weights = np.ones(len(squares)) if weight is None else weight(pool.probabilities)
        chosen, scores = [], []
        free = np.ones(len(squares), dtype=bool)
        for _ in range(min(n, len(squares))):
            wanted = np.where(free, weights * squares, 0.0)
            if wanted.sum() <= 1e-12:  # all that is left is a copy of something, or sure
                wanted = free.astype(float)
            i = int(rng.choice(len(wanted), p=wanted / wanted.sum()))
            chosen.append(i)
            scores.append(float(weights[i] * squares[i]))
            free[i] = False
            squares = np.minimum(squares, _squares_to(pool.features, pool.features[i : i + 1]))
        return np.array(chosen, dtype=np.int64), np.array(scores)

    return choose


def _squares_to(rows: Floats, centres: Floats) -> Floats:
    """Squared distance of each row to its nearest centre, (U,); 4, the largest there is, without centres."""
    nearest = np.full(len(rows), -1.0)  # cosine
    for first in range(0, len(centres), CHUNK):
        nearest = np.maximum(nearest, (rows @ centres[first : first + CHUNK].T).max(axis=1))
    return np.maximum(0.0, 2.0 - 2.0 * nearest)


RANDOM = "random"
STRATEGIES: Mapping[str, Strategy] = {
    RANDOM: by_score(lambda p: np.zeros(len(p))),
    "entropy": by_score(entropy),
    "margin": by_score(lambda p: 1 - margin(p)),
    "least-confidence": by_score(lambda p: 1 - p.max(axis=1)),
    "diverse": spread(None),
    "cluster-margin": spread(lambda p: 1 - margin(p)),
}

SAME_FOR_TWO = ("entropy", "least-confidence")
"""With two labels these choose what margin chooses."""


def different(n_classes: int) -> dict[str, Strategy]:
    """The strategies that can choose differently when there are so many labels."""
    return {name: one for name, one in STRATEGIES.items() if n_classes > 2 or name not in SAME_FOR_TWO}


def reason(strategy: str, p: Floats, score: float, classes: Sequence[str]) -> str:
    """Why a text was chosen: the number it was chosen by, and the labels that the classifier thinks likeliest.

    Args:
        p: its probabilities (C,).
    """
    if strategy == RANDOM:
        return "drawn at random"
    ranked = sorted(zip(p.tolist(), classes, strict=False), reverse=True)  # no classes where nothing is labelled yet
    likely = ", ".join(f"{name} {number(share, 2)}" for share, name in ranked[:2])
    said = {
        "entropy": f"entropy {number(score, 2)} nats",
        "margin": f"the likeliest labels are {number(1 - score, 2)} apart",
        "least-confidence": f"no label is likelier than {number(1 - score, 2)}",
        "diverse": f"squared distance {number(score, 2)} to the nearest labelled or chosen text",
        "cluster-margin": f"squared distance x (1 - margin) = {number(score, 2)}",
    }[strategy]
    return said if strategy == "diverse" else f"{said}: {likely}"
