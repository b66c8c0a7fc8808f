"""Two finished classifiers on the same texts, text by text."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.comparison.plan import MARGIN
from windtunnel.comparison.verdict import Word
from windtunnel.errors import ConfigError
from windtunnel.inspect.baselines import labels_of
from windtunnel.inspect.classification import LEVEL, classification_of, confusion_of, macro_f1_of, predict_split
from windtunnel.stats.bootstrap import bca_interval
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats, mcnemar, paired_table
from windtunnel.stats.proportions import paired_proportions, wilson
from windtunnel.text.features import Ints
from windtunnel.text.split_corpus import texts_of_splits
from windtunnel.training.data import check_split
from windtunnel.training.run import load


@dataclass(frozen=True)
class Predicted:
    """What a classifier said of texts. pairs: texts with their true labels, sorted; said: the labels that it gave."""

    run: str
    labels: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    said: tuple[str, ...]
    chosen_on_dev: bool

    @property
    def sha256(self) -> str:
        """Of the texts and their true labels."""
        return hashlib.sha256(json.dumps(self.pairs).encode()).hexdigest()


@dataclass(frozen=True)
class Between:
    """A classifier beside another on n texts.

    table: how many texts both have right, the first alone, the other alone, neither.
    accuracy, macro_f1: the first's minus the other's, with bootstrap intervals over paired texts.
    p: McNemar's exact. within: the difference of accuracies with the 90 % interval (Newcombe's, paired) that must lie
    within the margin for *no difference that matters*; the margin is in units of accuracy.
    """

    run: str
    other: str
    split: str
    sha256: str
    n: int
    scores: tuple[Estimate, Estimate]
    macro_f1s: tuple[float, float]
    table: tuple[int, int, int, int]
    accuracy: Estimate
    macro_f1: Estimate
    p: float
    within: Estimate
    margin: float
    word: Word
    chosen_on_dev: bool


def compare_classifiers(run: Path, other: Path, split: str, margin: float = MARGIN) -> Between:
    """Judge one classifier against another on a split of both.

    Args:
        margin: the share of the other's accuracy below which a difference does not matter.

    Raises:
        ConfigError: for a run that is no classifier, and where the texts of the two splits are not the same.
    """
    a, b = predicted(run, split), predicted(other, split)
    if a.pairs != b.pairs:
        raise ConfigError(_differ(a, b, split))
    names = sorted({*a.labels, *b.labels})
    number = {name: i for i, name in enumerate(names)}
    true = np.array([number[label] for _, label in a.pairs], np.int64)
    ours, theirs = (np.array([number[name] for name in one.said], np.int64) for one in (a, b))
    right, others = ours == true, theirs == true
    both, only, only_other, neither = paired_table(right, others)
    accuracy, whole, n_labels = float(others.mean()), len(true), len(names)
    p, within = mcnemar(only, only_other).p, paired_proportions(both, only, only_other, neither, 1 - 2 * LEVEL)
    wide = margin * accuracy
    return Between(
        run=a.run,
        other=b.run,
        split=split,
        sha256=a.sha256,
        n=whole,
        scores=(wilson(both + only, whole), wilson(both + only_other, whole)),
        macro_f1s=(macro_f1_of(confusion_of(ours, true, n_labels)), macro_f1_of(confusion_of(theirs, true, n_labels))),
        table=(both, only, only_other, neither),
        accuracy=bca_interval(right.astype(float) - others),
        macro_f1=_macro_f1(ours, theirs, true, n_labels),
        p=p,
        within=within,
        margin=wide,
        word=word_of(only - only_other, p, within, wide),
        chosen_on_dev=split == "dev" and (a.chosen_on_dev or b.chosen_on_dev),
    )


def word_of(difference: int, p: float, within: Estimate, margin: float) -> Word:
    """The verdict, by the rules of `judge`: a difference shown to be below the margin does not matter, even if real."""
    if -margin < within.low and within.high < margin:
        return "no difference that matters"
    if p < LEVEL:
        return "better" if difference > 0 else "worse"
    return "undecided"


def predicted(folder: Path, split: str) -> Predicted:
    """What the classifier of a run says of a split of its own table."""
    trained = load(folder)
    task = classification_of(trained)
    check_split(folder, task.store, split)
    names, config = task.store.labels, trained.run.config
    texts = texts_of_splits(task.store.corpus, config.text)[split]
    true = [names[label] for label in labels_of(task, split)]
    said = [names[label] for label in predict_split(trained, task, split).argmax(axis=1)]
    rows = sorted(zip(texts, true, said, strict=True))
    pairs = tuple((text, label) for text, label, _ in rows)
    return Predicted(str(folder), names, pairs, tuple(row[2] for row in rows), config.train.choose == "best")


def _differ(a: Predicted, b: Predicted, split: str) -> str:
    """Which texts of the two splits are not the same."""
    mine, theirs = Counter(a.pairs), Counter(b.pairs)
    told = []
    for one, own in ((a, mine - theirs), (b, theirs - mine)):
        if own:
            text, label = min(own)
            such = f", such as {text[:60]!r} with the label {label!r}"
            told.append(f"{own.total():,} of {len(one.pairs):,} are only in {one.run}{such}")
    return (
        f"the {split} texts of the two runs are not the same (SHA-256 {a.sha256[:12]} and {b.sha256[:12]}): "
        f"{'; '.join(told)}; train both on one table with one split, which a column split says aloud"
    )


def _macro_f1(ours: Ints, theirs: Ints, true: Ints, n_labels: int) -> Estimate:
    """The difference of the two macro-F1 over paired texts, by the bootstrap."""
    codes = ((true * n_labels + ours) * n_labels + theirs).astype(float)

    def difference(codes: Floats) -> float:
        rest, other = np.divmod(codes.astype(np.int64), n_labels)
        own_true, own = np.divmod(rest, n_labels)
        return macro_f1_of(confusion_of(own, own_true, n_labels)) - macro_f1_of(confusion_of(other, own_true, n_labels))

    difference.__name__ = "difference of macro-F1"
    return bca_interval(codes, difference)
