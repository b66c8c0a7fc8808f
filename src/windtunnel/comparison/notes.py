"""What stands beside a verdict: what to bear in mind, and the signature with which it can be cited and repeated."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from windtunnel import __version__
from windtunnel.comparison.comparison import ArmResult, Judgement
from windtunnel.comparison.plan import Plan
from windtunnel.comparison.verdict import Rule
from windtunnel.errors import ArtifactError
from windtunnel.files import read_file
from windtunnel.stats.digits import ends, number, p_is
from windtunnel.training.change import Change, Trial
from windtunnel.training.disk import LARGEST_MANIFEST

SAVED = "comparison.json"
SKEWED = "skewed ones with a mean of 0 named a winner in 15 to 26 % of simulated comparisons (docs/verdicts.md)"
log = logging.getLogger(__name__)


def notes(
    plan: Plan, arms: Sequence[ArmResult], judgements: Sequence[Judgement], versions: Sequence[str]
) -> Iterator[str]:
    """Sentences, only those that apply."""
    yield from run_notes(arms)
    predicting = (arm for arm in plan.grid.arms if arm.config.task.kind == "language")
    for name in (arm.name for arm in predicting if not arm.config.model.is_causal):
        yield f"{name} sees the tokens that it is to predict (model.causal=false): its loss is no prediction's"
    yield from (note for arm in plan.grid.arms if arm.trial for note in _change(arm.name, arm.trial))
    yield from (note for arm in arms[1:] for note in _costs(arms[0], arm))
    yield from verdict_notes(arms, judgements, plan.rule)
    if len(versions) > 1:
        yield f"the runs come from different machines or versions: {'; '.join(versions)}"
    if not plan.rule.looks:
        yield from looked_before(plan.folder, len(plan.grid.seeds))


def run_notes(arms: Sequence[ArmResult]) -> Iterator[str]:
    """Which runs diverged, and which are missing."""
    for arm in arms:
        yield from _runs(arm)


def verdict_notes(arms: Sequence[ArmResult], judgements: Sequence[Judgement], rule: Rule) -> Iterator[str]:
    """What the verdicts rest on."""
    yield from (note for judgement in judgements for note in _chance(judgement))
    if rule.looks and any(judgement.verdict.names_winner for judgement in judgements):
        yield (
            "looks after several numbers of seeds: their error rate holds for differences that are symmetric when "
            f"nothing differs; {SKEWED}"
        )
    unfinished = any(run.reason != "finished" for arm in arms for run in arm.seeds)
    if rule.correction == "dunnett" and unfinished:
        yield "Dunnett's test needs every seed of every arm to finish; Holm's correction takes its place here"


def looked_before(folder: Path, n_seeds: int) -> Iterator[str]:
    """That the arms of a comparison's folder were judged with fewer seeds before."""
    if before := [n for n in seeds_looked_at(folder) if n < n_seeds]:
        yield (
            f"these arms were judged before with {', '.join(map(str, before))} seeds: to add seeds until a verdict "
            "comes is to be wrong more often than the level says; --until-decided adds them and keeps the error rate"
        )


def signature(plan: Plan, n_documents: int, versions: Sequence[str]) -> str:
    """One line: corpus, arms, seeds, budget, statistic, margin, versions."""
    base = plan.baseline
    steps = sorted({arm.config.train.steps for arm in plan.grid.arms})
    parts = [
        f"windtunnel {__version__}",
        f"corpus {base.store.corpus.name} sha256:{base.store.sha256[:12]}",
        "arms " + " | ".join(f"{arm.name} {arm.key[:12]}" for arm in plan.grid.arms),
        *(f"{arm.name} changed by {_hashed(arm.change)}" for arm in plan.grid.arms if arm.change),
        f"seeds {ranges(plan.grid.seeds)}",
        f"steps {'/'.join(map(str, steps))}",
        f"dev split, whole: {base.task.totals('dev')['targets']} {base.config.task.noun}s in {n_documents} documents",
        statistic(plan.rule, f"{plan.margin:.2%}"),
        f"{base.config.train.precision}, {base.config.train.threads} thread(s)",
        *versions,
    ]
    return "; ".join(parts)


def statistic(rule: Rule, margin: str) -> str:
    """The part of a signature that says how it was judged."""
    looks = rule.looks
    told = f"looks after {looks[0]}...{looks[-1]} seeds (Pocock, t)" if looks else "one look"
    return f"paired t test, {rule.correction}, {told}, alpha {rule.alpha:g}, margin {margin}"


def seeds_looked_at(folder: Path) -> list[int]:
    """With how many seeds the same arms have been judged before, from the comparison's folder."""
    path = folder / SAVED
    try:
        return sorted({int(n) for n in json.loads(read_file(path, largest=LARGEST_MANIFEST))["seeds_looked_at"]})
    except FileNotFoundError:
        return []
    except (ArtifactError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("with how many seeds these arms were judged before cannot be read from %s: %s", path, error)
        return []


def _runs(arm: ArmResult) -> Iterator[str]:
    diverged = [run for run in arm.seeds if run.reason == "diverged"]
    if diverged:
        loss = "" if len(diverged) == len(arm.seeds) else "; its mean is of those that finished"
        first = diverged[0].message.partition(". ")[0]
        yield f"{arm.name} diverged in {len(diverged)} of {len(arm.seeds)} seeds{loss}. The first: {first}"
    missing = [run for run in arm.seeds if not run.scores]
    if missing:
        told = f": {missing[0].message}" if missing[0].message else ""
        yield f"{arm.name}: seeds {ranges([r.seed for r in missing])} are missing ({missing[0].reason}{told})"


def _hashed(change: Change) -> str:
    return f"{change.name} sha256:{change.config.source_sha256[:12]}"


def _change(name: str, trial: Trial) -> Iterator[str]:
    yield f"{name} is changed in Python by {_hashed(trial.change)}; each of its runs holds a copy of the file"
    if trial.other_loss:
        yield f"{name} trains on a loss of its own; it is judged by the same loss as the others"
    if math.isnan(trial.flops):
        yield f"{name}: the FLOPs of its change are not known, its batches having other shapes, or torch counting none"
    if trial.other_batches and trial.tokens != 1:
        yield f"{name}: its tokens are estimated from some of its change's batches"


def _costs(base: ArmResult, arm: ArmResult) -> Iterator[str]:
    for what, ours, theirs in (("tokens", arm.tokens, base.tokens), ("FLOPs", arm.flops, base.flops)):
        if abs(ours / theirs - 1) > 0.02:
            yield f"{arm.name} spends {number(ours / theirs, 2)} times the {what} of {base.name} a run"
            return


def _chance(judgement: Judgement) -> Iterator[str]:
    verdict = judgement.verdict
    if any(verdict.diverged):
        yield (
            f"{judgement.arm}: the p of its t test is of two tests together: how often runs diverged (McNemar, exact), "
            "and the t test of the seeds that finished in both"
        )
    if verdict.rests_on_normality:
        yield (
            f"{judgement.arm}: the t test decides and a sign-flip test does not ({p_is(verdict.p_sign_flip)}): from "
            f"{verdict.n} seeds the verdict rests on the differences being about normal"
        )
    if (documents := judgement.over_documents) and judgement.others_could_turn:
        yield (
            f"{judgement.arm}: the verdict holds for these held-out documents; others could turn it "
            f"({ends(documents, sign=True)} over documents): hold out more"
        )


def ranges(seeds: Sequence[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
