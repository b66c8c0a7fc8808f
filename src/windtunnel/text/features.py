"""Texts as TF-IDF vectors of their n-grams, and logistic regression on any vectors: the baseline of a classifier."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from windtunnel.errors import DataError

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["words", "characters"]
MOST_FEATURES = 30_000
FEW_WORDS = 3
"""Where half of the texts have no more words than this, the characters say more."""
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""The C of logistic regression among which dev chooses."""


def kind_of_features(texts: Sequence[str]) -> Kind:
    """Characters for names and other short texts, words for all else."""
    return "characters" if statistics.median(len(text.split()) for text in texts) <= FEW_WORDS else "words"


def weigher(kind: Kind, n_texts: int, longest: int, most: int | None = None) -> TfidfVectorizer:
    """Counts the n-grams of 1 to `longest` words, or of characters within a word, and weighs them by TF-IDF.

    Of 1,000 texts or more an n-gram must stand in two. most: how many n-grams are kept; None is all.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    how: dict[str, Any] = {"analyzer": "char_wb"} if kind == "characters" else {"token_pattern": r"(?u)\b\w+\b"}
    rare = 2 if n_texts >= 1000 else 1
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, longest), min_df=rare, max_features=most, **how)


def weigh(weigher: TfidfVectorizer, texts: Sequence[str]) -> Any:
    """The vectors (N, n-grams) of the texts that it learns from, sparse. Raises DataError when no text has a word."""
    try:
        return weigher.fit_transform(texts)
    except ValueError:
        raise DataError(f"none of the {len(texts):,} texts has a word; take --features characters") from None


def fit(
    features: Any, labels: Ints, n_classes: int, penalty: float = 10.0, tolerance: float = 1e-3
) -> Callable[[Any], Floats]:
    """A function of features (N, F) that gives probabilities (N, n_classes).

    A class without examples has probability 0. Of one class alone, and of none, nothing is learned.

    Args:
        features: (N, F), an array or sparse.
        penalty: C, the inverse of the L2 penalty.
        tolerance: the solver stops at gradients below this.
    """
    present = np.unique(labels)
    if len(present) < 2:
        alone = np.full(n_classes, 1 / n_classes) if len(present) == 0 else np.eye(n_classes)[present[0]]
        return lambda rows: np.tile(alone, (rows.shape[0], 1))
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, max_iter=1000, tol=tolerance).fit(features, labels)

    def probabilities(rows: Any) -> Floats:
        found = np.zeros((rows.shape[0], n_classes))
        found[:, model.classes_] = model.predict_proba(rows)
        return found

    return probabilities


def linear_head(
    train: Floats, labels: Ints, dev: Floats, dev_labels: Ints, n_classes: int
) -> tuple[Floats, Floats, float]:
    """Logistic regression solved to convergence, as a linear layer: weights (n_classes, F), biases (n_classes,) and C.

    C is the one of PENALTIES with the lowest loss on dev; without dev texts it is 1. A class that no text of train has
    gets a bias that makes it improbable.

    Raises:
        DataError: when all texts of train have one label.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        raise DataError("all texts of the train split have one label, from which a head cannot be solved; give more")
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6

    def solved(penalty: float) -> tuple[Floats, Floats]:
        model = LogisticRegression(C=penalty, max_iter=5000, tol=1e-5).fit((train - mean) / spread, labels)
        coefficients, intercepts = model.coef_ / spread, model.intercept_ - (model.coef_ / spread) @ mean
        if len(model.classes_) == 2:  # one row is the second class against the first
            coefficients = np.vstack([-coefficients / 2, coefficients / 2])
            intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
        weights, biases = np.zeros((n_classes, train.shape[1])), np.full(n_classes, intercepts.min() - 30.0)
        weights[model.classes_], biases[model.classes_] = coefficients, intercepts
        return weights, biases

    def dev_loss(head: tuple[Floats, Floats]) -> float:
        logits = dev @ head[0].T + head[1]
        logits -= logits.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(dev)), dev_labels]))

    tried = {penalty: solved(penalty) for penalty in (PENALTIES if len(dev) else (1.0,))}
    best = min(tried, key=lambda penalty: dev_loss(tried[penalty])) if len(dev) else 1.0
    return (*tried[best], best)
