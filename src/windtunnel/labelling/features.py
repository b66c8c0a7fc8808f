"""Texts as vectors, and the classifier that is asked what it knows: logistic regression on them.

A vector is the TF-IDF of a text's n-grams in the 128 directions in which all texts, labelled or not, vary most (latent
semantic analysis, Deerwester et al. 1990). With few labels that learns more than the n-grams themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from windtunnel.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["words", "characters"]
MOST_FEATURES = 30_000
DIMENSIONS = 128
FEW_WORDS = 3
"""Where half of the texts have no more words than this, the characters say more."""


def kind_of_features(texts: Sequence[str]) -> Kind:
    """Characters for names and other short texts, words for all else."""
    return "characters" if statistics.median(len(text.split()) for text in texts) <= FEW_WORDS else "words"


def vectors(texts: Sequence[str], kind: Kind) -> Floats:
    """Rows of length 1 (or 0, for a text without any n-gram that others have), one a text, (N, at most 128).

    Args:
        kind: words, or the 1 to 4 characters that follow each other within a word.

    Raises:
        DataError: no text has a word.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    how: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (1, 4)}
    if kind == "words":
        how = {"token_pattern": r"(?u)\b\w+\b"}
    rare = 2 if len(texts) >= 1000 else 1
    weigher = TfidfVectorizer(sublinear_tf=True, min_df=rare, max_features=MOST_FEATURES, **how)
    try:
        counted = weigher.fit_transform(texts)
    except ValueError:
        raise DataError(f"none of the {len(texts):,} texts has a word; take --features characters") from None
    if min(counted.shape) <= DIMENSIONS:
        return np.asarray(counted.toarray())
    directions = TruncatedSVD(DIMENSIONS, n_iter=3, random_state=0)
    return np.asarray(normalize(directions.fit_transform(counted)))


def fit(features: Floats, labels: Ints, n_classes: int) -> Callable[[Floats], Floats]:
    """A function of features (N, F) that gives probabilities (N, n_classes).

    A class without examples has probability 0. Of one class alone, and of none, nothing is learned.
    """
    present = np.unique(labels)
    if len(present) < 2:
        alone = np.full(n_classes, 1 / n_classes) if len(present) == 0 else np.eye(n_classes)[present[0]]
        return lambda rows: np.tile(alone, (rows.shape[0], 1))
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=1000, tol=1e-3).fit(features, labels)

    def probabilities(rows: Floats) -> Floats:
        found = np.zeros((rows.shape[0], n_classes))
        found[:, model.classes_] = model.predict_proba(rows)
        return found

    return probabilities


def out_of_fold(features: Floats, labels: Ints, n_classes: int, folds: int = 5, seed: int = 0) -> Floats:
    """Probabilities (N, n_classes) of each example by a classifier that has not seen it."""
    n = len(labels)
    fold = np.random.default_rng(seed).permutation(n) % min(folds, n)
    found = np.empty((n, n_classes))
    for k in np.unique(fold):
        found[fold == k] = fit(features[fold != k], labels[fold != k], n_classes)(features[fold == k])
    return found
