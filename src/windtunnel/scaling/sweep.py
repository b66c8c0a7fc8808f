"""Is the rule of the learning rate right? A few rates at several sizes, before anything is fitted.

The rate decides more than the size: with one that is wrong for some sizes, the best size is that of the rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from windtunnel.config import plain
from windtunnel.scaling.design import Design, RateRule, Size
from windtunnel.scaling.plan import RATES
from windtunnel.scaling.runner import News, Runner

AGREE = 2.0
"""The rule holds when the best rates of all sizes, as factors of the rule's, lie within this factor."""
MOST_POWER = 1.0
"""Of the width, from 0 on: a power beyond is a sign of noise, and would ruin the larger sizes to come."""
TRANSFERS = math.sqrt(2)
"""The rule holds at a further budget when the best rate there is within this factor of its own."""
MOST_ROUNDS = 6
"""How often the sweep is widened where the best rate is at its edge."""


@dataclass(frozen=True)
class Sweep:
    """What the sweep found.

    budget: FLOPs of each run.
    losses: by the number of parameters and the factor of the rule's rate.
    best: of each size the factor with the least loss, between those that were trained.
    edge: sizes whose best rate lies at the edge of the sweep after all.
    rule: with which the study goes on.
    """

    budget: float
    before: RateRule
    losses: Mapping[int, Mapping[float, float]]
    best: Mapping[int, float]
    edge: tuple[int, ...]
    holds: bool
    rule: RateRule

    @property
    def spread(self) -> float:
        """The largest of the best factors by the smallest."""
        return max(self.best.values()) / min(self.best.values())

    def __str__(self) -> str:
        found = ", ".join(f"x {factor:.2g} at {n:,} parameters" for n, factor in self.best.items())
        said = f"{self.budget:.1e} FLOPs: the best learning rate is the rule's {found}"
        if len(self.best) > 1:
            said += f"; these {'agree within' if self.holds else 'differ by more than'} a factor of {AGREE:g}"
            said += "" if self.holds else f", so the power of the width is now {self.rule.power:.2f}"
        elif self.holds:
            said += f", within a factor of {TRANSFERS:.2g}: the rule holds at this budget"
        else:
            said += ", so from here on the rule has that rate"
        if self.edge:
            said += f"; at {', '.join(f'{n:,}' for n in self.edge)} parameters the best is at the edge of the sweep"
        return f"{said}: {self.rule}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "budget": self.budget,
            "before": str(self.before),
            "rule": vars(self.rule),
            "holds": self.holds,
            "spread": self.spread,
            "edge": list(self.edge),
            "best": [{"parameters": n, "factor": factor} for n, factor in self.best.items()],
            "runs": [
                {"parameters": n, "factor": factor, "loss": plain(loss)}
                for n, of in self.losses.items()
                for factor, loss in sorted(of.items())
            ],
        }


def sweep_rates(design: Design, sizes: Sequence[Size], budget: float, runner: Runner) -> Generator[News, None, Sweep]:
    """Train the sizes with the rule's rate times RATES, and further out where the best is at the edge."""
    losses: dict[int, dict[float, float]] = {size.parameters: {} for size in sizes}
    wanted = list(itertools.product(sizes, RATES))
    for _ in range(1 + MOST_ROUNDS):
        arms = {(size, factor): design.arm(size, budget, factor) for size, factor in wanted}
        found = yield from runner.losses(list(arms.values()), [0])
        for (size, factor), arm in arms.items():
            losses[size.parameters][factor] = found[arm.name, 0]
        wanted = [(size, beyond) for size in sizes if (beyond := _beyond(losses[size.parameters])) is not None]
        if not wanted:
            break
    conclude = conclude_width if len(sizes) > 1 else conclude_budget
    return conclude(design.rule, sizes, losses, budget)


Losses = Mapping[int, Mapping[float, float]]


def conclude_width(rule: RateRule, sizes: Sequence[Size], losses: Losses, budget: float) -> Sweep:
    """At the lowest budget: keep the power of the width when the sizes agree, and fit it when they do not; the rate is
    fitted either way."""
    best = {size.parameters: best_rate(losses[size.parameters]) for size in sizes}
    logs = np.log([size.width for size in sizes]) - math.log(rule.width)
    factors = np.log(list(best.values()))
    holds = float(np.ptp(factors)) < math.log(AGREE)
    slope = 0.0 if holds else float(np.polyfit(logs, factors, 1)[0])
    power = min(max(rule.power - slope, 0.0), MOST_POWER)
    shift = float((factors + (power - rule.power) * logs).mean())
    moved, matrices = rule.lr * math.exp(shift), rule.matrix_lr * math.exp(float(factors.mean()))
    new = replace(rule, lr=moved, matrix_lr=matrices, power=power)
    return Sweep(budget, rule, losses, best, _edge(losses), holds, new)


def conclude_budget(rule: RateRule, sizes: Sequence[Size], losses: Losses, budget: float) -> Sweep:
    """At a further budget: where the best rate is far from the rule's, the rule moves there.

    It gets no power of the budget: two budgets half a decade apart would tell one that is mostly noise, and the largest
    budget would have the rate that follows from it.
    """
    (size,) = sizes
    factor = best_rate(losses[size.parameters])
    holds = abs(math.log(factor)) <= math.log(TRANSFERS)
    return Sweep(
        budget, rule, losses, {size.parameters: factor}, _edge(losses), holds, rule if holds else rule.times(factor)
    )


def _edge(losses: Losses) -> tuple[int, ...]:
    return tuple(n for n, of in losses.items() if _beyond(of) is not None)


def _beyond(losses: Mapping[float, float]) -> float | None:
    """The factor that is to be tried next, where the best is at the edge."""
    factors = sorted(losses)
    best = min(factors, key=lambda factor: losses[factor])
    if math.isinf(losses[best]):
        return factors[0] / 4  # all diverged
    if best == factors[0]:
        return factors[0] / 2
    return 2 * factors[-1] if best == factors[-1] else None


def best_rate(losses: Mapping[float, float]) -> float:
    """The rate, or factor of one, with the least loss: at the lowest point of the parabola in its logarithm through the
    best of those tried and its neighbours; the best itself at an edge, or beside one that diverged."""
    rates = sorted(losses)
    at = rates.index(min(rates, key=lambda rate: losses[rate]))
    near = rates[at - 1 : at + 2]
    if at == 0 or len(near) < 3 or not all(math.isfinite(losses[rate]) for rate in near):
        return rates[at]
    curve, slope, _ = np.polyfit(np.log(near), [losses[rate] for rate in near], 2)
    if curve <= 0:
        return rates[at]
    return float(np.clip(math.exp(-slope / (2 * curve)), near[0], near[2]))
