"""From run folders to a comparison: read each run, pair the losses, judge, and say what to bear in mind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from windtunnel.comparison.comparison import ArmResult, Comparison, Judgement, SeedRun
from windtunnel.comparison.notes import notes, signature
from windtunnel.comparison.pairing import pairing
from windtunnel.comparison.plan import Plan
from windtunnel.comparison.verdict import (
    FEWEST_SEEDS,
    Rule,
    Verdict,
    judge,
    margin_of,
    mean_or_nothing,
    seeds_to_decide,
)
from windtunnel.config import flatten
from windtunnel.errors import ArtifactError
from windtunnel.runs.arms import ResolvedArm
from windtunnel.runs.budget import spent
from windtunnel.runs.grid import Grid, is_done
from windtunnel.runs.measure import FOLDER, Measured, read_measured
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.digits import interval, number
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.tasks import Metric
from windtunnel.training.events import Step, Stopped

Differences = tuple[tuple[int, float], ...]
"""(seed, arm minus baseline), one a pair of runs."""


@dataclass(frozen=True)
class Found:
    """What a run folder says, and its documents when it was measured."""

    run: SeedRun
    measured: Measured | None
    rate: float | None
    seconds: float | None
    versions: str

    def value(self, metric: Metric) -> float | None:
        return self.run.scores.get(metric.name)


Runs = Mapping[str, Sequence[Found]]
"""The runs of each arm, seed by seed."""


@dataclass(frozen=True)
class Paired:
    """The runs that are there beside the baseline's, and the rule that judges their differences.

    totals: what the metrics need beside the sums that were measured, of the documents that are judged.
    pairs: of each arm that has a seed in common with the baseline.
    """

    found: Runs
    metric: Metric
    totals: Mapping[str, float]
    rule: Rule
    pairs: dict[str, Differences]


def undecided(plan: Plan) -> list[str]:
    """The arms on which the runs that are there do not decide."""
    whole = _whole(plan, read_runs(plan))
    return [verdict.arm for verdict in judge_pairs(whole.pairs, whole.rule) if verdict.word == "undecided"]


def conclude(plan: Plan, found: Runs | None = None) -> Comparison:
    """Judge the runs that are there; missing runs are listed and take no part.

    Args:
        found: what `read_runs` gave where it was called; None calls it.
    """
    found, base = read_runs(plan) if found is None else found, plan.baseline
    whole = _whole(plan, found)
    arms = tuple(_arm_result(plan, arm, found[arm.name]) for arm in plan.grid.arms)
    verdicts, metrics = judge_pairs(whole.pairs, whole.rule), base.task.metrics
    judgements = tuple(judgement(verdict, whole, base.name, metrics) for verdict in verdicts)
    versions = sorted({f.versions for own in found.values() for f in own if f.versions})
    n_documents = next((len(f.measured.sums["targets"]) for own in found.values() for f in own if f.measured), 0)
    return Comparison(
        corpus=base.config.corpus,
        metric=whole.metric.name,
        unit=whole.metric.unit,
        arms=arms,
        judgements=judgements,
        rule=whole.rule,
        margin_share=plan.margin,
        n_documents=n_documents,
        n_tokens=int(base.task.totals("dev")["targets"]),
        pairing=pairing(plan.grid.arms, n_documents),
        notes=tuple(notes(plan, arms, judgements, versions)),
        signature=signature(plan, n_documents, versions),
        folder=str(plan.folder),
    )


def _whole(plan: Plan, found: Runs) -> Paired:
    """On the whole dev split."""
    return pair_up(plan, found, plan.baseline.task.totals("dev"))


def read_runs(plan: Plan) -> Runs:
    """The runs of each arm, seed by seed.

    Raises:
        ArtifactError: when a run was measured by an older version, without a column that its metrics need.
    """
    grid = plan.grid
    return {
        arm.name: [_read(arm, seed, grid) for seed in grid.seeds if grid.run(arm.name, seed) or not plan.rule.looks]
        for arm in grid.arms
    }


def metric_of(plan: Plan) -> Metric:
    """The task's first metric; where targets are tokens and arms have other tokenizers, the first without them."""
    base = plan.baseline
    metrics = base.task.metrics
    if not base.config.task.of_tokens or all(arm.store.folder == base.store.folder for arm in plan.grid.arms):
        return metrics[0]
    return next((metric for metric in metrics if "targets" not in metric.columns), metrics[0])


def pair_up(plan: Plan, found: Runs, totals: Mapping[str, float]) -> Paired:
    """The runs of each arm beside the baseline's; `totals` as in `Paired`."""
    metric, base = metric_of(plan), found[plan.baseline.name]
    pairs = {
        arm.name: own
        for arm in plan.grid.arms[1:]
        if (own := differences(_seed_runs(base), _seed_runs(found[arm.name]), metric.name))
    }
    return Paired(found, metric, totals, _rule(plan, metric, base), pairs)


