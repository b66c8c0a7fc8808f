"""Proportions: one with Wilson's interval, two compared, several arms against a control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtr, ndtri

from windtunnel.stats.intervals import Estimate
from windtunnel.stats.multiplicity import adjust, dunnett_p
from windtunnel.stats.power import n_proportions

LARGEST = 1e12
"""The largest count."""


@dataclass(frozen=True)
class TwoProportions:
    """The second proportion minus the first, and the tests that they are equal."""

    difference: Estimate  # Wald, each proportion with its own variance
    newcombe: Estimate  # Newcombe's hybrid score interval: better for few counts
    z: float  # pooled variance
    p: float
    fisher_p: float


@dataclass(frozen=True)
class Variant:
    """One arm against the control; the last four numbers answer for all arms together or for the next test."""

    name: str
    rate: Estimate
    difference: Estimate
    newcombe: Estimate
    z: float
    p: float
    fisher_p: float
    bonferroni: float
    holm: float
    dunnett: float
    n_per_arm: int | None  # for 80 % power at the observed difference; None when there is none


@dataclass(frozen=True)
class AgainstControl:
    """Every variant against one control, and the chi-square test that all rates are equal."""

    control: str
    control_rate: Estimate
    variants: tuple[Variant, ...]
    alpha: float
    chi2: float
    chi2_df: int
    chi2_p: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (1927): the rates that a z test does not reject.

    >>> print(wt.stats.wilson(7, 10))
    0.7000 [0.3968, 0.8922] (n=10, proportion, 95 % Wilson interval)
    """
    _require_counts(successes, n)
    z, rate = _z(confidence), successes / n
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    low, high = (0.0 if successes == 0 else low), (1.0 if successes == n else high)  # without the rounding
    return Estimate(rate, low, high, n, f"proportion, {100 * confidence:g} % Wilson interval")


