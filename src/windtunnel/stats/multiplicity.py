"""p-values of several comparisons at once, so that the chance of any false one stays at the level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import ndtr

from windtunnel.stats.paired import Floats
from windtunnel.stats.quadrature import chi_nodes, normal_nodes


def adjust(p_values: Sequence[float], method: Literal["holm", "bonferroni", "none"] = "holm") -> list[float]:
    """Adjusted p-values in the order given: compare them with the level itself.

    Bonferroni multiplies by the number of comparisons; Holm (1979) steps down from the smallest and is never larger.

    >>> wt.stats.adjust([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    if not all(0 <= p <= 1 for p in p_values):  # also NaN
        raise ValueError(f"expected p-values in [0, 1], given {list(p_values)}")
    if method == "none":
        return list(p_values)
    if method == "bonferroni":
        return [min(1.0, count * p) for p in p_values]
    if method != "holm":
        raise ValueError(f"expected the method holm, bonferroni or none, given {method!r}")
    adjusted, floor = [0.0] * count, 0.0
    for rank, i in enumerate(sorted(range(count), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (count - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """q-values in the order given: calling what has q <= r a discovery keeps the share of false ones at most r.

    Benjamini & Hochberg (1995): of the p from the i-th smallest of m on, the smallest m p / i. The expected share holds
    for independent and for positively dependent tests (Benjamini & Yekutieli 2001).

    >>> [round(q, 3) for q in wt.stats.false_discovery([0.01, 0.04, 0.03, 0.5])]
    [0.04, 0.053, 0.053, 0.5]
    """
    count = len(p_values)
    if not all(0 <= p <= 1 for p in p_values):  # also NaN
        raise ValueError(f"expected p-values in [0, 1], given {list(p_values)}")
    q, ceiling = [1.0] * count, 1.0
    ranked = sorted(range(count), key=p_values.__getitem__, reverse=True)
    for rank, i in zip(range(count, 0, -1), ranked, strict=True):
        ceiling = min(ceiling, count * p_values[i] / rank)
        q[i] = ceiling
    return q


def dunnett_p(statistics: Sequence[float], df: float = math.inf, ratios: Sequence[float] | None = None) -> list[float]:
    """Two-sided p-values of many arms against one control, adjusted for all of them (Dunnett 1955).

    Args:
        statistics: z (df infinite) or t with the pooled variance on `df` degrees of freedom, one for each arm.
        ratios: size of each arm divided by the size of the control; all 1 when not given.

    The statistics share the control: corr(i, j) = l_i l_j with l_i = sqrt(ratio_i / (1 + ratio_i)), so each is
    l_i U + sqrt(1 - l_i^2) e_i with independent normals, and max |z| has a one-dimensional integral over U. For t a
    second one runs over the shared standard deviation. Both by Gauss-Legendre, to about 1e-10.

    >>> [round(p, 3) for p in wt.stats.dunnett_p([2.1, 2.6, 0.3])]
    [0.092, 0.025, 0.982]
    """
    sizes = np.ones(len(statistics)) if ratios is None else np.asarray(ratios, dtype=np.float64)
    if sizes.shape != (len(statistics),) or not (sizes > 0).all() or not df > 0 or np.isnan(statistics).any():
        raise ValueError(
            "expected statistics, df > 0 and one ratio above 0 for each statistic, "
            f"given {list(statistics)}, df {df} and ratios {ratios}"
        )
    scale = chi_nodes(float(df), panels=16) if df < math.inf else (np.ones(1), np.ones(1))
    return [_any_exceeds(abs(float(z)), np.sqrt(sizes / (1 + sizes)), *scale) for z in statistics]


def _any_exceeds(limit: float, loadings: Floats, s: Floats, weights: Floats) -> float:
    """P(max_i |Z_i| > limit * S): the complement of prod_i (1 - P(|Z_i| > limit S given U)), exact for small p too."""
    u, normal_weights = normal_nodes()
    log_none = np.zeros((len(s), len(u)))
    for loading, count in zip(*np.unique(loadings, return_counts=True), strict=True):
        own = math.sqrt(1 - loading**2)
        exceeds = sum(ndtr((sign * loading * u - limit * s[:, None]) / own) for sign in (1, -1))
        with np.errstate(divide="ignore"):  # log 0: exceeds for certain
            log_none += count * np.log1p(-np.minimum(exceeds, 1.0))
    return min(1.0, float(weights @ -np.expm1(log_none) @ normal_weights))