def _rule(plan: Plan, metric: Metric, base: Sequence[Found]) -> Rule:
    """The rule with its margin in the unit of the scores."""
    scores = [value for f in base if (value := f.value(metric)) is not None]
    return replace(plan.rule, margin=margin_of(plan.margin, scores, plan.rule.looks), better=metric.better)


def _read(arm: ResolvedArm, seed: int, grid: Grid) -> Found:
    run, folder = grid.run(arm.name, seed), grid.folders[arm.name, seed]
    if run is None:
        return Found(SeedRun(seed, str(folder), "not begun", "", {}), None, None, None, "")
    events = run.events()
    stopped = next((e for e in reversed(events) if isinstance(e, Stopped)), None)
    reason, message = (stopped.reason, stopped.message) if stopped else ("interrupted", "not finished yet")
    steps = [e for e in events if isinstance(e, Step)]
    seconds = sum(e.seconds for e in steps)
    task, measured, scores = arm.task, None, {}
    if reason == "diverged":
        scores = {metric.name: metric.worst for metric in task.metrics}
    elif is_done(run, events):
        measured = read_measured(folder)
        scores = scores_of(measured, task.metrics, task.totals("dev"), folder)
    elif reason == "finished":
        message = f"the checkpoint of {folder}, or what was measured of it, is damaged; the same command makes it again"
    return Found(
        SeedRun(seed, str(folder), reason, message, scores),
        measured,
        statistics.median(e.n_tokens / e.seconds for e in steps) if steps else None,
        seconds if reason == "finished" else None,
        f"torch {run.record.get('torch')} on {run.record.get('processor')}",
    )


def scores_of(
    measured: Measured, metrics: Sequence[Metric], totals: Mapping[str, float], folder: Path
) -> dict[str, float]:
    """Each metric by name, of the sums of what was measured."""
    sums = {**totals, **{name: float(column.sum()) for name, column in measured.sums.items()}}
    if lacking := sorted({column for metric in metrics for column in metric.columns} - sums.keys()):
        raise ArtifactError(
            f"{folder / FOLDER} does not hold {', '.join(lacking)} of each document: an older version wrote it; delete "
            "this folder, and the same command measures the run again"
        )
    return {metric.name: metric.score(sums) for metric in metrics}


def differences(base: Sequence[SeedRun], arm: Sequence[SeedRun], metric: str) -> Differences:
    """(seed, arm minus baseline) of the seeds that both have; not finite where a run diverged, see `judge`."""
    below = {run.seed: run.scores[metric] for run in base if metric in run.scores}
    both = (run for run in arm if metric in run.scores and run.seed in below)
    return tuple((run.seed, run.scores[metric] - below[run.seed]) for run in both)


def judge_pairs(pairs: Mapping[str, Differences], rule: Rule) -> list[Verdict]:
    """A verdict for each arm from its paired differences, see `judge`."""
    return judge({name: [d for _, d in own] for name, own in pairs.items()}, rule)


def judgement(verdict: Verdict, all_of: Paired, baseline: str, metrics: Sequence[Metric]) -> Judgement:
    """What a verdict against the arm of this name rests on; the metrics are those of its task."""
    metric, base, arm = all_of.metric, all_of.found[baseline], all_of.found[verdict.arm]
    others = [other.name for other in metrics if other != metric]
    pairs, runs = all_of.pairs[verdict.arm], (_seed_runs(base), _seed_runs(arm))
    found = judgement_of(verdict, all_of.rule, pairs, runs, [metric.name, *others], metric.title, baseline)
    seeds = {seed for seed, difference in found.differences if math.isfinite(difference)}
    over_documents = _over_documents(base, arm, seeds, metric, all_of.totals)
    limited: Literal["seeds", "documents"] | None = None
    if over_documents is not None and len(seeds) > 1:
        limited = "seeds" if _width(found.over_seeds) >= _width(over_documents) else "documents"
    return replace(found, over_documents=over_documents, limited_by=limited)


def judgement_of(
    verdict: Verdict,
    rule: Rule,
    pairs: Differences,
    runs: tuple[Sequence[SeedRun], Sequence[SeedRun]],
    metrics: Sequence[str],
    title: str,
    baseline: str,
) -> Judgement:
    """What a verdict rests on, as far as runs and their scores tell: nothing is known of documents.

    Args:
        pairs: the differences of the arm; the verdict is on the first `verdict.n`.
        runs: the baseline's and the arm's.
        metrics: their names, that of the verdict first.
        title: what its sentence calls this metric.
    """
    judged, (base, arm) = pairs[: verdict.n], runs
    finished = {seed: difference for seed, difference in judged if math.isfinite(difference)}
    others = {
        other: mean_or_nothing(
            [d for seed, d in differences(base, arm, other) if seed in finished and math.isfinite(d)], 1 - verdict.level
        )
        for other in metrics[1:]
    }
    scores = [run.scores[metrics[0]] for run in base if run.seed in finished]
    level = abs(statistics.fmean(scores)) if scores else 0.0
    share = verdict.difference.estimate / level if level else math.nan
    needed = seeds_to_decide([d for _, d in judged], verdict, rule) if verdict.word == "undecided" else None
    told = sentence(verdict, needed, share, rule, title, baseline)
    over_seeds = mean_or_nothing(list(finished.values()))
    return Judgement(verdict.arm, verdict, needed, share, others, over_seeds, None, None, judged, told)


