"""Looking more than once: paired t tests whose error rate still holds, if differences are symmetric under the null.

`nominal_level` is for looks that are planned, as in "after each seed from the 4th to the 16th"; it loses little power.
`always_valid_p` is for looking without an end in sight.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from windtunnel.stats.exact import whole_numbers
from windtunnel.stats.paired import Floats, sample

SEQUENCES = 400_000
CEILING = 0.05
"""A p above it is not told apart in the simulation."""


@lru_cache(maxsize=256)
def nominal_level(looks: tuple[int, ...], alpha: float, sides: int = 2) -> float:
    """The level that p has to meet at a look, so that the chance of any look meeting it under the null is <= alpha.

    The same level at each look, as Pocock (1977), but for t statistics of few observations: found from 400,000
    simulated sequences of normal differences with a fixed seed, and lowered by two standard errors of that
    simulation. Never below alpha / len(looks), which Bonferroni's inequality proves to be enough.

    Args:
        looks: the numbers of differences at which the test is done, growing, from 2 on.
        sides: of the t test; each side of an equivalence test (`tost`) is 1.

    >>> round(wt.stats.nominal_level((4, 5, 6), 0.05), 3)
    0.024
    """
    if not looks or looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
        raise ValueError(f"expected growing numbers of differences from 2 on, given the looks {looks}")
    if not 0 < alpha < 1 or sides not in (1, 2):
        raise ValueError(f"expected 0 < alpha < 1 and 1 or 2 sides, given {alpha} and {sides}")
    if len(looks) == 1:
        return alpha
    bonferroni, smallest = alpha / len(looks), _smallest_p(looks, max(CEILING, alpha), sides)
    allowed = math.floor(SEQUENCES * alpha - 2 * math.sqrt(SEQUENCES * alpha * (1 - alpha)))
    return max(bonferroni, float(np.nextafter(smallest[allowed], 0))) if allowed > 0 else bonferroni


def overall_p(looks: tuple[int, ...], p: float) -> float:
    """The chance under the null that p is met at any of these looks: the p of a design that looks more than once.

    From the simulation of `nominal_level`, raised by two of its standard errors; never above the number of looks times
    p, which Bonferroni's inequality proves to be enough.
    """
    if math.isnan(p) or len(looks) == 1:
        return p
    bound = min(1.0, len(looks) * p)
    if p >= CEILING:
        return bound
    share = float(np.searchsorted(_smallest_p(looks, CEILING, 2), p, side="right")) / SEQUENCES
    return min(bound, share + 2 * math.sqrt(max(share, 1 / SEQUENCES) / SEQUENCES))


@lru_cache(maxsize=8)
def _smallest_p(looks: tuple[int, ...], ceiling: float, sides: int) -> Floats:
    """The smallest p over the looks of each sequence, sorted, shape (SEQUENCES,); 1 where none is below the ceiling.

    Between looks only the sum and the sum of squares of the new differences are drawn: sqrt(m) z, and z^2 plus a
    chi-square with m - 1 degrees of freedom.
    """
    rng = np.random.default_rng(1977)
    total, squares, smallest = np.zeros(SEQUENCES), np.zeros(SEQUENCES), np.ones(SEQUENCES)
    for before, n in pairwise((0, *looks)):
        z = rng.standard_normal(SEQUENCES)
        total += math.sqrt(n - before) * z
        squares += z**2
        if n - before > 1:
            squares += rng.chisquare(n - before - 1, SEQUENCES)
        t = total / np.sqrt(n * (squares - total**2 / n) / (n - 1))
        t = np.abs(t) if sides == 2 else t
        hits = np.flatnonzero(t >= stdtrit(n - 1, 1 - ceiling / sides))
        smallest[hits] = np.minimum(smallest[hits], sides * stdtr(n - 1, -t[hits]))
    return np.sort(smallest)


def always_valid_p(differences: ArrayLike, effect_sd: float = 1.0) -> float:
    """A p-value of "the true mean is 0" that holds however often one looked and whenever one stopped (two-sided).

    1 / max over n of the e-process of the t test,
        E_n = (1 + n g)^(-1/2) (Q / (Q - S^2 g / (1 + n g)))^(n/2),  S = sum d, Q = sum d^2, g = effect_sd^2:
    the Bayes factor with effect size (mean / sd) ~ N(0, g) under the alternative and the right-Haar prior on the sd
    under both, which is a martingale under the null for every sd, so that Ville's inequality bounds its maximum
    (Lai 1976; Grünwald, de Heide & Koolen 2024). It costs more observations than planned looks.

    The guarantee is for normal differences. Looking after each of 2 to 200 of other ones, p <= .05 came up in 1.8 %
    of 4,000 simulations for the differences of two exponential losses (symmetric), in 12.6 % for exponential
    differences with mean 0, and in 25.8 % for lognormal ones (`python -m benchmarks.calibration`): no test holds for
    skewed differences that does not know their bounds.

    Args:
        differences: paired differences in the order in which they came.
        effect_sd: how large an effect is expected, in standard deviations of the differences; fix it before looking.

    >>> round(wt.stats.always_valid_p([0.3, 0.2, 0.4, 0.25, 0.3]), 3)
    0.048
    """
    if not effect_sd > 0:
        raise ValueError(f"expected effect_sd above 0, given {effect_sd}")
    row = sample(differences, 1)
    n, g, whole = np.arange(1, len(row) + 1), effect_sd**2, whole_numbers(row)[0]
    sums, squares = accumulate(whole), accumulate(x * x for x in whole)
    share = np.array([s * s / q if q else 0.0 for s, q in zip(sums, squares, strict=True)])  # S^2 / Q, exact before /
    explained = share * g / (1 + n * g)
    log_e = -n / 2 * np.log1p(-explained) - np.log1p(n * g) / 2
    return float(np.exp(-max(0.0, log_e.max())))
