"""From paired differences to verdicts: pure functions of numbers, held to their error rate by calibration tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.stats.multiplicity import dunnett_p
from windtunnel.stats.paired import mcnemar, sign_flip_test, t_test, tost
from windtunnel.stats.power import seeds_needed, seeds_to_equivalence
from windtunnel.stats.sequential import nominal_level

FEWEST_SEEDS = 4
"""Fewer never decide anything: from so few values nobody can tell whether they are anything like normal."""

Word = Literal["better", "worse", "no difference that matters", "undecided"]
Correction = Literal["holm", "dunnett", "bonferroni", "none"]


@dataclass(frozen=True)
class Rule:
    """What turns differences into verdicts.

    margin: a difference below it does not matter; in the unit of the differences.
    alpha: the chance that any arm is called better or worse when none differs; the same for wrong equivalences.
    correction: for several arms. Holm (1979) assumes nothing; Dunnett (1955) is sharper where all arms scatter alike.
    looks: after which numbers of seeds the verdict is, or may be, taken; None is once, at the end.
    better: whether lower or higher values of the metric are.
    """

    margin: float
    alpha: float = 0.05
    power: float = 0.8
    correction: Correction = "holm"
    looks: tuple[int, ...] | None = None
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True)
class Verdict:
    """What the seeds say of one arm against the baseline."""

    arm: str
    word: Word
    difference: Estimate
    """Arm minus baseline over the seeds that both finished, with the interval at the level at which it was tested, so
    that both say the same; NaN where no seed finished in both."""
    p: float
    """Of the paired t test for any difference (with Dunnett, adjusted); NaN where one seed says nothing. Where a run
    diverged: of the test on how often and that t test together (`_with_divergence`)."""
    level: float
    """What p had to meet, with the correction for several arms and several looks."""
    p_equivalence: float
    """Of the two one-sided t tests that the difference is below the margin."""
    level_equivalence: float
    p_sign_flip: float
    """Of the exact sign-flip test on the same differences, which assumes no normality; it decides nothing."""
    n: int
    """Pairs of runs that were judged, those that diverged included."""
    diverged: tuple[int, int]
    """How many of them diverged in the arm, and how many in the baseline."""

    @property
    def names_winner(self) -> bool:
        """Whether one of the two is better."""
        return self.word in ("better", "worse")

    @property
    def rests_on_normality(self) -> bool:
        """Whether it names a winner by the t test where a sign-flip test does not."""
        return self.names_winner and not any(self.diverged) and self.p_sign_flip > self.level


def judge(differences: Mapping[str, Sequence[float]], rule: Rule) -> list[Verdict]:
    """A verdict for each arm from its differences to the baseline, one a seed.

    A run that diverged has an infinite loss, or a score of minus infinity where higher is better. Of losses, a
    difference is inf where the arm diverged, -inf where the baseline did,
    and NaN where both did. Divergence is an outcome of its own, see `_with_divergence`.

    An arm whose difference is shown to be below the margin makes *no difference that matters*, even if it is
    also shown not to be zero. With `rule.looks` the verdicts are those that looking after each of these numbers of
    seeds gives: an arm that was decided stays so, and its later seeds do not count.
    """
    differences = {arm: [float(d) for d in values] for arm, values in differences.items()}
    if rule.better == "higher":
        losses = {arm: [-d for d in values] for arm, values in differences.items()}
        verdicts = judge(losses, replace(rule, better="lower"))
        return [replace(verdict, difference=_negative(verdict.difference)) for verdict in verdicts]
    if rule.looks is None:
        return _interim(differences, rule, {})
    decided: dict[str, Verdict] = {}
    verdicts = []
    for look in rule.looks:
        there = {arm: list(values[:look]) for arm, values in differences.items()}
        if all(len(values) < look for arm, values in there.items() if arm not in decided):
            break
        verdicts = _interim(there, rule, decided)
        decided = {v.arm: v for v in verdicts if v.word != "undecided"}
    return verdicts or _interim(differences, rule, {})


def _negative(e: Estimate) -> Estimate:
    return Estimate(-e.estimate, -e.high, -e.low, e.n, e.method)


def _interim(differences: Mapping[str, Sequence[float]], rule: Rule, decided: Mapping[str, Verdict]) -> list[Verdict]:
    """The verdicts at one look; those decided before stand."""
    open_arms = {arm: list(values) for arm, values in differences.items() if arm not in decided}
    finished = {arm: _finite(values) for arm, values in open_arms.items()}
    p = {arm: t_test(d).p if len(d) > 1 else math.nan for arm, d in finished.items()}
    if rule.correction == "dunnett":
        rule = _dunnett_or_holm(differences, rule)
    if rule.correction == "dunnett":
        p = _dunnett(differences)
    p_same = {arm: tost(d, rule.margin).p if len(d) > 1 else math.nan for arm, d in finished.items()}
    for arm, values in open_arms.items():
        if len(finished[arm]) < len(values):
            p[arm], p_same[arm] = _with_divergence(values, p[arm]), 1.0
    apart = sum(v.names_winner for v in decided.values())
    alike = sum(v.word == "no difference that matters" for v in decided.values())
    levels = _step_down(p, rule, 2, len(differences) - apart)
    levels_same = _step_down(p_same, rule, 1, len(differences) - alike)
    new = {
        arm: _verdict(arm, d, rule, (p[arm], levels[arm]), (p_same[arm], levels_same[arm]))
        for arm, d in open_arms.items()
    }
    return [decided.get(arm) or new[arm] for arm in differences]


def _step_down(p: Mapping[str, float], rule: Rule, sides: int, n_hypotheses: int) -> dict[str, float]:
    """The level that each arm's p has to meet. Holm: alpha / m for the smallest of m; m falls with each that does."""
    at = _levels(rule, sides)
    if rule.correction in ("none", "dunnett"):
        return {arm: at(1) for arm in p}
    levels, m = {}, n_hypotheses
    for arm in sorted(p, key=lambda arm: (math.isnan(p[arm]), p[arm])):
        levels[arm] = at(m)
        if rule.correction == "holm" and p[arm] <= levels[arm]:
            m -= 1
        elif rule.correction == "holm":
            m = max(m, 1)
            levels.update({other: at(m) for other in p if other not in levels})
            break
    return levels


