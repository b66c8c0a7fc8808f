"""Run the programs of a plan and judge them: the rule, the words and the records are those of `windtunnel compare`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from windtunnel.comparison.comparison import ArmResult, Comparison
from windtunnel.comparison.judging import Differences, differences, judge_pairs, judgement_of
from windtunnel.comparison.notes import ranges
from windtunnel.comparison.verdict import Rule, Verdict, margin_of
from windtunnel.errors import ConfigError
from windtunnel.programs.arms import JudgePlan, ProgramArm, changed_files, program_arms
from windtunnel.programs.measured import Measured
from windtunnel.programs.metrics import MetricSource
from windtunnel.programs.notes import notes, problems, signature
from windtunnel.programs.results import read_results
from windtunnel.programs.runs import execute_programs, read_run
from windtunnel.stats.intervals import mean_interval

NAN = math.nan
EXIT_CODES = {"better": 0, "no difference that matters": 10, "undecided": 11, "worse": 12}


@dataclass(frozen=True)
class Judged:
    """The arms of a plan, baseline first, where their runs lie, and what was found.

    results: those that were not run here. folder: where the report goes.
    """

    plan: JudgePlan
    programs: tuple[ProgramArm, ...]
    results: tuple[Measured, ...]
    folder: Path

    @property
    def names(self) -> list[str]:
        """All arms, the baseline first."""
        names = [*(arm.name for arm in self.programs), *(arm.name for arm in self.results)]
        first = self.plan.baseline or names[0]
        return [first, *(name for name in names if name != first)]

    def measured(self) -> list[Measured]:
        """Every arm with the runs that are there, the baseline first."""
        found = {arm.name: _read(arm, self.plan) for arm in self.programs} | {arm.name: arm for arm in self.results}
        return [found[name] for name in self.names]


def prepare(plan: JudgePlan, root: Path) -> Judged:
    """The arms of a plan, and where everything goes.

    Raises:
        ConfigError: when the runs of `baseline_from` are too few.
        DataError: when results cannot be read.
    """
    programs = tuple(program_arms(plan, root))
    results = tuple(read_results(name, given, plan.metrics, plan.pair) for name, given in plan.results.items())
    for arm in programs:
        if not arm.runs:
            _check_there(arm, plan)
    keys = "".join([*(arm.key for arm in programs), *(arm.key for arm in results), plan.metrics[0].where])
    folder = root / f"judge-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"
    return Judged(plan, programs, results, folder)


def _check_there(arm: ProgramArm, plan: JudgePlan) -> None:
    there = [s for s in plan.seed_numbers if all(_is_there(arm, s, r, plan) for r in range(plan.repeat))]
    asked = plan.seed_numbers
    if list(asked) != there:
        option = "--max-seeds" if plan.until_decided else "--seeds"
        raise ConfigError(
            f"{arm.folder} holds runs that gave {plan.metrics[0].title} for the seeds "
            f"{ranges(there) if there else 'none'}, and {ranges(asked)} are asked for: "
            f"ask for those with --first-seed and {option}"
            + (f", and for {plan.repeat} repeats" if plan.repeat > 1 else "")
        )


def _is_there(arm: ProgramArm, seed: int, repeat: int, plan: JudgePlan) -> bool:
    return read_run(arm, seed, repeat, plan.metrics).run.reason in ("finished", "diverged")


def run_arms(
    judged: Judged, executor: Executor, should_stop: Callable[[], bool] = lambda: False, again: bool = False
) -> Iterator[tuple[str, int, str]]:
    """Run what is missing, seed by seed and the arms in turns; yields (arm, seed, how it ended).

    A plan that goes on until all arms are decided adds a seed to the baseline and to the undecided arms.
    """
    plan, programs = judged.plan, {arm.name: arm for arm in judged.programs}
    open_arms, seeds = list(programs), plan.seed_numbers
    n = plan.looks[0] if plan.looks else len(seeds)
    while True:
        places = [
            (programs[a], seed, r) for seed in seeds[:n] for r in range(plan.repeat) for a in programs if a in open_arms
        ]
        for (arm, seed, _), told in execute_programs(places, plan, executor, should_stop, again):
            yield arm.name, seed, told
        if n >= len(seeds) or should_stop():
            return
        measured = judged.measured()
        if any(problems(arm, plan) for arm in measured):
            return
        words = {v.arm: v.word for v in verdicts(measured, plan)}
        still = [arm.name for arm in measured[1:] if words.get(arm.name, "undecided") == "undecided"]
        if not still:
            return
        open_arms, n = [judged.names[0], *still], n + 1


def _read(arm: ProgramArm, plan: JudgePlan) -> Measured:
    runs = [read_run(arm, seed, r, plan.metrics) for seed in plan.seed_numbers for r in range(plan.repeat)]
    if plan.until_decided:
        runs = [one for one in runs if one.run.reason != "not begun"]
    told = {"command": arm.command, "runs": str(arm.folder)}
    return Measured(arm.name, told, arm.key, tuple(runs), arm.tracked, changed_files(arm))


def verdicts(arms: Sequence[Measured], plan: JudgePlan) -> list[Verdict]:
    """A verdict for each arm that can be judged, the first being the baseline."""
    return judge_pairs(paired(arms, plan), rule_of(arms, plan))


def rule_of(arms: Sequence[Measured], plan: JudgePlan) -> Rule:
    """The plan's rule with its margin in the unit of the metric."""
    metric = plan.metrics[0]
    scores = [run.scores[metric.title] for run in arms[0].seeds() if metric.title in run.scores]
    margin = plan.margin_in_units or margin_of(plan.margin, scores, plan.looks)
    return Rule(margin, plan.alpha, correction=plan.correction, looks=plan.looks, better=metric.better)


