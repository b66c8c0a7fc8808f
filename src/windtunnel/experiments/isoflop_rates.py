"""The learning rate of `isoflop-translators`: which is best at the lowest budget, and whether the largest agrees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from windtunnel.experiments.frame import Claim, Findings, Row, Steps, interval, table
from windtunnel.experiments.isoflop_runs import (
    CORPUS,
    THEIR_LR,
    Design,
    Ends,
    Kind,
    Place,
    Rates,
    curve_of,
    ending,
    run,
)
from windtunnel.runs.arms import Arm
from windtunnel.scaling.curves import plain_vertex
from windtunnel.stats.intervals import paired_difference

ISOFLOP = Row("004-2.3.2")
SWEPT, RATES = (8, 16, 32), (THEIR_LR, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
ALIKE = 2.0
"""Best rates of all widths within this factor are one rate."""
TRANSFERS = math.sqrt(2)
"""The rule of the rate holds at the largest budget when the best rate there is within this factor of its own."""


def best_rate(losses: Mapping[float, float]) -> float:
    """The rate at the lowest point of the parabola through the best of these and its neighbours, or the best at an
    edge."""
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda i: losses[rates[i]])
    near = rates[max(0, at - 1) : at + 2]
    if at == 0 or len(near) < 3 or not all(math.isfinite(losses[rate]) for rate in near):
        return rates[at]
    return plain_vertex(np.array(near), np.array([losses[rate] for rate in near]))


def rule_of(best: Mapping[int, float]) -> Rates:
    """The rate of a width, in two digits: their mean where the best ones are alike, else along the line in logs."""
    log_h, log_rate = np.log([*best]), np.log([*best.values()])
    degree = 1 if np.ptp(log_rate) > math.log(ALIKE) else 0
    line = np.polyfit(log_h, log_rate, degree)
    return lambda h: float(f"{math.exp(np.polyval(line, math.log(h))):.1e}")


def sweep(design: Design) -> Steps[Rates]:
    """The rule of the rate, from several rates at the lowest budget."""
    widths: tuple[int, ...] = design.at.size(SWEPT, quick=(8, 16))
    rates: tuple[float, ...] = design.at.size(RATES, quick=(THEIR_LR, 4e-3))
    losses = yield from losses_at(design, "learning rates", {
        (h, lr): ((h, design.least), lr) for h in widths for lr in rates
    })  # fmt: skip
    best = {h: best_rate({lr: float(np.mean(losses[h, lr])) for lr in rates}) for h in widths}
    rule = rule_of(best)
    yield table(f"Learning rates at {design.least:.2g} FLOPs: mean loss of the seeds",
                ("width", *(f"{lr:g}" for lr in rates), "best", "rule"),
                ((f"h {h}", *(f"{np.mean(losses[h, lr]):.3f}" for lr in rates), f"{best[h]:.2g}", f"{rule(h):g}")
                 for h in widths))  # fmt: skip
    spread = max(best.values()) / min(best.values())
    yield ISOFLOP.shows(
        f"one learning rate serves all widths at {design.least:.2g} FLOPs (best ones within a factor of {ALIKE:g})",
        spread <= ALIKE, f"best {', '.join(f'{lr:.2g} at h {h}' for h, lr in best.items())}", best=best,
    )  # fmt: skip
    for h in widths:
        yield theirs_is_best(h, {lr: losses[h, lr] for lr in rates})
    return rule


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
    kind = Kind(CORPUS, design.batch, lambda _: lr)
    return ending(design.at, place, design.costs[place[0]], kind, f"h {place[0]}, lr {lr:g}")


def theirs_is_best(h: int, losses: Mapping[float, Sequence[float]]) -> Claim:
    """Whether the source's rate ends as low as the best one."""
    best = min(losses, key=lambda lr: float(np.mean(losses[lr])))
    statement = f"h {h}: the source's rate {THEIR_LR:g} ends as low as the best of {len(losses)}"
    if best == THEIR_LR:
        return ISOFLOP.shows(statement, True, f"{best:g} is the best", best=best)
    gap = paired_difference(losses[best], losses[THEIR_LR])
    return ISOFLOP.within(statement, gap, high=0.0, shown=f"{interval(gap, '+.3f')} nats a token above {best:g}")


def transfers(design: Design, rates: Rates, own: Ends) -> Findings:
    """Whether the rule's rate is near the best one at the largest budget, too."""
    widths = sorted(design.sizes[design.most])
    h = widths[len(widths) // 2]
    place = (h, design.most)
    found = yield from losses_at(design, "the rule at the largest budget", {
        (h, factor): (place, factor * rates(h)) for factor in (0.5, 2.0)
    })  # fmt: skip
    losses = {factor: each for (_, factor), each in found.items()}
    losses[1.0] = [float(curve.loss[-1]) for (where, _), curve in own.items() if where == place]
    best = best_rate({factor: float(np.mean(each)) for factor, each in losses.items()})
    said = ", ".join(f"x {factor:g} {np.mean(losses[factor]):.3f}" for factor in sorted(losses))
    yield ISOFLOP.shows(
        f"the rule holds at {design.most:.2g} FLOPs, h {h}: the best rate is within a factor of {TRANSFERS:.2g} of it",
        1 / TRANSFERS <= best <= TRANSFERS, f"x {best:.2f}; losses {said}", best=best,
    )  # fmt: skip
