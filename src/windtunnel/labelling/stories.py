"""A made-up world of stories from many sources, and three ways to choose those that a second version is trained on.

V1 was trained on stories of one source. Of a pool of labelled stories of all sources some are chosen to train V2:

1. those nearest to V1's decision boundary,
2. random ones,
3. of those that V1 gets wrong, the ones farthest from its boundary.

A story is `D` numbers: its source's own mean, drawn once with the standard deviation `shift`, and noise of standard
deviation 1. Its label is whether a rule, linear or with products of two numbers too, exceeds what leaves the wanted
share of positive stories; labels to learn from are wrong with a given chance, those that accuracy is measured on never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from windtunnel.text.features import Floats, Ints

D = 8
WAYS = (1, 2, 3)
CHUNK = 50_000
N_TEST = 20_000


@dataclass(frozen=True)
class World:
    """Where the stories come from.

    rule: linear or curved. shift: between sources. positive: share of positive stories.
    """

    rule: str = "curved"
    shift: float = 1.0
    positive: float = 0.5
    n_sources: int = 1000


@dataclass(frozen=True)
class Dials:
    """How V2 comes about.

    model: linear, or quadratic, which can learn a curved rule. penalty: on the squares of its weights, L2.
    wrong: share of wrong labels. kept: whether V1's stories stay in. chosen: stories of the pool that V2 is trained on;
    V1 was trained on as many.
    """

    model: str = "linear"
    penalty: float = 1.0
    wrong: float = 0.0
    kept: bool = False
    chosen: int = 500


def accuracies(world: World, dials: Sequence[Dials], pool: int, seed: int) -> list[list[float]]:
    """Accuracy of V1 and of V2 by ways 1, 2 and 3, for each of the dials, on stories of all sources.

    All have the same world and pool. Where V1 gets fewer stories wrong than are chosen, way 3 is filled up at random.
    """
    rng = np.random.default_rng([seed, 0])
    draw, label = _stories(world, rng)
    most = max(dial.chosen for dial in dials)
    first = draw(np.zeros(most, dtype=np.int64))
    test, stories = (draw(rng.integers(world.n_sources, size=n)) for n in (N_TEST, pool))
    truths = [label(rows) for rows in (first, test, stories)]
    found: dict[Dials, list[float]] = {}
    for dial in dict.fromkeys(replace(dial, kept=False) for dial in dials):
        model, n = dial.model, dial.chosen
        own = np.random.default_rng([seed, 1])  # the same stories are mislabelled in every model and budget
        known, labels = (truth ^ (own.random(len(truth)) < dial.wrong) for truth in (truths[0], truths[2]))
        v1 = logistic(design(first[:n], model), known[:n], dial.penalty)
        chosen = list(_choose(score(v1, stories, model), labels, n, own))
        for kept in (False, True):
            fits = [v1]
            for rows in chosen:
                x, y = stories[rows], labels[rows]
                if kept:
                    x, y = np.concatenate([first[:n], x]), np.concatenate([known[:n], y])
                fits.append(logistic(design(x, model), y, dial.penalty))
            right = (((score(w, test, model) > 0) == truths[1]).mean() for w in fits)
            found[replace(dial, kept=kept)] = list(map(float, right))
    return [found[dial] for dial in dials]


def design(stories: Floats, model: str) -> Floats:
    """What the model multiplies by weights: 1, the numbers, and for `quadratic` their products; (N, 1 + D [+ ...])."""
    ones = np.ones((len(stories), 1))
    if model == "linear":
        return np.hstack([ones, stories])
    i, j = np.triu_indices(stories.shape[1])
    return np.hstack([ones, stories, stories[:, i] * stories[:, j]])


def logistic(x: Floats, y: np.ndarray, penalty: float, steps: int = 50) -> Floats:
    """Weights of a logistic regression by Newton's method.

    Args:
        y: 0 or 1, (N,). penalty: half of it times the squares of all weights is added to the loss.
    """
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        p = expit(x @ weights)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty * np.eye(len(weights))
        step = np.linalg.solve(hessian, x.T @ (p - y) + penalty * weights)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def score(weights: Floats, stories: Floats, model: str) -> Floats:
    """The logit of each story, (N,); above 0 it is called positive."""
    parts = (stories[first : first + CHUNK] for first in range(0, len(stories), CHUNK))
    return np.concatenate([design(part, model) @ weights for part in parts])


def _stories(
    world: World, rng: np.random.Generator
) -> tuple[Callable[[Ints], Floats], Callable[[Floats], np.ndarray]]:  # fmt: skip
    """A function that draws a story of each of some sources, and the rule."""
    means = world.shift * rng.normal(size=(world.n_sources, D))
    linear = rng.normal(size=D) / np.sqrt(D)
    bent = rng.normal(size=(D, D)) * (0.3 / D if world.rule == "curved" else 0.0)

    def draw(sources: Ints) -> Floats:
        return means[sources] + rng.normal(size=(len(sources), D))

    def value(stories: Floats) -> Floats:
        return stories @ linear + ((stories @ bent) * stories).sum(axis=1)

    threshold = np.quantile(value(draw(rng.integers(world.n_sources, size=N_TEST))), 1 - world.positive)
    return draw, lambda stories: value(stories) > threshold


def _choose(logits: Floats, labels: np.ndarray, n: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Rows of the pool by ways 1, 2 and 3, each (n,)."""
    sure = np.abs(logits)
    yield np.argpartition(sure, n)[:n]
    yield rng.choice(len(logits), n, replace=False)
    wrong = np.flatnonzero((logits > 0) != labels)
    most = wrong[np.argsort(-sure[wrong], kind="stable")[:n]]
    others = np.setdiff1d(np.arange(len(logits)), most) if len(most) < n else most
    yield np.concatenate([most, rng.choice(others, n - len(most), replace=False)])
