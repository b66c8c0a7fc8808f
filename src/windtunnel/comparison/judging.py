"""From run folders to a comparison: read each run, pair the losses, judge, and say what to bear in mind."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from windtunnel.comparison.comparison import ArmResult, Comparison, Judgement, SeedRun, Unit
from windtunnel.comparison.notes import notes, signature
from windtunnel.comparison.pairing import pairing
from windtunnel.comparison.plan import Plan, has_settled, run_folders
from windtunnel.comparison.verdict import FEWEST_SEEDS, Rule, Verdict, judge, mean_or_nothing, seeds_to_decide
from windtunnel.config import flatten
from windtunnel.runs.arms import ResolvedArm
from windtunnel.runs.budget import spent
from windtunnel.runs.measure import Measured, read_measured
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.training.evaluate import sum_of_targets
from windtunnel.training.events import Step, Stopped
from windtunnel.training.run import is_run, open_run


@dataclass(frozen=True)
class _Found:
    """What a run folder says, and its documents when it was measured."""

    run: SeedRun
    measured: Measured | None
    rate: float | None
    seconds: float | None
    versions: str

    def value(self, unit: Unit) -> float | None:
        return self.run.loss if unit == "nats a token" else self.run.bits_per_byte


@dataclass(frozen=True)
class _Judged:
    """The runs that are there, and the verdicts on them."""

    found: dict[str, list[_Found]]
    unit: Unit
    rule: Rule
    pairs: dict[str, tuple[tuple[int, float], ...]]
    verdicts: list[Verdict]


def undecided(plan: Plan) -> list[str]:
    """The arms on which the runs that are there do not decide."""
    return [verdict.arm for verdict in _judge(plan).verdicts if verdict.word == "undecided"]


def conclude(plan: Plan) -> Comparison:
    """Judge the runs that are there; those that are missing are listed and take no part."""
    judged, base = _judge(plan), plan.arms[0]
    found = judged.found
    arms = tuple(_arm_result(plan, arm, found[arm.name]) for arm in plan.arms)
    judgements = tuple(_judgement(verdict, judged, plan) for verdict in judged.verdicts)
    versions = sorted({f.versions for own in found.values() for f in own if f.versions})
    n_documents = next((len(f.measured.tokens) for own in found.values() for f in own if f.measured), 0)
    return Comparison(
        corpus=base.config.corpus,
        unit=judged.unit,
        arms=arms,
        judgements=judgements,
        rule=judged.rule,
        margin_share=plan.margin,
        n_documents=n_documents,
        n_tokens=sum_of_targets(base.store, "dev"),
        pairing=pairing(plan.arms, n_documents),
        notes=tuple(notes(plan, arms, judgements, versions)),
        signature=signature(plan, n_documents, versions),
        folder=str(plan.folder),
    )


def _judge(plan: Plan) -> _Judged:
    folders, base = run_folders(plan), plan.arms[0]
    found = {
        arm.name: [
            _read(arm, seed, folders[arm.name, seed])
            for seed in plan.seeds
            if is_run(folders[arm.name, seed]) or not plan.until_decided
        ]
        for arm in plan.arms
    }
    alike = all(arm.store.folder == base.store.folder for arm in plan.arms)
    unit: Unit = "nats a token" if alike else "bits a byte"
    rule = _rule(plan, [value for f in found[base.name] if (value := f.value(unit)) is not None])
    pairs = {arm.name: _pairs(found[base.name], found[arm.name], unit) for arm in plan.arms[1:]}
    verdicts = judge({name: [d for _, d in own] for name, own in pairs.items() if own}, rule)
    return _Judged(found, unit, rule, pairs, verdicts)


def _rule(plan: Plan, losses: Sequence[float]) -> Rule:
    """The rule with its margin in the unit of the losses. Where seeds are added, the first four fix it."""
    kept = [loss for loss in (losses[:FEWEST_SEEDS] if plan.until_decided else losses) if math.isfinite(loss)]
    margin = plan.margin * statistics.fmean(kept) if kept else plan.margin
    return Rule(margin, plan.alpha, plan.power, plan.correction, plan.looks)


def _read(arm: ResolvedArm, seed: int, folder: Path) -> _Found:
    if not is_run(folder):
        return _Found(SeedRun(seed, str(folder), "not begun", "", None, None), None, None, None, "")
    run = open_run(folder)
    events = run.events()
    stopped = next((e for e in reversed(events) if isinstance(e, Stopped)), None)
    reason, message = (stopped.reason, stopped.message) if stopped else ("interrupted", "not finished yet")
    steps = [e for e in events if isinstance(e, Step)]
    seconds = sum(e.seconds for e in steps)
    dev = arm.store.splits["dev"]
    n_tokens, measured, nats = sum_of_targets(arm.store, "dev"), None, None
    if reason == "diverged":
        nats = math.inf
    elif has_settled(folder, events):
        measured = read_measured(folder)
        nats = float(measured.losses.sum())
    return _Found(
        SeedRun(
            seed,
            str(folder),
            reason,
            message,
            None if nats is None else nats / n_tokens,
            None if nats is None else nats / dev.n_bytes / math.log(2),
        ),
        measured,
        statistics.median(e.n_tokens / e.seconds for e in steps) if steps else None,
        seconds if reason == "finished" else None,
        f"torch {run.record.get('torch')} on {run.record.get('processor')}",
    )


def _pairs(base: Sequence[_Found], arm: Sequence[_Found], unit: Unit) -> tuple[tuple[int, float], ...]:
    """(seed, arm minus baseline) of the seeds that both have; not finite where a run diverged, see `judge`."""
    below = {f.run.seed: f.value(unit) for f in base}
    pairs = ((f.run.seed, f.value(unit), below.get(f.run.seed)) for f in arm)
    return tuple((seed, ours - theirs) for seed, ours, theirs in pairs if ours is not None and theirs is not None)


def _judgement(verdict: Verdict, all_of: _Judged, plan: Plan) -> Judgement:
    rule, unit = all_of.rule, all_of.unit
    base, arm = all_of.found[plan.arms[0].name], all_of.found[verdict.arm]
    judged = all_of.pairs[verdict.arm][: verdict.n]
    finished = [difference for _, difference in judged if math.isfinite(difference)]
    seeds = {seed for seed, difference in judged if math.isfinite(difference)}
    baseline = [value for f in base if f.run.seed in seeds and (value := f.value(unit)) is not None]
    bits = [d for seed, d in _pairs(base, arm, "bits a byte") if seed in seeds]
    over_seeds, over_documents = mean_or_nothing(finished), _over_documents(base, arm, seeds)
    if over_documents is not None and unit == "bits a byte":
        over_documents = _times(over_documents, _bits_per_byte(plan))
    needed = seeds_to_decide([d for _, d in judged], verdict, rule) if verdict.word == "undecided" else None
    limited: Literal["seeds", "documents"] | None = None
    if over_documents is not None and len(finished) > 1:
        limited = "seeds" if _width(over_seeds) >= _width(over_documents) else "documents"
    share = verdict.difference.estimate / statistics.fmean(baseline) if baseline else math.nan
    return Judgement(
        verdict.arm,
        verdict,
        needed,
        share,
        mean_or_nothing(bits, 1 - verdict.level),
        over_seeds,
        over_documents,
        limited,
        judged,
        _sentence(verdict, needed, share, rule, unit, plan),
    )


def _over_documents(base: Sequence[_Found], arm: Sequence[_Found], seeds: set[int]) -> Estimate | None:
    """The difference in nats a token over the documents of the dev split, its mean over seeds in each of them."""
    theirs = {f.run.seed: f.measured for f in base}
    both = [(f.measured, theirs.get(f.run.seed)) for f in arm if f.run.seed in seeds]
    complete = [(ours, other) for ours, other in both if ours is not None and other is not None]
    if not complete or any(not np.array_equal(ours.tokens, other.tokens) for ours, other in complete):
        return None
    tokens = complete[0][0].tokens
    differences = np.mean([ours.losses - other.losses for ours, other in complete], axis=0)
    return ratio_of_sums_interval(differences[tokens > 0], tokens[tokens > 0])


def _sentence(verdict: Verdict, needed: int | None, share: float, rule: Rule, unit: Unit, plan: Plan) -> str:
    """The verdict as a sentence that can be quoted."""
    d = verdict.difference
    interval = "" if math.isnan(d.low) else f" [{d.low:+.4f}, {d.high:+.4f}]"
    numbers = f"{d.estimate:+.4f}{interval} {unit} ({share:+.2%}) over {d.n} paired seed{'s' * (d.n > 1)}"
    if any(verdict.diverged):
        often = f"diverged in {verdict.diverged[0]} of {verdict.n} seeds, {plan.arms[0].name} in {verdict.diverged[1]}"
        numbers = f"{often}; {numbers}" if d.n else f"{often}; no seed finished in both"
    against = f"{verdict.arm} against {plan.arms[0].name}"
    if verdict.word == "no difference that matters":
        return f"{against}: no difference that matters: {numbers}, shown to be below {rule.margin:.4f}"
    if verdict.word != "undecided":
        return f"{against}: {verdict.word}: {numbers}"
    if verdict.n < FEWEST_SEEDS:
        return f"{against}: undecided: {numbers}; fewer than {FEWEST_SEEDS} seeds never decide"
    more = f"about {needed} seeds would decide" if needed else "more than 10,000 seeds would be needed to decide"
    return f"{against}: undecided: {numbers}; {more} at {rule.power:.0%} power if it stays so"


def _arm_result(plan: Plan, arm: ResolvedArm, found: Sequence[_Found]) -> ArmResult:
    flat = [flatten(other.config) for other in plan.arms]
    paths = [p for p in {**flat[0], **flatten(arm.config)} if len({repr(other.get(p)) for other in flat}) > 1]
    cost, own = spent(arm), flatten(arm.config)
    rates = [f.rate for f in found if f.rate is not None]
    seconds = [f.seconds for f in found if f.seconds is not None]
    memory = [f.measured.peak_memory for f in found if f.measured and f.measured.peak_memory is not None]
    losses = [loss for f in found if (loss := f.run.loss) is not None and math.isfinite(loss)]
    bits = [b for f in found if (b := f.run.bits_per_byte) is not None and math.isfinite(b)]
    return ArmResult(
        name=arm.name,
        settings={path: own.get(path) for path in paths},
        key=arm.key,
        n_parameters=sum(row.n_parameters for row in arm.config.model.parameter_rows()),
        steps=cost.steps,
        tokens=cost.tokens,
        flops=cost.flops,
        flops_per_token=cost.flops_per_token,
        tokens_per_second=statistics.median(rates) if rates else None,
        seconds=statistics.median(seconds) if seconds else None,
        peak_memory=max(memory, default=None),
        loss=mean_interval(losses) if losses else None,
        bits_per_byte=mean_interval(bits) if bits else None,
        seeds=tuple(f.run for f in found),
    )


def _bits_per_byte(plan: Plan) -> float:
    """How many bits a byte one nat a token is, on the dev split."""
    store = plan.arms[0].store
    return sum_of_targets(store, "dev") / store.splits["dev"].n_bytes / math.log(2)


def _times(e: Estimate, factor: float) -> Estimate:
    return Estimate(factor * e.estimate, factor * e.low, factor * e.high, e.n, e.method)


def _width(estimate: Estimate) -> float:
    return estimate.high - estimate.low
