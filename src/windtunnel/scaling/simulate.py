"""Studies that never ran: points of a known law with noise, for calibration, and what a design may be expected to find.

The law is L = E + A / N^a + B / D^b (Hoffmann et al. 2022, equation 2), with C = 6ND.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.points import Points
from windtunnel.stats.paired import Floats

Sizes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Law:
    """L = floor + A / N^a + B / D^b in nats per token."""

    floor: float
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: Floats, tokens: Floats) -> Floats:
        """Nats per token of models of N parameters that saw D tokens."""
        return np.asarray(self.floor + self.A / parameters**self.a + self.B / tokens**self.b)

    @property
    def exponent(self) -> float:
        """Of N*(C)."""
        return self.b / (self.a + self.b)

    def optimum(self, compute: float) -> float:
        """N*(C): the size of the lowest loss for so many FLOPs."""
        balance = self.a * self.A / (self.b * self.B)
        return float(balance ** (1 / (self.a + self.b)) * (compute / 6) ** self.exponent)

    @classmethod
    def through(
        cls,
        compute: float,
        parameters: float,
        a: float = 0.34,
        b: float = 0.28,
        excess: float = 1.5,
        floor: float = 1.0,
    ) -> Law:
        """The law whose best size at so many FLOPs is `parameters`, with a loss of floor + excess there."""
        share = a * b / (a + b) * excess
        tokens = compute / 6 / parameters
        return cls(floor, share / a * parameters**a, a, share / b * tokens**b, b)


@dataclass(frozen=True)
class Expected:
    """What a design would find, the median over simulated studies.

    exponent: half the width of its 95 % interval; low, high: the ends of the 95 % band of N* at ten times the largest
    budget, as factors of the estimate; fitted: share of the studies that had a line at all; studies: how many.
    """

    exponent: float
    low: float
    high: float
    fitted: float
    studies: int


def simulate(
    law: Law, sizes: Sizes, budgets: Sequence[float], seeds: Sequence[int], noise: float, rng: np.random.Generator
) -> Points:
    """Points of a design: at each budget all of its sizes with all of its seeds, and normal noise in nats.

    Raises:
        ConfigError: unless there are as many lists of sizes and numbers of seeds as budgets.
    """
    _require_design(sizes, budgets, seeds)
    rows = [(n, c, s) for own, c, k in zip(sizes, budgets, seeds, strict=True) for n in own for s in range(k)]
    n, c, seed = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    loss = law.loss(n, c / 6 / n) + noise * rng.standard_normal(len(n))
    return Points(n, c / 6 / n, c, loss, seed.astype(np.int64), budget=c)


def expected(
    sizes: Sizes,
    budgets: Sequence[float],
    seeds: Sequence[int],
    noise: float,
    law: Law | None = None,
    studies: int = 200,
    seed: int = 0,
) -> Expected:
    """Simulate a design and say how wide its intervals would be.

    Args:
        sizes: N of each budget; seeds: of each budget; noise: standard deviation of a seed's loss in nats.
        law: by default one whose best sizes run through the middles of the sizes.
    """
    _require_design(sizes, budgets, seeds)
    law = law or law_of_middles(sizes, budgets)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(studies):
        fitted = fit_scaling(simulate(law, sizes, budgets, seeds, noise, rng), samples=400, seed=seed, law=False)
        if fitted.parameters:
            e, n = fitted.parameters.exponent, fitted.parameters.at(10 * max(budgets))
            found.append(((e.high - e.low) / 2, n.low / n.estimate, n.high / n.estimate))
    half, low, high = np.median(found, axis=0).tolist() if found else (np.nan, np.nan, np.nan)
    return Expected(half, low, high, len(found) / studies, studies)


def _require_design(sizes: Sizes, budgets: Sequence[float], seeds: Sequence[int]) -> None:
    if not len(sizes) == len(budgets) == len(seeds) > 0:
        given = f"{len(budgets)} budgets, {len(sizes)} lists of sizes, {len(seeds)} numbers of seeds"
        raise ConfigError(f"{given}: expected as many of each")


def law_of_middles(sizes: Sizes, budgets: Sequence[float]) -> Law:
    """A law whose best sizes run through the geometric middles of the sizes, as nearly as a plausible law can."""
    middles = np.array([np.log(own).mean() for own in sizes])
    log_c = np.log(budgets)
    slope = np.polyfit(log_c, middles, 1)[0] if len(budgets) > 1 else 0.45
    exponent = float(np.clip(slope, 0.2, 0.8))
    return Law.through(
        float(np.exp(log_c.mean())), float(np.exp(middles.mean())), a=0.62 * (1 - exponent), b=0.62 * exponent
    )
