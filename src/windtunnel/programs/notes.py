"""What stands beside a verdict on programs: what went wrong, what to bear in mind, and the signature."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from windtunnel import __version__
from windtunnel.comparison.comparison import ArmResult, Judgement
from windtunnel.comparison.notes import looked_before, ranges, run_notes, statistic, verdict_notes
from windtunnel.comparison.verdict import Rule
from windtunnel.programs.arms import JudgePlan
from windtunnel.programs.measured import Measured
from windtunnel.stats.digits import number


def problems(arm: Measured, plan: JudgePlan) -> list[str]:
    """Why an arm cannot be judged as it stands: runs that failed, and a seed that changes nothing."""
    failed = [one.run for one in arm.runs if one.run.reason == "failed"]
    told = []
    if failed:
        n, first = f"{len(failed)} of {len(arm.runs)} runs failed", failed[0]
        told.append(f"{arm.name}: {n}; the first, {first.folder}: {first.message}")
    title = plan.metrics[0].title
    if arm.ignores_seed(title):
        runs = [run for run in arm.seeds() if run.reason == "finished"]
        value = runs[0].scores[title]
        told.append(
            f"{arm.name}: all {len(runs)} seeds gave {title} {value!r}, equal to the last digit: the program ignores "
            "its seed, or the metric is too coarse to show what the seed changes; such runs are one run, and nothing "
            "is judged of them"
        )
    return told


def notes(
    plan: JudgePlan,
    arms: Sequence[Measured],
    results: Sequence[ArmResult],
    judgements: Sequence[Judgement],
    rule: Rule,
    folder: Path,
) -> Iterator[str]:
    """Sentences, only those that apply; `folder` is the comparison's."""
    yield from (line for arm in arms for line in problems(arm, plan))
    yield from run_notes([replace(r, seeds=tuple(run for run in r.seeds if run.reason != "failed")) for r in results])
    yield from verdict_notes(results, judgements, rule)
    yield from (line for arm in arms for line in _of_runs(arm, plan))
    own = [{run.seed for run in arm.seeds()} for arm in arms]
    alone = sorted({seed for seeds in own for seed in seeds if any(seed not in other for other in own)})
    if alone and not rule.looks:
        yield f"{plan.pair}s {ranges(alone)} are not in all arms, so they take no part"
    if len(states := _states(arms)) > 1:
        yield f"the runs come from different states of the code (git): {'; '.join(states)}"
    times = [metric.title for metric in plan.metrics if metric.is_time]
    if times and (most := max((one.at_once for arm in arms for one in arm.runs), default=1)) > 1:
        yield (
            f"{', '.join(times)}: {most} runs at once share the cores, which changes what they take; for times and "
            "speeds use --jobs 1"
        )
    if not rule.looks:
        yield from looked_before(folder, max((len(result.seeds) for result in results), default=0))


def _of_runs(arm: Measured, plan: JudgePlan) -> Iterator[str]:
    if arm.changed:
        yield (
            f"{arm.name}: {', '.join(arm.changed)} changed while the runs were made, so they may be runs of different "
            "programs: undo that, or run the same command again, which then makes them anew"
        )
    cut = [one for one in arm.runs if one.cut]
    if cut:
        most = max(one.cut for one in cut)
        yield (
            f"{arm.name}: {len(cut)} runs wrote more than {plan.output_limit:g} MB: the first and the last half of it "
            f"are kept, up to {most:,} bytes between are not; metrics are read from what is kept (--output-limit)"
        )
    if left := [one for one in arm.runs if one.left]:
        yield f"{arm.name}: {len(left)} runs left processes behind at their end, which were ended with them"
    if plan.repeat > 1:
        yield from _two_noises(arm, plan)


def _two_noises(arm: Measured, plan: JudgePlan) -> Iterator[str]:
    """The spread at one seed beside the spread between seeds."""
    title = plan.metrics[0].title
    by_seed: dict[int, list[float]] = {}
    for one in arm.runs:
        if one.run.reason == "finished":
            by_seed.setdefault(one.run.seed, []).append(one.run.scores[title])
    groups = [values for values in by_seed.values() if len(values) > 1]
    if not groups:
        return
    if all(len(set(values)) == 1 for values in groups):
        yield f"{arm.name}: repeated at one seed it gives the same {title} to the last digit: it is deterministic"
        return
    within = math.sqrt(statistics.fmean(statistics.variance(values) for values in groups))
    means = [statistics.fmean(values) for values in groups]
    told = f"{arm.name}: at one seed {title} scatters by {number(within)} (standard deviation over repeats)"
    if len(means) < 2:
        yield told
        return
    chance = within**2 / statistics.fmean(len(values) for values in groups)
    between = math.sqrt(max(0.0, statistics.variance(means) - chance))
    yield f"{told}, and by {number(between)} more between seeds" + (
        "; the seed decides little, so pairing by it gains little" if between < within else ""
    )


def signature(plan: JudgePlan, arms: Sequence[Measured], rule: Rule) -> str:
    """One line: arms, metric, seeds, statistic, margin, files, code, machine."""
    metrics = " | ".join(f"{m.take} of {m.where!r} ({m.better})" for m in plan.metrics)
    tracked = sorted({f"{name} sha256:{sha[:12]}" for arm in arms for name, sha in arm.tracked.items()})
    states = _states(arms)
    margin = f"{plan.margin_in_units:g}" if plan.margin_in_units else f"{plan.margin:.2%}"
    seeds = sorted({run.seed for arm in arms for run in arm.seeds()})
    parts = [
        f"windtunnel {__version__}",
        "arms " + " | ".join(f"{arm.name} {arm.key[:12]} {_what(arm)}" for arm in arms),
        f"metric {metrics}",
        f"{plan.pair}s {ranges(seeds)}" + (f" x {plan.repeat}" if plan.repeat > 1 else ""),
        statistic(rule, margin),
        *(["files " + ", ".join(tracked)] if tracked else []),
        *(["git " + " | ".join(states)] if states else []),
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        f"{plan.jobs} at once",
    ]
    return "; ".join(parts)


def _states(arms: Sequence[Measured]) -> list[str]:
    return sorted({one.git for arm in arms for one in arm.runs if one.git})


def _what(arm: Measured) -> str:
    return repr(next(iter(arm.settings.values()), ""))
