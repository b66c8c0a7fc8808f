"""Whether stated probabilities come true: calibration error, reliability, a temperature, and answers to the surest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats
from windtunnel.stats.proportions import wilson

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Predictions by their confidence, in bins of equal width; those without predictions are left out.

    confidence: the mean of each bin (b,). accuracy: the share that was right (b,). n: predictions (b,).
    """

    confidence: Floats
    accuracy: Floats
    n: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: |accuracy - confidence|, weighted by n (Naeini et al. 2015)."""
        return float(np.abs(self.accuracy - self.confidence) @ self.n / self.n.sum())


@dataclass(frozen=True)
class Answered:
    """Predictions of which only those are given whose probability reaches a threshold (Chow 1970).

    share: of all texts, those that are answered. accuracy: the share of these that is right; None where there is none.
    Both with Wilson's interval.
    """

    threshold: float
    share: Estimate
    accuracy: Estimate | None


def answered(probabilities: Floats, labels: npt.NDArray[np.int64], threshold: float) -> Answered:
    """What a threshold leaves of predictions; probabilities (N, L), labels (N,)."""
    sure = probabilities.max(axis=1) >= threshold
    n, right = int(sure.sum()), probabilities.argmax(axis=1) == labels
    return Answered(threshold, wilson(n, len(sure)), wilson(int(right[sure].sum()), n) if n else None)


def surest(probabilities: Floats, labels: npt.NDArray[np.int64], shares: Sequence[float]) -> tuple[Answered, ...]:
    """`answered` at the thresholds that leave these shares of the texts, or where texts are equally sure, more."""
    ranked = np.sort(probabilities.max(axis=1))[::-1]
    places = [min(len(ranked), max(1, round(share * len(ranked)))) - 1 for share in shares]
    return tuple(answered(probabilities, labels, float(ranked[place])) for place in places)


def reliability(probabilities: Floats, labels: npt.NDArray[np.int64], bins: int = BINS) -> Reliability:
    """Of the predicted labels; probabilities (N, L), labels (N,).

    >>> import numpy as np
    >>> probabilities, labels = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), np.array([0, 0, 1])
    >>> wt.stats.reliability(probabilities, labels, bins=2).n
    array([3])
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    n = np.bincount(place, minlength=bins)
    there = n > 0
    confidences, accuracies = (np.bincount(place, values, bins)[there] / n[there] for values in (confidence, right))
    return Reliability(confidences, accuracies, n[there])


def temperature(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The T with the lowest loss of softmax(log p / T) (Guo et al. 2017), between 1/20 and 20; find it on dev.

    >>> import numpy as np
    >>> probabilities, labels = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), np.array([0, 1, 1])
    >>> round(wt.stats.temperature(probabilities, labels), 1)
    2.7
    """
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return -float(np.mean(np.log(tempered(probabilities, np.exp(log_t))[np.arange(len(labels)), labels] + 1e-300)))

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


def tempered(probabilities: Floats, t: float) -> Floats:
    """softmax(log p / T), (N, L): above 1 less sure, below 1 surer."""
    return np.asarray(softmax(np.log(np.maximum(probabilities, 1e-300)) / t, axis=1))