def _levels(rule: Rule, sides: int) -> Callable[[int], float]:
    """The level for m hypotheses at each of the rule's looks."""
    looks = rule.looks
    if looks is None or len(looks) == 1:
        return lambda m: rule.alpha / m
    return lambda m: nominal_level(looks, rule.alpha / m, sides)


def _verdict(
    arm: str, differences: Sequence[float], rule: Rule, test: tuple[float, float], same: tuple[float, float]
) -> Verdict:
    (p, level), (p_same, level_same) = test, same
    finished, diverged = _finite(differences), _diverged(differences)
    difference = mean_or_nothing(finished, 1 - level)
    word: Word = "undecided"
    if len(differences) >= FEWEST_SEEDS and p_same <= level_same:
        word = "no difference that matters"
    elif len(differences) >= FEWEST_SEEDS and p <= level:
        lower = difference.estimate < 0 if not any(diverged) else diverged[0] < diverged[1]
        word = "better" if lower else "worse"
    flips = sign_flip_test(finished).p if finished else math.nan
    return Verdict(arm, word, difference, p, level, p_same, level_same, flips, len(differences), diverged)


def _with_divergence(differences: Sequence[float], p: float) -> float:
    """p of "the arm that diverges more often is not worse", from how often each diverged and from the t test's p.

    How often: McNemar's exact test of the seeds in which one of the two diverged. The seeds that both finished count
    where their mean agrees in direction. Twice the smaller p, so that the two tests together keep the error rate. An
    arm that diverges more often is thus never better and never equal, and where both diverge as often nothing is said.
    """
    arm, baseline = _diverged(differences)
    if arm == baseline:
        return 1.0
    often = mcnemar(differences.count(math.inf), differences.count(-math.inf)).p
    finished = _finite(differences)
    if len(finished) < FEWEST_SEEDS:
        return often
    agree = (statistics.fmean(finished) > 0) == (arm > baseline)
    return min(1.0, 2 * min(often, p if agree else 1.0))


