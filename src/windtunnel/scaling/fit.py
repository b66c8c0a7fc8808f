"""Fit the points of a scaling study: every part has its interval, or is refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from windtunnel.config import plain
from windtunnel.errors import ConfigError
from windtunnel.scaling.draws import Refusal
from windtunnel.scaling.isoflop import Compute, Parabola, Size, Vertices, fit_parabolas
from windtunnel.scaling.laws import FEWEST_BUDGETS, PowerLaw, fit_power_law
from windtunnel.scaling.points import Points
from windtunnel.stats.intervals import Estimate

MOST_EPOCHS = 4
"""Beyond so many passes over a text repeats are worth clearly less than new text (Muennighoff et al. 2023)."""


@dataclass(frozen=True)
class Forecast:
    """What is best at a budget: N, D and the loss in nats per token; None where the part was refused.

    decades: how many powers of ten beyond the largest fitted budget (below 0: within or below the budgets).
    """

    compute: float
    parameters: Estimate | None
    tokens: Estimate | None
    loss: Estimate | None
    decades: float


@dataclass(frozen=True, eq=False)
class Scaling:
    """The fits of a study.

    parabolas: one a budget; parameters: N*(C); tokens: D*(C); notes: what to keep in mind; refusals: what has no
    number, and the cure.
    """

    points: Points = field(repr=False)
    size: Size
    compute: Compute
    parabolas: tuple[Parabola, ...]
    parameters: PowerLaw | None
    tokens: PowerLaw | None
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]

    @property
    def largest_budget(self) -> float:
        """C at the vertex of the largest usable budget, else the largest sampled C."""
        usable = [p.compute for p in self.parabolas if p.refusal is None]
        return max(usable or [p.compute for p in self.parabolas])

    def at(self, compute: float) -> Forecast:
        """The forecast at so many FLOPs. Raises ConfigError unless they are a finite number above 0."""
        if not 0 < compute < np.inf:
            raise ConfigError(f"a forecast at {compute:g} FLOPs: expected a finite number above 0, such as 1e15")
        decades = float(np.log10(compute / self.largest_budget))
        n, d = (law.at(compute) if law else None for law in (self.parameters, self.tokens))
        return Forecast(compute, n, d, None, decades)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "size": self.size,
            "compute": self.compute,
            "runs": len(self.points),
            "parabolas": plain(self.parabolas),
            "parameters_exponent": plain(self.parameters.exponent) if self.parameters else None,
            "tokens_exponent": plain(self.tokens.exponent) if self.tokens else None,
            "notes": list(self.notes),
            "refusals": plain(self.refusals),
        }


def fit_scaling(
    points: Points,
    *,
    samples: int = 1000,
    seed: int = 0,
    size: Size = "parameters",
    compute: Compute = "flops",
    repeat_data: bool = False,
) -> Scaling:
    """Parabolas at each budget and the laws through their vertices, with 95 % intervals.

    Args:
        samples: draws that the intervals are made of.
        size: count parameters without embeddings, or all of them.
        compute: C as counted, or as 6ND.
        repeat_data: fit runs that saw their text more than four times as well.

    Raises:
        ConfigError: for fewer than 100 samples, or all_parameters where the points have none.
    """
    if samples < 100:
        raise ConfigError(f"samples is {samples}: an interval of 95 % needs at least 100 draws, better 1000")
    if size == "all_parameters" and points.all_parameters is None:
        raise ConfigError("size is all_parameters, but the points have no such column; add it, or say size=parameters")
    rng = np.random.default_rng(seed)
    parabolas, vertices = fit_parabolas(points, size, compute, samples, rng)
    refusals = [Refusal(f"the budget {p.budget:.3g}", p.refusal) for p in parabolas if p.refusal]
    laws, refused = _laws(vertices, rng)
    return Scaling(points, size, compute, parabolas, *laws, points.notes, (*refusals, *refused))


def _laws(
    found: Vertices | None, rng: np.random.Generator
) -> tuple[tuple[PowerLaw | None, PowerLaw | None], list[Refusal]]:
    n = 0 if found is None else len(found.compute)
    if found is None or n < FEWEST_BUDGETS:
        why = f"{n} budgets are usable, and a line needs at least {FEWEST_BUDGETS}; mend those refused, or add budgets."
        return (None, None), [Refusal("N*(C) and D*(C)", why)]
    rest = (found.runs, found.method, rng)
    size = fit_power_law(found.compute, found.size, found.size_draws, *rest)
    tokens = fit_power_law(found.compute, found.tokens, found.tokens_draws, *rest)
    return (size, tokens), []
