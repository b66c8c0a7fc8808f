"""The plan of a scaling study: its budgets follow from the minutes that there are, and its runs from the budgets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windtunnel.errors import ConfigError, DataError
from windtunnel.scaling.design import STEP_OF_BUDGETS, Design, Size, guess
from windtunnel.scaling.notes import MOST_EPOCHS
from windtunnel.scaling.pace import Pace, makespan

BUDGETS, MOST_BUDGETS = 4, 12
MOST_MINUTES = 1e6
"""About two years."""
HOLD_OUT_STEP = 4.0
"""The budget of the hold-out by the largest that is fitted."""
RATES = (0.5, 1.0, 2.0)
"""Of the rule's learning rate, in the sweep."""
LADDER = 20
"""The largest budget is 10^(k / LADDER), so that plans of about the same minutes find each other's runs."""


@dataclass(frozen=True)
class Row:
    """What is planned for one budget.

    rates: runs beside the sizes', which check the learning rate. extra: runs kept for sizes that the search adds.
    """

    budget: float
    sizes: tuple[Size, ...]
    seeds: int
    batch: int
    rates: int
    extra: int
    minutes: float

    @property
    def n_runs(self) -> int:
        """Without the extra ones."""
        return len(self.sizes) * self.seeds + self.rates


@dataclass(frozen=True)
class StudyPlan:
    """All that is decided before the first run; the sizes are a guess that the search corrects.

    hold_out: the runs of the test of the forecast, or None.
    reserved: seeds of a hold-out for which the budgets leave time.
    """

    design: Design
    pace: Pace
    sweep: Row
    rows: tuple[Row, ...]
    hold_out: Row | None
    reserved: int

    @property
    def parts(self) -> tuple[Row, ...]:
        """Sweep, budgets and hold-out, in the order in which they are trained."""
        return (self.sweep, *self.rows, *([self.hold_out] if self.hold_out else []))

    @property
    def budgets(self) -> tuple[float, ...]:
        """FLOPs of a run, ascending, without the hold-out's."""
        return tuple(row.budget for row in self.rows)

    @property
    def minutes(self) -> float:
        """Of the clock, with the runs that are kept for the search."""
        return sum(row.minutes for row in self.parts)

    @property
    def leaves_time(self) -> bool:
        """Whether the budgets were chosen so that there is time for the hold-out as well."""
        return self.hold_out is not None and self.hold_out.seeds <= self.reserved

    @property
    def flops(self) -> float:
        """Of all runs, without those that are kept for the search."""
        return sum(row.n_runs * row.budget for row in self.parts)

    @property
    def n_runs(self) -> int:
        """Without those that are kept for the search."""
        return sum(row.n_runs for row in self.parts)

    @property
    def epochs(self) -> float:
        """How often the run that repeats its text most reads it."""
        return max(self.design.epochs(size, row.budget) for row in self.parts for size in row.sizes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "dial": self.design.dial,
            "rate": str(self.design.rule),
            "at_once": self.pace.at_once,
            "runs": self.n_runs,
            "flops": self.flops,
            "minutes": self.minutes,
            "minutes_of_hold_out": self.hold_out.minutes if self.hold_out else 0.0,
            "minutes_include_hold_out": self.leaves_time,
            "epochs": self.epochs,
            "budgets": [
                {
                    "flops": row.budget, "seeds": row.seeds, "batch": row.batch, "minutes": row.minutes,
                    "parameters": [size.parameters for size in row.sizes],
                }
                for row in self.rows
            ],
        }  # fmt: skip


