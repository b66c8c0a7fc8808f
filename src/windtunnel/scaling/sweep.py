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

from windtunnel.scaling.design import Design, RateRule, Size
from windtunnel.scaling.plan import RATES
from windtunnel.scaling.runner import News, Runner

AGREE = 2.0
"""The rule holds when the best rates of all sizes, as factors of the rule's, lie within this factor."""
MOST_ROUNDS = 6
"""How often the sweep is widened where the best rate is at its edge."""


@dataclass(frozen=True)
class Sweep:
    """What the sweep found.

    losses: by the number of parameters and the factor of the rule's rate.
    best: of each size the factor with the least loss, between those that were trained.
    edge: sizes whose best rate lies at the edge of the sweep after all.
    rule: with which the study goes on.
    """

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
        agree = "agree within" if self.holds else "differ by more than"
        said = f"the best learning rate is the rule's {found}; these {agree} a factor of {AGREE:g}, so "
        said += "the power stays" if self.holds else f"the power is now {self.rule.power:.2f}"
        if self.edge:
            said += f"; at {', '.join(f'{n:,}' for n in self.edge)} parameters the best is at the edge of the sweep"
        return f"{said}: {self.rule}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "before": str(self.before),
            "rule": vars(self.rule),
            "holds": self.holds,
            "spread": self.spread,
            "edge": list(self.edge),
            "best": [{"parameters": n, "factor": factor} for n, factor in self.best.items()],
            "runs": [
                {"parameters": n, "factor": factor, "loss": loss if math.isfinite(loss) else None}
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
    return conclude_sweep(design.rule, sizes, losses, design.batch(sizes[0], budget))


def conclude_sweep(
    rule: RateRule, sizes: Sequence[Size], losses: Mapping[int, Mapping[float, float]], batch: int
) -> Sweep:
    """Keep the rule's power when the sizes agree, and fit it when they do not; its rate is fitted either way."""
    best = {size.parameters: _vertex(losses[size.parameters]) for size in sizes}
    edge = tuple(n for n, of in losses.items() if _beyond(of) is not None)
    logs = np.log([size.width for size in sizes]) - math.log(rule.width)
    factors = np.log(list(best.values()))
    holds = float(np.ptp(factors)) < math.log(AGREE)
    slope, shift = (0.0, float(factors.mean())) if holds else map(float, np.polyfit(logs, factors, 1))
    new = replace(
        rule,
        lr=rule.lr * math.exp(shift),
        matrix_lr=rule.matrix_lr * math.exp(float(factors.mean())),
        power=rule.power - slope,
    )
    return Sweep(rule, losses, best, edge, holds, new)


def _beyond(losses: Mapping[float, float]) -> float | None:
    """The factor that is to be tried next, where the best is at the edge."""
    factors = sorted(losses)
    best = min(factors, key=lambda factor: losses[factor])
    if math.isinf(losses[best]):
        return factors[0] / 4  # all diverged
    if best == factors[0]:
        return factors[0] / 2
    return 2 * factors[-1] if best == factors[-1] else None


def _vertex(losses: Mapping[float, float]) -> float:
    """The lowest point of the parabola in the logarithm of the factor through the best and its neighbours."""
    factors = sorted(losses)
    at = factors.index(min(factors, key=lambda factor: losses[factor]))
    near = factors[at - 1 : at + 2]
    if at == 0 or len(near) < 3 or not all(math.isfinite(losses[factor]) for factor in near):
        return factors[at]
    curve, slope, _ = np.polyfit(np.log(near), [losses[factor] for factor in near], 2)
    if curve <= 0:
        return factors[at]
    return float(np.clip(math.exp(-slope / (2 * curve)), near[0], near[2]))