def paired(arms: Sequence[Measured], plan: JudgePlan) -> dict[str, Differences]:
    """(seed, arm minus baseline) of each arm that has a seed in common with the baseline, and whose seeds differ."""
    title = plan.metrics[0].title
    usable = [arm for arm in arms if not arm.ignores_seed(title)]
    if arms[0] not in usable:
        return {}
    found = {arm.name: differences(arms[0].seeds(), arm.seeds(), title) for arm in usable[1:]}
    return {name: own for name, own in found.items() if own}


def conclude(judged: Judged, arms: Sequence[Measured] | None = None) -> Comparison:
    """Judge the runs that are there; those that are missing are listed and take no part."""
    plan, arms = judged.plan, judged.measured() if arms is None else arms
    rule, pairs, metric = rule_of(arms, plan), paired(arms, plan), plan.metrics[0]
    results = tuple(_arm_result(arm, plan.metrics) for arm in arms)
    titles, runs = [one.title for one in plan.metrics], {result.name: result.seeds for result in results}
    base = results[0].name
    judgements = tuple(
        judgement_of(v, rule, pairs[v.arm], (runs[base], runs[v.arm]), titles, metric.title, base)
        for v in judge_pairs(pairs, rule)
    )
    return Comparison(
        corpus=metric.title,
        metric=metric.title,
        unit="",
        arms=results,
        judgements=judgements,
        rule=rule,
        margin_share=_share(rule.margin, results[0], metric.title) if plan.margin_in_units else plan.margin,
        n_documents=0,
        n_tokens=0,
        pairing=(f"runs of the same {plan.pair}; what a program makes of it is not looked into",),
        notes=tuple(notes(plan, arms, results, judgements, rule, judged.folder)),
        signature=signature(plan, arms, rule),
        folder=str(judged.folder),
    )


def _share(margin: float, base: ArmResult, title: str) -> float:
    """A margin in units as a share of the baseline's score; NaN where that is 0 or not known."""
    score = base.scores.get(title)
    return abs(margin / score.estimate) if score and score.estimate else NAN


def _arm_result(arm: Measured, metrics: Sequence[MetricSource]) -> ArmResult:
    runs = arm.seeds()
    finished = {
        m.title: [run.scores[m.title] for run in runs if run.reason == "finished" and m.title in run.scores]
        for m in metrics
    }
    scores = {
        title: mean_interval(values) for title, values in finished.items() if values and all(map(math.isfinite, values))
    }
    settings, took = dict(arm.settings), arm.seconds()
    return ArmResult(arm.name, settings, arm.key, NAN, NAN, NAN, NAN, NAN, None, took, None, scores, runs)


def exit_code(found: Comparison, judged: Judged, arms: Sequence[Measured]) -> int:
    """What a loop reads: of one arm beside the baseline its word, see EXIT_CODES; of several 0; 1 when one failed.

    An arm that cannot be judged at all, since its program ignores the seed, has failed, too.
    """
    if any(problems(arm, judged.plan) for arm in arms) or not found.judgements:
        return 1
    return EXIT_CODES[found.judgements[0].verdict.word] if len(found.arms) == 2 else 0
