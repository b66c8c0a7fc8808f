"""Before the seeds are paid for: how many a difference of the margin takes, and how long that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.comparison.verdict import FEWEST_SEEDS
from windtunnel.programs.arms import JudgePlan
from windtunnel.programs.judge import paired, rule_of
from windtunnel.programs.measured import Measured
from windtunnel.stats.digits import number
from windtunnel.stats.power import seeds_needed, seeds_to_equivalence

MOST = 10_000


@dataclass(frozen=True)
class Need:
    """What an arm takes. The mean difference of the pilot is not looked at.

    sd: spread of the paired differences; low, high: its 95 % interval, which from two pilot seeds is wide.
    seeds: that find a difference as large as the margin with the rule's power. same: that show one of 0 to be below
        the margin. least, most: seeds at the ends of the interval of the spread. None is above 10,000.
    hours: of all arms with `seeds`, one run after another or --jobs at once; None where runs have no time.
    """

    arm: str
    pilot: int
    sd: float
    low: float
    high: float
    margin: float
    power: float
    seeds: int | None
    least: int | None
    most: int | None
    same: int | None
    hours: float | None

    @property
    def sentence(self) -> str:
        """What to expect."""
        if math.isnan(self.sd):
            return f"{self.arm}: no plan: fewer than two pilot seeds can be held against the baseline's"
        many = f"{self.seeds} seeds" if self.seeds else "more than 10,000 seeds"
        took = "" if self.hours is None else f", {number(self.hours, 2)} hours for all arms"
        ends = f"{self.least or 'more than 10,000'} to {self.most or 'more than 10,000'}"
        same = f"{self.same} seeds" if self.same else "more than 10,000 seeds"
        return (
            f"{self.arm}: {many} find a difference of the margin, {number(self.margin)}, at {self.power:.0%} power"
            f"{took}; {same} show that there is none as large. From {self.pilot} pilot seeds: differences spread by "
            f"{number(self.sd)} [{number(self.low)}, {number(self.high)}], so it may be {ends} seeds"
        )


def needs(plan: JudgePlan, arms: Sequence[Measured]) -> list[Need]:
    """What each arm beside the baseline takes, from the runs that are there."""
    pairs, rule = paired(arms, plan), rule_of(arms, plan)
    level = plan.alpha / max(1, len(arms) - 1)
    seconds = [arm.seconds() for arm in arms]

    def seeds(sd: float) -> int | None:
        n = seeds_needed(rule.margin, sd, rule.power, level, at_most=MOST)
        return None if n is None else max(FEWEST_SEEDS, n)

    found = []
    for arm in arms[1:]:
        own = [d for _, d in pairs.get(arm.name, ()) if math.isfinite(d)]
        sd = statistics.stdev(own) if len(own) > 1 else math.nan
        if math.isnan(sd):
            found.append(Need(arm.name, len(own), sd, sd, sd, rule.margin, rule.power, None, None, None, None, None))
            continue
        low, high = _spread(sd, len(own))
        n, same = seeds(sd), seeds_to_equivalence(0.0, sd, rule.margin, rule.power, level, at_most=MOST)
        hours = None
        if n and all(seconds):
            hours = n * plan.repeat * sum(s or 0.0 for s in seconds) / plan.jobs / 3600
        same = None if same is None else max(FEWEST_SEEDS, same)
        found.append(
            Need(arm.name, len(own), sd, low, high, rule.margin, rule.power, n, seeds(low), seeds(high), same, hours)
        )
    return found


def _spread(sd: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a normal spread, from the chi-square distribution with n - 1 degrees of freedom."""
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / chdtri(n - 1, 0.025)), sd * math.sqrt((n - 1) / chdtri(n - 1, 0.975))
