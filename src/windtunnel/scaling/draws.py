"""Estimates with intervals out of draws of their joint distribution, and what a fit refuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats

LEVELS = (0.025, 0.975)
LEAST_USABLE = 0.9
"""Share of the draws that must have what a part is about; a vertex between the sampled sizes, exponents above 0."""
WORST_RESIDUAL = 0.05
"""Root mean square of ln L - ln fit beyond which a law of the loss does not fit."""


@dataclass(frozen=True)
class Refusal:
    """A part of a study that gets no number.

    what: the part; why: one sentence that says what is wrong and what cures it.
    """

    what: str
    why: str


def summary(estimate: float, draws: Floats, n: int, method: str) -> Estimate:
    """The estimate with the 2.5 and 97.5 % quantiles of its draws, (samples,); n is the runs it rests on."""
    low, high = np.quantile(draws, LEVELS)
    return Estimate(float(estimate), float(low), float(high), n, method)


def exp(found: Estimate) -> Estimate:
    """The exponential of an estimate and of its interval."""
    return Estimate(
        float(np.exp(found.estimate)), float(np.exp(found.low)), float(np.exp(found.high)), found.n, found.method
    )


def spread(draws: Floats) -> Floats:
    """Half the width of the central 68 % of draws (samples, ...): the standard deviation, if these are normal."""
    low, high = np.quantile(draws, (0.15866, 0.84134), axis=0)
    return np.asarray((high - low) / 2)