def compare_proportions(k1: int, n1: int, k2: int, n2: int, confidence: float = 0.95) -> TwoProportions:
    """k2 / n2 minus k1 / n1 with two intervals, the pooled z test (two-sided) and Fisher's exact test.

    Newcombe (1998, method 10) joins the two Wilson intervals; Wald's is the one that textbooks show.

    >>> print(wt.stats.compare_proportions(100, 1000, 130, 1000).newcombe)
    0.0300 [0.0020, 0.0581] (n=2000, difference of proportions, 95 % Newcombe interval)
    """
    first, second = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    p1, p2 = first.estimate, second.estimate
    difference, percent = p2 - p1, f"{100 * confidence:g} %"
    half = _z(confidence) * math.sqrt(p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2)
    low = difference - math.hypot(p2 - second.low, first.high - p1)
    high = difference + math.hypot(second.high - p2, p1 - first.low)
    pooled = (k1 + k2) / (n1 + n2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    z = difference / error if error > 0 else 0.0  # all fail or all succeed: nothing differs
    name = "difference of proportions"
    return TwoProportions(
        Estimate(difference, difference - half, difference + half, n1 + n2, f"{name}, {percent} Wald interval"),
        Estimate(difference, low, high, n1 + n2, f"{name}, {percent} Newcombe interval"),
        z,
        2 * float(ndtr(-abs(z))),
        fisher_exact(k1, n1, k2, n2),
    )


def paired_proportions(both: int, only_a: int, only_b: int, neither: int, confidence: float = 0.95) -> Estimate:
    """A's proportion minus B's on the same items, with Newcombe's interval for pairs (1998, method 10).

    It joins the two Wilson intervals by how far A and B agree, so that it is no point where they always do.
    """
    n = both + only_a + only_b + neither
    a, b = wilson(both + only_a, n, confidence), wilson(both + only_b, n, confidence)
    margins = math.prod((both + only_a, only_b + neither, both + only_b, only_a + neither))
    agreement = float(both * neither - only_a * only_b)
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)  # the continuity correction
    phi, difference = agreement / math.sqrt(margins) if margins else 0.0, (only_a - only_b) / n

    def half(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    low = difference - half(a.estimate - a.low, b.high - b.estimate)
    high = difference + half(a.high - a.estimate, b.estimate - b.low)
    return Estimate(difference, low, high, n, f"paired difference, {100 * confidence:g} % Newcombe interval")


def fisher_exact(k1: int, n1: int, k2: int, n2: int) -> float:
    """Fisher's exact p, two-sided: all tables with these margins that are at most as likely as the observed one.

    The tables are added up from the ratios of neighbours, within 12 standard deviations and 60 counts of the mean;
    outside lies less than 1e-30.

    >>> round(wt.stats.fisher_exact(3, 10, 8, 10), 3)
    0.07
    """
    _require_counts(k1, n1)
    _require_counts(k2, n2)
    successes, n = k1 + k2, n1 + n2
    mean = successes * n1 / n
    far = 12 * math.sqrt(mean * (n2 / n) * ((n - successes) / max(1, n - 1))) + 60
    low, high = max(0, successes - n2, math.floor(mean - far)), min(n1, successes, math.ceil(mean + far))
    if not low <= k1 <= high:
        return 0.0
    k = np.arange(low, high, dtype=np.float64)
    steps = np.log((n1 - k) * (successes - k)) - np.log((k + 1) * (n2 - successes + k + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    share = np.exp(logs - logs.max())
    alike = 1 + 1e-7  # so that a table as likely as the observed one counts in spite of rounding
    return min(1.0, float(share[share <= alike * share[k1 - low]].sum() / share.sum()))


def against_control(counts: Mapping[str, tuple[int, int]], control: str, alpha: float = 0.05) -> AgainstControl:
    """Arms {name: (successes, n)} against one of them: raw and adjusted p-values, intervals, and the n still needed.

    Bonferroni, Holm and Dunnett (on the pooled z, unequal sizes too) each keep the chance of any false winner at
    alpha; the intervals have the confidence 1 - alpha, each for itself.

    >>> found = wt.stats.against_control({"A": (100, 1000), "B": (130, 1000), "C": (110, 1000)}, "A")
    >>> [(one.name, round(one.p, 3), round(one.holm, 3)) for one in found.variants]
    [('B', 0.035, 0.071), ('C', 0.466, 0.466)]
    """
    if control not in counts or len(counts) < 2:
        raise ValueError(
            f"expected at least two arms with the control among them, given {list(counts)} and {control!r}"
        )
    k0, n0 = counts[control]
    names = [name for name in counts if name != control]
    pairs = [compare_proportions(k0, n0, *counts[name], 1 - alpha) for name in names]
    p_values = [pair.p for pair in pairs]
    adjusted = zip(
        adjust(p_values, "bonferroni"),
        adjust(p_values, "holm"),
        dunnett_p([pair.z for pair in pairs], ratios=[counts[name][1] / n0 for name in names]),
        strict=True,
    )
    variants = tuple(
        Variant(name, wilson(*counts[name], 1 - alpha), pair.difference, pair.newcombe, pair.z, pair.p, pair.fisher_p,
                *corrections, n_proportions(k0 / n0, counts[name][0] / counts[name][1], 0.8, alpha))
        for name, pair, corrections in zip(names, pairs, adjusted, strict=True)
    )  # fmt: skip
    chi2 = _chi_square(counts)
    df = len(names)
    return AgainstControl(control, wilson(k0, n0, 1 - alpha), variants, alpha, chi2, df, float(chdtrc(df, chi2)))


def _chi_square(counts: Mapping[str, tuple[int, int]]) -> float:
    """Pearson's chi-square of arms x (success, failure); 0 when all arms fail or all succeed."""
    k, n = (np.array(column, dtype=np.float64) for column in zip(*counts.values(), strict=True))
    rate = k.sum() / n.sum()
    return float(((k - n * rate) ** 2 / n).sum() / (rate * (1 - rate))) if 0 < rate < 1 else 0.0


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"expected 0 < confidence < 1, given {confidence}")
    return float(ndtri(0.5 + confidence / 2))


def _require_counts(successes: int, n: int) -> None:
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"expected 0 <= successes <= n and n > 0, given {successes} of {n}")
    if n > LARGEST:
        raise ValueError(f"expected n up to {LARGEST:.0e}, which floats can count exactly, given n = {n}: give fewer")
