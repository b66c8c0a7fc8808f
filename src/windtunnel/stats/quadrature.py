"""Nodes and weights that integrate over a normal variable and over the chi distribution of a standard deviation."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from windtunnel.stats.paired import Floats


def panel_nodes(low: float, high: float, panels: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre with 16 nodes in each of `panels` equal parts of [low, high]."""
    x, w = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(low, high, panels + 1)
    half = (high - low) / (2 * panels)
    return ((edges[:-1] + half)[:, None] + half * x).ravel(), np.tile(half * w, panels)


@lru_cache
def normal_nodes(panels: int = 24) -> tuple[Floats, Floats]:
    """u and weights with sum(weights * f(u)) = E f(U), U standard normal."""
    u, w = panel_nodes(-9.0, 9.0, panels)
    return u, w * np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)


@lru_cache(maxsize=64)
def chi_nodes(df: float, below: float = math.inf, panels: int = 256) -> tuple[Floats, Floats]:
    """s and weights with sum(weights * f(s)) = E f(S) [S < below], S = chi_df / sqrt(df): s / sigma of a sample.

    In v = log s the log density is df (v - (e^2v - 1) / 2) up to a constant; the limits leave out less than e^-36.
    """
    low = -(36 / df + 0.5) if df < 60 else -9 / math.sqrt(df)
    high = min(6 / math.sqrt(df), math.log(below))
    if high <= low:
        return np.zeros(0), np.zeros(0)
    v, w = panel_nodes(low, high, panels)
    constant = math.log(2) + df / 2 * math.log(df / 2) - float(gammaln(df / 2)) - df / 2
    return np.exp(v), w * np.exp(constant + df * (v - np.expm1(2 * v) / 2))
