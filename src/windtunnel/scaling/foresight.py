"""What a planned study may be expected to find, by simulation, and which change of its design would be worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.scaling.design import STEP_OF_BUDGETS, guess
from windtunnel.scaling.plan import StudyPlan
from windtunnel.scaling.simulate import Expected, expected

NOISES = (0.01, 0.03)
"""Nats by which seeds may differ; nobody knows before they are trained."""
STUDIES = 30
WORTH = 0.75
"""A change is worth its time where it narrows the exponent's interval to less than this share."""


@dataclass(frozen=True)
class Foresight:
    """What is expected at a noise, and of the two ways to spend more on it.

    cost: of each way, FLOPs by those of the plan.
    """

    noise: float
    planned: Expected
    seeds: Expected
    seeds_cost: float
    budget: Expected
    budget_cost: float

    def __str__(self) -> str:
        p = self.planned
        if p.fitted < 0.5:
            return f"seeds that differ by {self.noise:g} nats: most studies would have no fit; give more seeds"
        said = (
            f"seeds that differ by {self.noise:g} nats: the exponent of N*(C) to +- {p.exponent:.3f}, N* at 10 x the "
            f"largest budget within a factor of {p.low:.2f} to {p.high:.2f}"
        )
        ways = [
            f"{name} would make it +- {way.exponent:.3f} for {cost:.1f} x the FLOPs"
            for name, way, cost in (
                ("as many seeds at every budget", self.seeds, self.seeds_cost),
                ("one more budget below", self.budget, self.budget_cost),
            )
            if way.exponent < WORTH * p.exponent
        ]
        return "; ".join([said, *ways])


def foresee(plan: StudyPlan) -> list[Foresight]:
    """Simulate the plan at the NOISES, and beside it one with all seeds everywhere, and one with a budget more."""
    sizes = [[float(size.parameters) for size in row.sizes] for row in plan.rows]
    seeds, most = [row.seeds for row in plan.rows], max(row.seeds for row in plan.rows)
    lower = plan.budgets[0] / STEP_OF_BUDGETS
    below = [float(size.parameters) for size in plan.design.around(guess(lower))]
    ways = (
        (sizes, plan.budgets, seeds),
        (sizes, plan.budgets, [most] * len(seeds)),
        ([below, *sizes], (lower, *plan.budgets), [most, *seeds]),
    )
    costs = [_flops(*way) / _flops(*ways[0]) for way in ways]
    found = []
    for noise in NOISES:
        planned, more, longer = (expected(*way, noise, studies=STUDIES) for way in ways)
        found.append(Foresight(noise, planned, more, costs[1], longer, costs[2]))
    return found


def _flops(sizes: Sequence[Sequence[float]], budgets: Sequence[float], seeds: Sequence[int]) -> float:
    return sum(len(own) * budget * n for own, budget, n in zip(sizes, budgets, seeds, strict=True))
