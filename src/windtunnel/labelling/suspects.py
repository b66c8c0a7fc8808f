"""Labels that look wrong: a classifier that has not seen an example is sure of another label.

Confident learning, Northcutt, Jiang & Chuang 2021 (JAIR 70, sections 3.1 and 3.2), without pruning anything: a list to
check again, the least believed label first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.labelling.features import out_of_fold
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson
from windtunnel.text.features import Floats, Ints

PLANTED = 0.1
"""Share of the labels that are changed to see whether such errors are found."""


@dataclass(frozen=True)
class Suspect:
    """A label to check again. index: of the example. given, likely: the label it has, and the one it may be.

    believed: probability of the given label by a classifier that has not seen it; other: that of the likely one.
    """

    index: int
    given: int
    likely: int
    believed: float
    other: float


def suspects(probabilities: Floats, labels: Ints) -> list[Suspect]:
    """The labels that are confidently contradicted, the least believed first.

    A label j contradicts the given one where its probability is at least the mean probability of j among the examples
    labelled j (equation 2 of the source). Two kinds are left out that the source has: where the given label is the
    likeliest of all, since that of a rare j is soon above its mean; and a given label of probability 0, which the
    classifier has never seen. What is called likely is the likeliest label.

    Args:
        probabilities: out of fold, (N, C). labels: (N,).
    """
    counted = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.array([probabilities[labels == j, j].sum() for j in range(len(counted))])
    thresholds = np.where(counted > 0, sums / np.maximum(counted, 1), np.inf)
    sure = np.where(probabilities >= thresholds, probabilities, -1.0)
    contradicted = (sure.max(axis=1) >= 0) & (sure.argmax(axis=1) != labels)
    likely, given = probabilities.argmax(axis=1), probabilities[np.arange(len(labels)), labels]
    found = np.flatnonzero(contradicted & (likely != labels) & (given > 0))
    ordered = found[np.argsort(probabilities[found, labels[found]], kind="stable")]
    return [
        Suspect(int(i), int(labels[i]), int(likely[i]), float(probabilities[i, labels[i]]),
                float(probabilities[i, likely[i]]))
        for i in ordered
    ]  # fmt: skip


def least_believed(probabilities: Floats, labels: Ints) -> Ints:
    """All examples, the one whose label has the lowest probability first, (N,)."""
    return np.argsort(probabilities[np.arange(len(labels)), labels], kind="stable")


def planted(labels: Ints, n_classes: int, share: float, rng: np.random.Generator) -> Ints:
    """The labels with a share of them, chosen at random, changed to another class, each other one as likely."""
    wrong, changed = rng.permutation(len(labels))[: round(share * len(labels))], labels.copy()
    changed[wrong] = (labels[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return changed


def precision_on_planted(
    features: Floats, labels: Ints, share: float = PLANTED, checks: int = 20, seeds: int = 5, most: int = 2000
) -> Estimate:
    """The share of planted errors among the labels that are checked first, of all seeds together.

    Errors that were there already count as none, so that this is too low rather than too high where there are many.

    Args:
        share: of the labels that are changed. checks: how many of the least believed are looked at.
        most: examples that are drawn for each seed.
    """
    n_classes, hits = int(labels.max()) + 1, 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 2])
        drawn = rng.permutation(len(labels))[:most]
        changed = planted(labels[drawn], n_classes, share, rng)
        order = least_believed(out_of_fold(features[drawn], changed, n_classes, seed=seed), changed)[:checks]
        hits += int((changed != labels[drawn])[order].sum())
    return wilson(hits, seeds * min(checks, most, len(labels)))
