"""Pictures found by captions in closed form: ridge regression from frozen vectors to frozen vectors, without a step.

Shapes: n pictures with their main captions, V numbers of a picture, D of a caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windtunnel.models.clip import CLIPConfig
from windtunnel.models.vectors import WIDTHS, CaptionVectorsConfig, PictureVectorsConfig
from windtunnel.tasks import Contrastive
from windtunnel.tasks.vectors import caption_vectors, picture_vectors
from windtunnel.text.features import Floats, Ints

RIDGE, RIDGE_STAGES, KERNEL = "ridge, frozen nets", "ridge, with three stages", "kernel ridge, with three stages"
FORMS = {RIDGE: (WIDTHS["efficientnet-lite0"], False), RIDGE_STAGES: (0, False), KERNEL: (0, True)}
"""Of each: how many numbers of a picture it reads, from the end (0 is all), and whether it has a kernel."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Times the mean of the kernel's diagonal; dev chooses."""
NO_DEV = 0.3
"""The penalty where there is no dev split."""


class Seen(NamedTuple):
    """What the frozen nets make of pictures (n, V), and of captions (m, D), these of length 1."""

    pictures: Floats
    captions: Floats


@dataclass(frozen=True)
class Solved:
    """A map from pictures to captions that was solved on `pictures` (N, V), and its penalty."""

    name: str
    pictures: Floats
    middle: Floats
    weights: Floats
    penalty: float

    def scores(self, seen: Seen) -> Floats:
        """The cosine of each caption (row) and each picture (column), (m, n)."""
        made = alike(self.name, seen.pictures, self.pictures) @ self.weights
        return unit(seen.captions - self.middle) @ unit(made).T


def solve(name: str, train: Seen, dev: Seen | None) -> Solved:
    """One of FORMS with the penalty whose mean reciprocal rank on dev is highest.

    `kernel ridge` has the kernel exp(-|x - c|^2) of standardised vectors of length 1.
    """
    middle, kernel = train.captions.mean(0), alike(name, train.pictures, train.pictures)

    def solved(penalty: float) -> Solved:
        ridge = penalty * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        weights = np.linalg.solve(kernel + ridge, train.captions - middle)
        return Solved(name, train.pictures, middle, weights, penalty)

    if dev is None:
        return solved(NO_DEV)
    return max(map(solved, PENALTIES), key=lambda one: reciprocal_rank(one.scores(dev)))


def alike(name: str, pictures: Floats, solved_on: Floats) -> Floats:
    """The kernel of one of FORMS: of pictures (n, V) and those it is solved on (N, V), (n, N)."""
    width, bent = FORMS[name]
    own, other = (standardised(x[:, -width:], solved_on[:, -width:]) for x in (pictures, solved_on))
    return gaussian(unit(own), unit(other)) if bent else own @ other.T


def solved_forms(own: Contrastive) -> Iterator[Solved]:
    """All of FORMS, solved on the train split of a task. Raises DataError where a net has not been fetched."""
    train, dev = frozen_vectors(own, "train"), frozen_vectors(own, "dev") if own.n_units("dev") > 1 else None
    return (solve(name, train, dev) for name in FORMS)


def frozen_vectors(task: Contrastive, split: str) -> Seen:
    """What the frozen nets make of a split's pictures and of their main captions; raises as `solved_forms`."""
    config = CLIPConfig(picture=PictureVectorsConfig(net="efficientnet-lite0-stages"), caption=CaptionVectorsConfig())
    examples, store = task.examples(split), task.store
    pictures = picture_vectors(store, config)[examples.places].astype(np.float64)
    return Seen(pictures, read(list(store.documents(split)), config)[examples.main])


def read(captions: list[str], config: CLIPConfig | None = None) -> Floats:
    """What the frozen encoder makes of captions, of length 1: (m, D)."""
    config = config or CLIPConfig(picture=PictureVectorsConfig(), caption=CaptionVectorsConfig())
    return unit(caption_vectors(captions, config).astype(np.float64))


def unit(x_ND: Floats) -> Floats:
    """Rows of length 1."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-30)


def standardised(x_NV: Floats, of_MV: Floats) -> Floats:
    """Columns minus the means of others, divided by their standard deviations."""
    return (x_NV - of_MV.mean(0)) / (of_MV.std(0) + 1e-6)


def gaussian(x_NV: Floats, c_MV: Floats) -> Floats:
    """exp(-|x - c|^2) of rows of length 1: (N, M)."""
    return np.exp(2 * (x_NV @ c_MV.T - 1))


def reciprocal_rank(scores: Floats) -> float:
    """The mean of 1 / rank of the diagonal in each row of (n, n)."""
    return float((1 / places_of(scores)).mean())


def places_of(scores: Floats, targets: Ints | None = None) -> Ints:
    """At which place each query (row) of (m, n) finds its target, 1 is the first; one that is as near counts as nearer.

    targets: (m,) columns; None is the diagonal. A target whose score is not finite comes last.
    """
    rows = np.arange(len(scores))
    own = scores[rows, rows if targets is None else targets]
    return np.where(np.isfinite(own), (scores >= own[:, None]).sum(axis=1), scores.shape[1])