def make_plan(
    design: Design,
    pace: Pace,
    minutes: float,
    seeds: int = 3,
    n_budgets: int = BUDGETS,
    hold_out: int = 0,
    repeat_data: bool = False,
) -> StudyPlan:
    """The plan with the largest budgets that these minutes allow.

    Args:
        seeds: of each size at the two lowest budgets; the others have one.
        hold_out: seeds of the test of the forecast; 0 is no test.
        repeat_data: whether text may be read more than four times.

    Raises:
        ConfigError: for too few minutes, saying how many it takes.
        DataError: when text would be read more than four times, with the minutes whose budgets would fit.
    """
    check_asked(minutes, seeds, n_budgets, hold_out)

    def at(k: int) -> StudyPlan:
        return _plan(design, pace, 10 ** (k / LADDER), seeds, n_budgets, hold_out)

    k = _smallest(at)
    plan = at(k)
    if plan.minutes > minutes:
        raise ConfigError(
            f"--minutes {minutes:g} is too few: the smallest study of this config, whose runs have at least "
            f"{design.fewest_steps} steps, takes {math.ceil(plan.minutes)} minutes here; fewer --seeds or --budgets, "
            "or a shorter --set model.context_length, take less"
        )
    plans = [plan]
    while (larger := at(k + len(plans))).minutes <= minutes:
        plans.append(larger)
    plan = plans[-1]
    if plan.epochs > MOST_EPOCHS and not repeat_data:
        raise DataError(
            f"a run of this study would read its {design.unique:,.0f} tokens {plan.epochs:.1f} times, and beyond "
            f"{MOST_EPOCHS} times repeated text teaches less than new text, so the fits would not be of the size; "
            f"{_fitting([*plans, larger])} would fit; or give more text, or --repeat-data to do it all the same"
        )
    return plan


def _fitting(plans: Sequence[StudyPlan]) -> str:
    """The most minutes whose plan repeats its text little enough."""
    fits, most = "no smaller study", 0.0
    for plan, larger in itertools.pairwise(plans):
        most = max(most, plan.minutes)
        given = math.ceil(1000 * most) / 1000
        if plan.epochs <= MOST_EPOCHS and given < larger.minutes:
            fits = f"--minutes {given:g}"
    return fits


def check_asked(minutes: float, seeds: int, n_budgets: int, hold_out: int) -> None:
    """Raise ConfigError for what no study can be asked for, before anything is timed for it."""
    if not 0 < minutes <= MOST_MINUTES:
        raise ConfigError(f"expected --minutes above 0 and at most {MOST_MINUTES:g}, given {minutes:g}")
    if seeds < 1 or hold_out < 0:
        raise ConfigError(f"expected at least one seed, given {seeds}, and {hold_out} for the hold-out")
    if not 3 <= n_budgets <= MOST_BUDGETS:
        raise ConfigError(f"a power law needs at least 3 budgets, and {MOST_BUDGETS} are the most; given {n_budgets}")


def _smallest(at: Callable[[int], StudyPlan]) -> int:
    """The least k whose runs all have their steps."""
    for k in range(6 * LADDER, 30 * LADDER):
        try:
            at(k)
        except ConfigError:
            continue
        return k
    raise ConfigError("no budget up to 1e30 FLOPs leaves a run enough steps")


def _plan(design: Design, pace: Pace, largest: float, seeds: int, n_budgets: int, hold_out: int) -> StudyPlan:
    budgets = [largest / STEP_OF_BUDGETS**i for i in reversed(range(n_budgets))]
    rows = tuple(
        _row(design, pace, budget, design.around(guess(budget)), seeds if i < 2 else 1, _rates(i, n_budgets), 1)
        for i, budget in enumerate(budgets)
    )
    swept = rows[0].sizes[1], rows[0].sizes[2], rows[0].sizes[3]
    sweep = _row(design, pace, budgets[0], swept, len(RATES), 0, 2)
    return with_hold_out(StudyPlan(design, pace, sweep, rows, None, hold_out), hold_out)


def with_hold_out(plan: StudyPlan, seeds: int) -> StudyPlan:
    """The plan with the test of its forecast on so many seeds; 0 is no test."""
    if seeds == 0:
        return replace(plan, hold_out=None)
    test = HOLD_OUT_STEP * plan.budgets[-1]
    sizes = plan.design.around(guess(test), 3)
    return replace(plan, hold_out=_row(plan.design, plan.pace, test, sizes, seeds, 0, 0))


def _rates(i: int, n_budgets: int) -> int:
    """Runs that check the rate at budget number i: none at the lowest, which has the sweep, and at the highest, where
    they would cost most."""
    return len(RATES) - 1 if 0 < i < n_budgets - 1 else 0


def _row(design: Design, pace: Pace, budget: float, sizes: Sequence[Size], seeds: int, rates: int, extra: int) -> Row:
    times = [pace.run(design, size, budget) for size in sizes]
    total = makespan(times, pace.at_once)  # those of one seed are looked at before the others begin
    total += extra * times[0] + makespan([times[len(times) // 2]] * rates, pace.at_once)
    total += makespan(times * (seeds - 1), pace.at_once) if seeds > 1 else 0.0
    return Row(budget, tuple(sizes), seeds, design.batch(sizes[len(sizes) // 2], budget), rates, extra, total / 60)