def _diverged(differences: Sequence[float]) -> tuple[int, int]:
    """How many runs diverged in the arm, and how many in the baseline."""
    both = sum(map(math.isnan, differences))
    return differences.count(math.inf) + both, differences.count(-math.inf) + both


def _finite(differences: Sequence[float]) -> list[float]:
    """The differences of the seeds that both finished."""
    return [d for d in differences if math.isfinite(d)]


def margin_of(share: float, scores: Sequence[float], looks: tuple[int, ...] | None) -> float:
    """The margin in the unit of the baseline's scores, seed by seed: a share of the size of their mean.

    Where seeds are added, the scores of the first look fix it, so that it does not move. Where the baseline scores 0
    the share itself is the margin: no data can show that a difference is exactly 0.
    """
    kept = [score for score in (scores[:FEWEST_SEEDS] if looks else scores) if math.isfinite(score)]
    return (share * abs(statistics.fmean(kept)) if kept else 0.0) or share


def mean_or_nothing(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """`mean_interval`; NaN of nothing."""
    if values:
        return mean_interval(values, confidence)
    return Estimate(math.nan, math.nan, math.nan, 0, "no seed that both finished")


def seeds_to_decide(differences: Sequence[float], verdict: Verdict, rule: Rule) -> int | None:
    """How many seeds in all would decide, one way or the other, with the power asked for.

    If the difference and its spread are what they look like now; None when that is more than 10,000, or when there
    are fewer than two seeds to look at. Where runs diverged: if as many diverge as until now.
    """
    if len(differences) < 2:
        return None
    if any(verdict.diverged):
        return _seeds_to_count(differences, verdict)
    effect, spread = statistics.fmean(differences), statistics.stdev(differences)
    ways = (
        seeds_needed(effect, spread, rule.power, verdict.level, at_most=10_000),
        seeds_to_equivalence(effect, spread, rule.margin, rule.power, verdict.level_equivalence, at_most=10_000),
    )
    possible = [n for n in ways if n is not None]
    return max(FEWEST_SEEDS, len(differences) + 1, min(possible)) if possible else None


def _seeds_to_count(differences: Sequence[float], verdict: Verdict) -> int | None:
    """How many seeds would decide by how often runs diverge, with half of the level where seeds finish as well."""
    n, arm, baseline = len(differences), differences.count(math.inf), differences.count(-math.inf)
    level = verdict.level / (1 if len(_finite(differences)) < FEWEST_SEEDS else 2)
    if arm == baseline:
        return None
    sizes = range(max(FEWEST_SEEDS, n + 1), 10_001)
    return next((m for m in sizes if mcnemar(m * arm // n, m * baseline // n).p <= level), None)


def _dunnett_or_holm(differences: Mapping[str, Sequence[float]], rule: Rule) -> Rule:
    """Dunnett's test needs the same finished seeds in every arm; where they are not, Holm's step-down replaces it."""
    whole = len({len(values) for values in differences.values()}) == 1
    if whole and all(math.isfinite(d) for values in differences.values() for d in values):
        return rule
    return replace(rule, correction="holm")


def _dunnett(differences: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Dunnett's p of each arm, seeds as blocks: t with the residual variance of arms x seeds without interaction.

    The baseline is the arm whose differences are 0.
    """
    rows = [[0.0] * len(next(iter(differences.values()))), *differences.values()]
    n, k = len(rows[0]), len(rows) - 1
    if n < 2:
        return dict.fromkeys(differences, math.nan)
    arm_means = [statistics.fmean(row) for row in rows]
    seed_means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    grand = statistics.fmean(arm_means)
    residual = sum(
        (value - arm_means[i] - seed_means[j] + grand) ** 2 for i, row in enumerate(rows) for j, value in enumerate(row)
    )
    df = k * (n - 1)
    error = math.sqrt(2 * residual / df / n)
    t = [(mean / error if error else math.copysign(math.inf, mean) if mean else 0.0) for mean in arm_means[1:]]
    return dict(zip(differences, dunnett_p(t, df), strict=True))