def _seed_runs(found: Sequence[Found]) -> tuple[SeedRun, ...]:
    return tuple(f.run for f in found)


def _over_documents(
    base: Sequence[Found], arm: Sequence[Found], seeds: set[int], metric: Metric, totals: Mapping[str, float]
) -> Estimate | None:
    """The difference over the documents (units) of the dev split, its mean over seeds in each of them.

    None for a metric that is not a ratio of sums, or whose units differ between the arms.
    """
    column = metric.columns[0]
    if len(metric.columns) != 2:
        return None
    theirs = {f.run.seed: f.measured for f in base}
    both = [(f.measured, theirs.get(f.run.seed)) for f in arm if f.run.seed in seeds]
    complete = [(ours, other) for ours, other in both if ours is not None and other is not None]
    if not complete or any(not np.array_equal(ours.sums["targets"], other.sums["targets"]) for ours, other in complete):
        return None
    tokens = complete[0][0].sums["targets"]
    differences = np.mean([ours.sums[column] - other.sums[column] for ours, other in complete], axis=0)
    a_target = ratio_of_sums_interval(differences[tokens > 0], tokens[tokens > 0])
    return times(a_target, metric.score({**totals, column: 1.0}) * totals["targets"])


def sentence(verdict: Verdict, needed: int | None, share: float, rule: Rule, title: str, baseline: str) -> str:
    """The verdict as a sentence that can be quoted; `title` is the metric's, and the baseline is named."""
    d = verdict.difference
    relative = "" if math.isnan(share) else f" ({number(100 * share, 2, sign=True)}%)"
    numbers = f"{interval(d, sign=True)} {title}{relative} over {d.n} paired seed{'s' * (d.n > 1)}"
    if any(verdict.diverged):
        often = f"diverged in {verdict.diverged[0]} of {verdict.n} seeds, {baseline} in {verdict.diverged[1]}"
        numbers = f"{often}; {numbers}" if d.n else f"{often}; no seed finished in both"
    against = f"{verdict.arm} against {baseline}"
    if verdict.word == "no difference that matters":
        return f"{against}: no difference that matters: {numbers}, shown to be below {number(rule.margin)}"
    if verdict.word != "undecided":
        return f"{against}: {verdict.word}: {numbers}"
    if verdict.n < FEWEST_SEEDS:
        return f"{against}: undecided: {numbers}; fewer than {FEWEST_SEEDS} seeds never decide"
    more = f"about {needed} seeds would decide" if needed else "more than 10,000 seeds would be needed to decide"
    return f"{against}: undecided: {numbers}; {more} at {rule.power:.0%} power if it stays so"


def _arm_result(plan: Plan, arm: ResolvedArm, found: Sequence[Found]) -> ArmResult:
    flat = [flatten(other.config) for other in plan.grid.arms]
    paths = [p for p in {**flat[0], **flatten(arm.config)} if len({repr(other.get(p)) for other in flat}) > 1]
    cost, own = spent(arm), flatten(arm.config)
    rates = [f.rate for f in found if f.rate is not None]
    seconds = [f.seconds for f in found if f.seconds is not None]
    memory = [f.measured.peak_memory for f in found if f.measured and f.measured.peak_memory is not None]
    return ArmResult(
        name=arm.name,
        settings={path: own.get(path) for path in paths},
        key=arm.key,
        n_parameters=arm.n_parameters,
        steps=cost.steps,
        tokens=cost.tokens,
        flops=cost.flops,
        flops_per_token=cost.flops_per_token,
        tokens_per_second=statistics.median(rates) if rates else None,
        seconds=statistics.median(seconds) if seconds else None,
        peak_memory=max(memory, default=None),
        scores=mean_scores(found, arm.task.metrics),
        seeds=_seed_runs(found),
    )


def mean_scores(found: Sequence[Found], metrics: Sequence[Metric]) -> dict[str, Estimate]:
    """The mean of each metric over the seeds that finished; a metric that none has is left out."""
    finished = {
        metric.name: [score for f in found if (score := f.value(metric)) is not None and math.isfinite(score)]
        for metric in metrics
    }
    return {name: mean_interval(values) for name, values in finished.items() if values}


def times(e: Estimate, factor: float) -> Estimate:
    """The estimate in another unit."""
    return Estimate(factor * e.estimate, factor * e.low, factor * e.high, e.n, e.method)


def _width(estimate: Estimate) -> float:
    return estimate.high - estimate.low
