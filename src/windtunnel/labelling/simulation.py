"""What each strategy would have gained: labels that are known are hidden, and asked for in rounds.

Every seed draws held-out texts and the first labels, the same for all strategies; they differ in what they ask for from
then on. A strategy's score is its mean accuracy over the rounds, and its difference to random choice, seed by seed, is
judged as two arms of a comparison are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.verdict import Rule, Verdict, judge
from windtunnel.errors import ConfigError
from windtunnel.labelling.strategies import RANDOM, Pool, Strategy, different
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.features import Floats, Ints, fit

FEWEST = 40
"""Labelled texts below which nothing is simulated: too few are left to measure an accuracy on."""


@dataclass(frozen=True)
class Design:
    """What is simulated.

    rounds: how often a batch is asked for. batch: labels a round. start: labels before the first round, at random.
    held_out: texts that accuracy is measured on. margin: a difference of accuracy below it does not matter.
    """

    seeds: tuple[int, ...]
    rounds: int
    batch: int
    start: int
    held_out: int
    margin: float = 0.01

    @property
    def sizes(self) -> tuple[int, ...]:
        """Labels before the first round and after each, (R + 1,)."""
        return tuple(self.start + self.batch * i for i in range(self.rounds + 1))


@dataclass(frozen=True)
class Simulation:
    """What came out. accuracy: of each strategy on the held-out texts, (S, R + 1). everything: with all labels."""

    design: Design
    accuracy: Mapping[str, Floats]
    everything: Estimate
    verdicts: tuple[Verdict, ...]

    @property
    def scores(self) -> dict[str, Floats]:
        """Mean accuracy over the rounds, (S,)."""
        return {name: own[:, 1:].mean(axis=1) for name, own in self.accuracy.items()}

    @property
    def best(self) -> str:
        """The strategy with the largest gain of those that are shown to be better than random; else random."""
        better = [v for v in self.verdicts if v.word == "better"]
        return max(better, key=lambda v: v.difference.estimate).arm if better else RANDOM


def design(n: int, seeds: int, rounds: int, budget: int | None = None, margin: float = 0.01, first: int = 0) -> Design:
    """A design for n labelled texts: a third, at most 2,000, is held out, and at most half of the rest is asked for.

    Args:
        budget: labels in all rounds together; as many as there can be when not given, at most 400.

    Raises:
        ConfigError: fewer than `FEWEST` texts, fewer than 1 label a round, or a margin that is no share.
    """
    if not 0 < margin < 1:
        raise ConfigError(f"a margin is a difference of accuracy between 0 and 1, such as 0.01; given {margin}")
    if n < FEWEST:
        raise ConfigError(f"a simulation needs at least {FEWEST} labelled texts, given {n}; label some at random first")
    held_out = min(2000, n // 3)
    most = (n - held_out) // 2
    batch = min(most, budget or 400) // (rounds + 1)
    if batch < 1:
        raise ConfigError(
            f"{rounds} rounds need a budget of {rounds + 1} labels at least, and twice as many texts beside the "
            f"{held_out} held-out ones; given {n - held_out} texts, budget {budget or 'not set'}: take fewer rounds"
        )
    return Design(tuple(range(first, first + seeds)), rounds, batch, batch, held_out, margin)


def simulate(
    features: Floats,
    labels: Ints,
    design: Design,
    strategies: Mapping[str, Strategy] | None = None,
    shown: Callable[[int, int], None] = lambda done, total: None,
) -> Simulation:
    """Learning curves of all strategies, and their verdicts against random.

    Args:
        features: (N, F) of texts whose labels (N,), from 0 on, are all known.
        strategies: with "random" among them; those that can differ when not given.
        shown: told how many of the curves are done.
    """
    n_classes = int(labels.max()) + 1
    strategies = different(n_classes) if strategies is None else strategies
    total = len(design.seeds) * len(strategies)
    curves: dict[str, list[list[float]]] = {name: [] for name in strategies}
    everything = []
    for i, seed in enumerate(design.seeds):
        order = np.random.default_rng([seed, 0]).permutation(len(labels))
        test, rest = order[: design.held_out], order[design.held_out :]
        everything.append(_accuracy(features, labels, rest, test, n_classes))
        for j, (name, strategy) in enumerate(strategies.items()):
            shown(i * len(strategies) + j, total)
            rng = np.random.default_rng([seed, 1, j])
            curves[name].append(_curve(features, labels, (rest, test), strategy, design, n_classes, rng))
    accuracy = {name: np.array(own) for name, own in curves.items()}
    return Simulation(design, accuracy, mean_interval(everything), verdicts(accuracy, design.margin))


def verdicts(accuracy: Mapping[str, Floats], margin: float) -> tuple[Verdict, ...]:
    """Each strategy against random, with Holm's correction for several; accuracies (S, R + 1) by strategy."""
    scores = {name: own[:, 1:].mean(axis=1) for name, own in accuracy.items()}
    differences = {name: (own - scores[RANDOM]).tolist() for name, own in scores.items() if name != RANDOM}
    return tuple(judge(differences, Rule(margin, better="higher")))


def _curve(
    features: Floats, labels: Ints, parts: tuple[Ints, Ints], strategy: Strategy, design: Design, n_classes: int,
    rng: np.random.Generator,
) -> list[float]:  # fmt: skip
    """Accuracies at each of the design's sizes. parts: what can be asked for, in random order, and what is held out."""
    (rest, test), curve = parts, []
    known = np.arange(len(rest)) < design.start
    for round in range(design.rounds + 1):
        predict = fit(features[rest[known]], labels[rest[known]], n_classes)
        curve.append(float((predict(features[test]).argmax(axis=1) == labels[test]).mean()))
        if round < design.rounds:
            open_ = np.flatnonzero(~known)
            pool = Pool(predict(features[rest[open_]]), features[rest[open_]], features[rest[known]])
            known[open_[strategy(pool, design.batch, rng)[0]]] = True
    return curve


def _accuracy(features: Floats, labels: Ints, train: Ints, test: Ints, n_classes: int) -> float:
    predicted = fit(features[train], labels[train], n_classes)(features[test]).argmax(axis=1)
    return float((predicted == labels[test]).mean())


def encoded(labels: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Labels as numbers, and the label of each number: in the order of the alphabet."""
    classes, numbers = np.unique(np.array(labels, dtype=object), return_inverse=True)
    return numbers.astype(np.int64), tuple(str(name) for name in classes)
