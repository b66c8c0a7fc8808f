"""How far several annotators agree, and which texts to ask about again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.labelling.examples import Example
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson
from windtunnel.text.features import Floats


@dataclass(frozen=True)
class Annotator:
    """An annotator's answers, and how often they are what most of the others said, where others said something."""

    name: str
    n: int
    agrees: Estimate | None


@dataclass(frozen=True)
class Agreement:
    """Of the texts that two or more annotators answered.

    alpha: Krippendorff's; 1 is perfect, 0 is that of chance. NaN where only one label was ever given.
    disputed: the texts with different answers, those to ask about first in front.
    """

    n_texts: int
    alpha: Estimate
    annotators: tuple[Annotator, ...]
    disputed: tuple[Example, ...]


def agreement(examples: Sequence[Example], resamples: int = 2000, seed: int = 0) -> Agreement | None:
    """How far the annotators agree; None where no text has two answers."""
    shared = [example for example in examples if len(example.answers) > 1]
    if not shared:
        return None
    names = sorted({who for example in examples for who in example.answers})
    disputed = sorted((example for example in shared if example.disputed), key=_lead)
    return Agreement(
        len(shared),
        krippendorff(counts(shared), resamples, seed),
        tuple(_annotator(name, examples) for name in names),
        tuple(disputed),
    )


def counts(examples: Sequence[Example]) -> Floats:
    """How many annotators gave each label to each text, (texts, labels)."""
    labels = sorted({label for example in examples for label in example.answers.values()})
    rows = [Counter(example.answers.values()) for example in examples]
    return np.array([[row[label] for label in labels] for row in rows], dtype=float)


def krippendorff(counted: Floats, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Krippendorff's alpha for labels without order (Krippendorff 2011), with a percentile interval over texts.

    Args:
        counted: as from `counts`, (texts, labels), at least two answers a text.
    """
    answers = counted.sum(axis=1)
    apart = (answers**2 - (counted**2).sum(axis=1)) / (answers - 1)  # ordered pairs that differ, a text
    whole = float(_alpha(np.ones((1, len(counted))), counted, apart)[0])
    found = Estimate(whole, np.nan, np.nan, len(counted), f"Krippendorff's alpha, {resamples} bootstraps over texts")
    if len(counted) < 2 or np.isnan(whole):
        return found
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(counted), np.full(len(counted), 1 / len(counted)), resamples)
    drawn = _alpha(weights.astype(float), counted, apart)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return replace(found, low=float(low), high=float(high))


def _alpha(weights: Floats, counted: Floats, apart: Floats) -> Floats:
    """Alpha of the texts with these weights (B, texts): 1 - observed / expected disagreement; NaN of a single label."""
    totals = weights @ counted
    n = totals.sum(axis=1)
    expected = (n**2 - (totals**2).sum(axis=1)) / (n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - weights @ apart / expected, np.nan)


def _lead(example: Example) -> float:
    """By how large a share of the answers the most frequent one leads; 0 for a draw."""
    most = Counter(example.answers.values()).most_common(2)
    return (most[0][1] - most[1][1]) / len(example.answers)


def _annotator(name: str, examples: Sequence[Example]) -> Annotator:
    own = [example for example in examples if name in example.answers]
    agrees = []
    for example in own:
        others = replace(example, answers={who: label for who, label in example.answers.items() if who != name})
        if others.label is not None:
            agrees.append(others.label == example.answers[name])
    return Annotator(name, len(own), wilson(sum(agrees), len(agrees)) if agrees else None)
