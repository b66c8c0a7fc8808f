"""The learning rate of `isoflop-translators`: which is best for a width at the lowest budget, and at the largest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from windtunnel.experiments.frame import Claim, Row, Steps, interval, table
from windtunnel.experiments.isoflop_runs import (
    CORPUS,
    THEIR_LR,
    Design,
    Kind,
    Place,
    Rates,
    curve_of,
    ending,
    run,
)
from windtunnel.runs.arms import Arm
from windtunnel.scaling.sweep import best_rate
from windtunnel.stats.intervals import paired_difference

ISOFLOP = Row("004-2.3.2")
SWEPT, RATES = (8, 16, 32), (THEIR_LR, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
TOP_RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2)
"""Of the second width, at the largest budget."""
ALIKE = 2.0
"""Best rates of all widths within this factor are one rate."""


def rule_of(best: Mapping[int, float]) -> Callable[[int], float]:
    """The rate of a width: the mean of the best ones where they are alike, else along the line in logs, and beyond the
    swept widths that of the nearest."""
    log_h, log_rate = np.log([*best]), np.log([*best.values()])
    degree = 1 if np.ptp(log_rate) > math.log(ALIKE) else 0
    line = np.polyfit(log_h, log_rate, degree)
    return lambda h: math.exp(np.polyval(line, np.clip(math.log(h), log_h.min(), log_h.max())))


def over_budgets(rule: Callable[[int], float], least: float, most: float, factor: float) -> Rates:
    """The rate of a width and a budget, in two digits: the rule's at the lowest budget, and `factor` of it at the
    largest."""
    power = math.log(factor) / math.log(most / least)
    return lambda h, budget: float(f"{rule(h) * (budget / least) ** power:.1e}")


def sweep(design: Design) -> Steps[Rates]:
    """The rule of the rate, from several rates at the lowest budget, and of one width at the largest."""
    widths: tuple[int, ...] = design.at.size(SWEPT, quick=(8, 16))
    rates: tuple[float, ...] = design.at.size(RATES, quick=(THEIR_LR, 4e-3))
    losses = yield from losses_at(design, "learning rates", {
        (h, lr): ((h, design.least), lr) for h in widths for lr in rates
    })  # fmt: skip
    best = {h: best_rate({lr: float(np.mean(losses[h, lr])) for lr in rates}) for h in widths}
    rule = rule_of(best)
    yield table(f"Learning rates at {design.least:.2g} FLOPs: mean loss of the seeds",
                ("width", *(f"{lr:g}" for lr in rates), "best", "rule"),
                ((f"h {h}", *(f"{np.mean(losses[h, lr]):.3f}" for lr in rates), f"{best[h]:.2g}", f"{rule(h):.2g}")
                 for h in widths))  # fmt: skip
    spread = max(best.values()) / min(best.values())
    yield ISOFLOP.shows(
        f"one learning rate serves all widths at {design.least:.2g} FLOPs (best ones within a factor of {ALIKE:g})",
        spread <= ALIKE, f"best {', '.join(f'{lr:.2g} at h {h}' for h, lr in best.items())}", best=best,
    )  # fmt: skip
    for h in widths:
        yield theirs_is_best(h, {lr: losses[h, lr] for lr in rates})
    factor = yield from at_the_largest(design, widths[1], rule(widths[1]))
    return over_budgets(rule, design.least, design.most, factor)


def at_the_largest(design: Design, h: int, rate: float) -> Steps[float]:
    """The best rate of a width at the largest budget, as a factor of that at the lowest."""
    rates: tuple[float, ...] = design.at.size(TOP_RATES, quick=(2e-3, 4e-3))
    what = "learning rates at the largest budget"
    losses = yield from losses_at(design, what, {(h, lr): ((h, design.most), lr) for lr in rates})
    means = {lr: float(np.mean(losses[h, lr])) for lr in rates}
    best = best_rate(means)
    said = ", ".join(f"{lr:g} {loss:.3f}" for lr, loss in means.items())
    yield ISOFLOP.shows(
        f"h {h}: the best rate at {design.most:.2g} FLOPs is that at {design.least:.2g}, within a factor of {ALIKE:g}",
        1 / ALIKE <= best / rate <= ALIKE, f"{best:.2g} after {rate:.2g}; losses: {said}", best=best,
    )  # fmt: skip
    return best / rate


def losses_at(
    design: Design, what: str, wanted: Mapping[tuple[int, float], tuple[Place, float]]
) -> Steps[dict[tuple[int, float], list[float]]]:
    """The last loss of every seed, by what names a run, of runs to a budget with a rate; of one that diverged inf."""
    arms = {key: _arm(design, place, lr) for key, (place, lr) in wanted.items()}
    grid = yield from run(design, what, list(arms.values()))
    found = {}
    for key, arm in arms.items():
        ended = [curve_of(grid.folders[arm.name, seed], seed, design.costs[key[0]]) for seed in grid.seeds]
        found[key] = [float(c.loss[-1]) if c else math.inf for c in ended]
    return found


def _arm(design: Design, place: Place, lr: float) -> Arm:
    kind = Kind(CORPUS, design.batch, lambda *_: lr)
    return ending(design.at, place, design.costs[place[0]], kind, f"h {place[0]}, lr {lr:g}")


def theirs_is_best(h: int, losses: Mapping[float, Sequence[float]]) -> Claim:
    """Whether the source's rate ends as low as the best one."""
    best = min(losses, key=lambda lr: float(np.mean(losses[lr])))
    statement = f"h {h}: the source's rate {THEIR_LR:g} ends as low as the best of {len(losses)}"
    if best == THEIR_LR:
        return ISOFLOP.shows(statement, True, f"{best:g} is the best", best=best)
    gap = paired_difference(losses[best], losses[THEIR_LR])
    return ISOFLOP.within(statement, gap, high=0.0, shown=f"{interval(gap, '+.3f')} nats per token above {best:g}")
