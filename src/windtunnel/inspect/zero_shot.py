"""Pictures put into classes by the words for these, without training for it, beside baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.inspect.captions import main_captions, words
from windtunnel.inspect.clip_vectors import pictures_of, vectors_of
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import mcnemar, paired_table
from windtunnel.stats.proportions import paired_proportions, wilson
from windtunnel.tasks import Contrastive
from windtunnel.text.features import Floats, Ints
from windtunnel.training.run import TrainedModel

MOST_CLASSES = 10
SMALL_WORDS = {"of", "with", "and", "the", "in", "on", "a", "an", "at", "to", "for", "no", "not"}
"""Words that are no class."""


@dataclass(frozen=True)
class Classes:
    """Words that are classes, and the pictures with just one of them in their main caption.

    places: (m,) of the pictures that are judged. labels: (m,) which class each is of.
    known, known_labels: (k,) the same of the pictures of training.
    """

    names: tuple[str, ...]
    places: Ints
    labels: Ints
    known: Ints
    known_labels: Ints

    @property
    def commonest(self) -> Ints:
        """Whether each picture is of the class that is the commonest in training, (m,) bool."""
        return self.labels == np.bincount(self.known_labels).argmax()

    def nearest(self, seen: Floats, trained_on: Floats) -> Ints:
        """The class of the nearest picture of training: (m,).

        Args:
            seen, trained_on: what a model makes of all pictures that are judged, and of all of training: (n, D) each.
        """
        near = seen[self.places] @ trained_on[self.known].T
        return np.asarray(self.known_labels[near.argmax(axis=1)])


@dataclass(frozen=True)
class ZeroShot:
    """How often the nearest of the words for classes is right.

    n: pictures. nearest, commonest: shares right of the class of the nearest picture of training, and of the commonest.
    difference, p: zero-shot minus nearest, by pairs, and McNemar's exact test.
    """

    names: tuple[str, ...]
    n: int
    right: Estimate
    nearest: Estimate
    commonest: Estimate
    difference: Estimate
    p: float


def judge_zero_shot(
    trained: TrainedModel, own: Contrastive, task: Contrastive, split: str, seen: Floats
) -> ZeroShot | None:
    """A model on the pictures of a split; None where these are not of two classes.

    Args:
        own: the task that it was trained for, whose captions of the train split decide the classes.
        seen: what it makes of the pictures of the split, as `pictures_of` gives it.
    """
    classes = classes_of(own, task, split)
    if classes is None:
        return None
    right = (seen[classes.places] @ vectors_of(trained, classes.names).T).argmax(axis=1) == classes.labels
    nearest = classes.nearest(seen, pictures_of(trained, own, "train")) == classes.labels
    counts, n = paired_table(right, nearest), len(right)
    shares = (wilson(int(one.sum()), n) for one in (right, nearest, classes.commonest))
    named = dict(zip(("right", "nearest", "commonest"), shares, strict=True))
    difference, p = paired_proportions(*counts), mcnemar(counts[1], counts[2]).p
    return ZeroShot(classes.names, n, **named, difference=difference, p=p)


def classes_of(own: Contrastive, task: Contrastive, split: str) -> Classes | None:
    """The classes of a split's pictures, chosen by the captions of training; None where there are not two."""
    before = main_captions(own, "train")
    names = class_words(before)
    found = Classes(tuple(names), *labelled(names, main_captions(task, split)), *labelled(names, before))
    return found if len({*found.labels.tolist()}) > 1 else None


def class_words(texts: Sequence[str], most: int = MOST_CLASSES) -> list[str]:
    """The words of most captions of which no two stand in one caption."""
    own = [{*words(text)} - SMALL_WORDS for text in texts]
    counts, chosen = Counter(word for some in own for word in sorted(some)), list[str]()
    for word, _ in counts.most_common():
        if len(chosen) < most and not any(word in some and not some.isdisjoint(chosen) for some in own):
            chosen.append(word)
    return chosen


def labelled(names: Sequence[str], texts: Sequence[str]) -> tuple[Ints, Ints]:
    """The places of the texts with just one of these words, and which: (m,) each."""
    found = [[names.index(word) for word in {*words(text)} if word in names] for text in texts]
    places = np.array([i for i, own in enumerate(found) if len(own) == 1], np.int64)
    return places, np.array([found[i][0] for i in places], np.int64)
