"""Texts as vectors of few numbers, and what a classifier says of texts that it has not seen.

A vector is the TF-IDF of a text's n-grams in the 128 directions in which all texts, labelled or not, vary most (latent
semantic analysis, Deerwester et al. 1990). With few labels that learns more than the n-grams themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windtunnel.text.features import MOST_FEATURES, Floats, Ints, Kind, fit, weigh, weigher

DIMENSIONS = 128


def vectors(texts: Sequence[str], kind: Kind) -> Floats:
    """Rows of length 1 (or 0, for a text without any n-gram that others have), one a text, (N, at most 128).

    Args:
        kind: words, or the 1 to 4 characters that follow each other within a word.

    Raises:
        DataError: no text has a word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    counted = weigh(weigher(kind, len(texts), 1 if kind == "words" else 4, MOST_FEATURES), texts)
    if min(counted.shape) <= DIMENSIONS:
        return np.asarray(counted.toarray())
    directions = TruncatedSVD(DIMENSIONS, n_iter=3, random_state=0)
    return np.asarray(normalize(directions.fit_transform(counted)))


def scaled(features: Floats) -> Floats:
    """Vectors of a model (N, D) around their mean and at a length of 1 on average, as the classifiers here expect."""
    centred = features - features.mean(axis=0)
    return centred / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)


def out_of_fold(features: Floats, labels: Ints, n_classes: int, folds: int = 5, seed: int = 0) -> Floats:
    """Probabilities (N, n_classes) of each example by a classifier that has not seen it."""
    n = len(labels)
    fold = np.random.default_rng(seed).permutation(n) % min(folds, n)
    found = np.empty((n, n_classes))
    for k in np.unique(fold):
        found[fold == k] = fit(features[fold != k], labels[fold != k], n_classes)(features[fold == k])
    return found
