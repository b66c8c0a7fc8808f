"""What a classifier is to beat: the majority label, the label prior, n-grams, and the features that it began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import ArtifactError, DataError
from windtunnel.models import Classifier
from windtunnel.tasks import Classification
from windtunnel.text.features import Floats, Ints, Kind, fit, weigh, weigher
from windtunnel.text.split_corpus import texts_of_splits
from windtunnel.training.data import train_texts
from windtunnel.training.frozen import features, solved_head
from windtunnel.training.run import initial_model
from windtunnel.training.run_config import RunConfig

LONGEST: dict[Kind, int] = {"words": 3, "characters": 5}
"""The longest n-grams of each kind."""
PENALTIES = (1.0, 10.0, 100.0)
"""The C of logistic regression on n-grams among which dev chooses."""
MAJORITY, PRIOR, NGRAMS, FROZEN = "majority label", "label prior", "TF-IDF n-grams + LR", "frozen features + LR"


@dataclass(frozen=True)
class Baseline:
    """Probabilities (N, L) of a split's texts, and how they came about. LR is logistic regression."""

    name: str
    probabilities: Floats
    how: str


def labels_of(task: Classification, split: str) -> Ints:
    """The labels of a split's texts, (N,)."""
    return np.asarray(task.store.splits[split].labels, np.int64)


def baselines(
    config: RunConfig, task: Classification, split: str, texts: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Baseline]:
    """All that can be had; each learns from the texts that the classifier learned from, and chooses on dev.

    Args:
        texts: of each split, where `texts_of_splits` has been called already.
    """
    n, n_labels, chosen = task.n_units(split), task.model.n_labels, train_texts(config, task)
    counts = np.bincount(labels_of(task, "train")[chosen], minlength=n_labels)
    yield Baseline(MAJORITY, np.tile(np.eye(n_labels)[counts.argmax()], (n, 1)), task.store.labels[counts.argmax()])
    yield Baseline(PRIOR, np.tile(counts / counts.sum(), (n, 1)), "a label drawn with its share of train")
    yield _ngrams(task, split, texts or texts_of_splits(task.store.corpus, config.text), chosen)
    if config.start is not None and config.train.freeze != "all":  # else it is the model itself
        try:
            yield _frozen(config, task, split, chosen)
        except ArtifactError as error:  # the run that it began with is gone
            yield Baseline(FROZEN, np.full((n, n_labels), np.nan), f"cannot be computed: {error}")


def _ngrams(task: Classification, split: str, texts: Mapping[str, Sequence[str]], chosen: Ints) -> Baseline:
    """Words or characters and a C, whichever have the highest accuracy on dev."""
    train, dev = labels_of(task, "train")[chosen], labels_of(task, "dev")
    read = [texts["train"][i] for i in chosen]
    found: list[tuple[float, Floats, str]] = []
    for kind, longest in LONGEST.items():
        counter = weigher(kind, len(train), longest)
        try:
            counted = weigh(counter, read)
        except DataError:  # no text has a word
            continue
        for penalty in PENALTIES:
            of_label = fit(counted, train, task.model.n_labels, penalty, tolerance=1e-4)
            right = of_label(counter.transform(texts["dev"])).argmax(axis=1) == dev if len(dev) else np.zeros(1)
            how = f"1 to {longest} {kind}, C {penalty:g}"
            found.append((float(right.mean()), of_label(counter.transform(texts[split])), how))
    _, probabilities, how = max(found, key=lambda one: one[0])
    return Baseline(NGRAMS, probabilities, how)


def _frozen(config: RunConfig, task: Classification, split: str, chosen: Ints) -> Baseline:
    """The head solved on what the trunk made of the texts before any training."""
    model = initial_model(config)
    assert isinstance(model, Classifier)
    weights, biases, penalty = solved_head(model, task, chosen)
    logits = features(model, task, split) @ weights.T + biases
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Baseline(FROZEN, powers / powers.sum(axis=1, keepdims=True), f"the trunk that it began with, C {penalty:g}")
