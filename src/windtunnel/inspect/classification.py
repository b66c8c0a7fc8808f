"""A classifier beside its baselines: intervals, paired tests, calibration, mistakes; and what in a text mattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.inspect.baselines import PRIOR, Baseline, baselines, labels_of
from windtunnel.models import Classifier
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.calibration import Answered, Reliability, answered, reliability, surest, temperature, tempered
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.stats.paired import mcnemar, paired_table
from windtunnel.stats.proportions import wilson
from windtunnel.tasks import Classification
from windtunnel.tasks.vectors import AT_ONCE, Function, of_texts
from windtunnel.text.features import Floats, Ints
from windtunnel.text.split_corpus import texts_of_splits
from windtunnel.training.change import Named
from windtunnel.training.data import check_split, open_task
from windtunnel.training.run import TrainedModel, load
from windtunnel.training.vectors import of_split

SHARES = (0.9, 0.75, 0.5)
"""Of the texts, how many a classifier may be asked to answer: those that it is surest of."""
LEVEL = 0.05
"""The error rate of a single test."""


@dataclass(frozen=True)
class Scores:
    """Accuracy with Wilson's interval, macro-F1 and the loss in nats per text with bootstrap intervals over texts."""

    accuracy: Estimate
    macro_f1: Estimate
    loss: Estimate | None


@dataclass(frozen=True)
class Against:
    """A baseline on the same texts. difference: accuracy of the classifier minus the baseline's, over paired texts."""

    name: str
    how: str
    scores: Scores
    difference: Estimate | None
    p: float | None
    word: Literal["better", "worse", "not shown to differ", "not judged"]


@dataclass(frozen=True)
class Mistake:
    """A text whose label was not predicted."""

    text: str
    label: str
    said: str
    probability: float


@dataclass(frozen=True)
class Judged:
    """A trained classifier on a split.

    seeds: the accuracy of each run; everything else is of the first.
    confusion: (L, L), a row a true label, a column a predicted one.
    temperature: found on dev; tempered: the reliability with it.
    n_cut: texts longer than the context, of which the end was not read.
    answered: those whose probability reaches a threshold that was asked for; surest: the surest of `SHARES`.
    """

    run: str
    step: int
    split: str
    labels: tuple[str, ...]
    n: int
    scores: Scores
    against: tuple[Against, ...]
    confusion: np.ndarray
    reliability: Reliability
    temperature: float | None
    tempered: Reliability
    mistakes: tuple[Mistake, ...]
    n_cut: int
    seeds: tuple[float, ...]
    surest: tuple[Answered, ...]
    answered: Answered | None = None

    @property
    def beats(self) -> bool:
        """Whether it is shown to be better than every baseline."""
        return all(one.word in ("better", "not judged") for one in self.against)

    @property
    def best(self) -> Against:
        """The baseline with the highest accuracy among those that were judged."""
        return max((a for a in self.against if a.p is not None), key=lambda a: a.scores.accuracy.estimate)

    @property
    def over_seeds(self) -> Estimate:
        """The mean accuracy of the runs."""
        return mean_interval(self.seeds)


def judge_classifier(
    folders: Sequence[Path], split: str = "test", threshold: float | None = None, change: Named | None = None
) -> Judged:
    """The classifiers of some seeds on a split, the first beside its baselines.

    Args:
        threshold: what comes of it if texts with a lower probability are not answered.
        change: what the runs were begun with, where their model is altered.

    Raises:
        ConfigError: for a run that is no classifier, and for a split without texts.
        ArtifactError: for a damaged run.
    """
    trained = load(folders[0], change)
    task = classification_of(trained)
    check_split(folders[0], task.store, split)
    true, found = labels_of(task, split), predict_split(trained, task, split)
    seeds = [float((found.argmax(axis=1) == true).mean())]
    for folder in folders[1:]:
        seeds.append(float((predict_split(load(folder, change), task, split).argmax(axis=1) == true).mean()))
    t = None
    if task.n_units("dev"):
        t = temperature(found if split == "dev" else predict_split(trained, task, "dev"), labels_of(task, "dev"))
    config = trained.run.config
    texts = texts_of_splits(task.store.corpus, config.text)
    return Judged(
        run=str(trained.run.folder),
        step=trained.step,
        split=split,
        labels=task.store.labels,
        n=len(true),
        scores=scores_of(found, true),
        against=tuple(against(found, one, true) for one in baselines(config, task, split, texts)),
        confusion=confusion_of(found.argmax(axis=1), true, len(task.store.labels)),
        reliability=reliability(found, true),
        temperature=t,
        tempered=reliability(found if t is None else tempered(found, t), true),
        mistakes=_mistakes(found, true, task.store.labels, texts[split]),
        n_cut=task.examples(split).n_cut,
        seeds=tuple(seeds),
        surest=surest(found, true, SHARES),
        answered=None if threshold is None else answered(found, true, threshold),
    )


def classification_of(trained: TrainedModel) -> Classification:
    """The task of a run that classifies. Raises ConfigError for another."""
    if trained.run.config.task.kind != "classification":
        raise ConfigError(
            f"{trained.run.folder} was trained for {trained.run.config.task.kind}, and has no labels; train a "
            f"classifier from it: windtunnel train TABLE --from {trained.run.folder}"
        )
    task = open_task(trained.run.config, trained.run.store())
    assert isinstance(task, Classification)
    return task


def predict_split(trained: TrainedModel, task: Classification, split: str) -> Floats:
    """Probabilities (N, L) of a split's texts, in its order."""
    return of_split(trained.model, _probabilities_of(trained), task, split)


def predict(trained: TrainedModel, texts: Sequence[str], at_once: int = AT_ONCE) -> Floats:
    """Probabilities (N, L) of any texts.

    Raises:
        DataError: for a character that the tokenizer does not know.
    """
    return of_texts(trained.model, _probabilities_of(trained), trained.tokenizer, texts, at_once)


def _probabilities_of(trained: TrainedModel) -> Function:
    model = trained.model
    assert isinstance(model, Classifier)

    def probabilities(ids: Tensor, kept: Tensor) -> Tensor:
        return model(ids, kept)[:, 0].double().softmax(dim=-1)

    return probabilities


def occlusion(trained: TrainedModel, text: str) -> list[tuple[str, float]]:
    """Each word of a text, and by how much its absence lowers the log-probability of the predicted label, in nats.

    Of a text of one word, each character. It says what the model did, not why: two words that can stand in for each
    other both seem not to matter.
    """
    words = text.split()
    between, parts = (" ", words) if len(words) > 1 else ("", list(text.strip()))
    if len(parts) < 2:
        return []
    without = [between.join(parts[:i] + parts[i + 1 :]) for i in range(len(parts))]
    found = predict(trained, [text, *without])
    said = found[0].argmax()
    drops = np.log(found[0, said]) - np.log(np.maximum(found[1:, said], 1e-300))
    return list(zip(parts, drops.tolist(), strict=True))


def scores_of(probabilities: Floats, true: Ints) -> Scores:
    """The scores of predictions; a loss that is infinite is None."""
    said, n_labels = probabilities.argmax(axis=1), probabilities.shape[1]

    def macro(codes: Floats) -> float:
        return macro_f1_of(np.bincount(codes.astype(np.int64), minlength=n_labels**2).reshape(n_labels, n_labels))

    right = int((said == true).sum())
    nats = -np.log(np.maximum(probabilities[np.arange(len(true)), true], 1e-300))
    loss = bca_interval(nats) if nats.max() < 600 else None
    macro.__name__ = "macro-F1"
    return Scores(wilson(right, len(true)), bca_interval((true * n_labels + said).astype(float), macro), loss)


def confusion_of(said: Ints, true: Ints, n_labels: int) -> Ints:
    """How many texts of each label were called each: (L, L), a row a true label, a column a predicted one."""
    return np.bincount(true * n_labels + said, minlength=n_labels**2).reshape(n_labels, n_labels)


def macro_f1_of(confusion: np.ndarray) -> float:
    """The mean F1 over the labels of a confusion matrix (L, L) that have a text or a prediction."""
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * np.diag(confusion)[both > 0] / both[both > 0]))


def against(found: Floats, baseline: Baseline, true: Ints) -> Against:
    """Predictions beside a baseline's, text by text: McNemar's exact test, the difference by the bootstrap."""
    other = baseline.probabilities
    if np.isnan(other).any():
        nothing = Estimate(np.nan, np.nan, np.nan, len(true), "not computed")
        return Against(baseline.name, baseline.how, Scores(nothing, nothing, None), None, None, "not judged")
    scores = scores_of(other, true)
    if baseline.name == PRIOR:  # its label is drawn: the accuracy that is to be expected
        expected = float(other[np.arange(len(true)), true].mean())
        drawn = Estimate(expected, np.nan, np.nan, len(true), "expected")
        unknown = Estimate(np.nan, np.nan, np.nan, len(true), "not computed")
        return Against(baseline.name, baseline.how, Scores(drawn, unknown, scores.loss), None, None, "not judged")
    ours, theirs = found.argmax(axis=1) == true, other.argmax(axis=1) == true
    _, only, only_other, _ = paired_table(ours, theirs)
    p = mcnemar(only, only_other).p
    difference = bca_interval(ours.astype(float) - theirs)
    word: Literal["better", "worse", "not shown to differ"] = "not shown to differ"
    if p < LEVEL:
        word = "better" if difference.estimate > 0 else "worse"
    return Against(baseline.name, baseline.how, scores, difference, p, word)


def _mistakes(found: Floats, true: Ints, names: Sequence[str], texts: Sequence[str]) -> tuple[Mistake, ...]:
    """The surest first."""
    said = found.argmax(axis=1)
    wrong = sorted(np.flatnonzero(said != true).tolist(), key=lambda i: -found[i, said[i]])
    return tuple(Mistake(texts[i], names[true[i]], names[said[i]], float(found[i, said[i]])) for i in wrong)
