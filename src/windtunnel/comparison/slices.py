"""A comparison by slice: on which kinds of sources an arm that translates is better, and on which worse; of arms that
train on a mix, on which of its corpora."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from windtunnel.comparison.comparison import Comparison, Slice
from windtunnel.comparison.judging import (
    Found,
    Paired,
    Runs,
    conclude,
    judgement,
    mean_scores,
    metric_of,
    pair_up,
    read_runs,
    scores_of,
    times,
)
from windtunnel.comparison.plan import Plan
from windtunnel.comparison.verdict import Verdict, judge
from windtunnel.errors import ConfigError
from windtunnel.inspect.answers import FEWEST
from windtunnel.inspect.slices import Chosen, pairs_by_slice
from windtunnel.tasks import Metric, MixedLanguage


def conclude_all(plan: Plan, slices: bool = False) -> Comparison:
    """As `conclude`; with the slices where they are asked for, and of mixes in any case, where the tokens are the same.

    Raises:
        ConfigError: as `check_slices`.
        ArtifactError: as `read_runs`.
    """
    base = plan.baseline.store
    mixes = base.parts and all(arm.store.folder == base.folder for arm in plan.grid.arms)
    return with_slices(plan) if slices or mixes else conclude(plan)


def check_slices(plan: Plan) -> None:
    """Whether the arms can be judged by slice, which is known before any is trained.

    Raises:
        ConfigError: for an arm that does not translate and trains on no mix, or that has another tokenizer than the
            baseline.
    """
    base = plan.baseline
    for arm in plan.grid.arms:
        if (kind := arm.config.task.kind) != "translation" and not arm.store.parts:
            raise ConfigError(
                f"--slices judges what arms translate, and {arm.name} is trained for {kind}; leave it out, or compare "
                "on pairs, e.g.: windtunnel compare pig-latin"
            )
        if arm.store.folder != base.store.folder:
            raise ConfigError(
                f"--slices needs the same tokens in every arm, and {arm.name} has another tokenizer than {base.name}; "
                "leave it out, or give both the same text.tokenizer settings"
            )


def with_slices(plan: Plan) -> Comparison:
    """As `conclude`, with the slices, from the runs that are there; nothing is trained or translated.

    Raises:
        ConfigError: as `check_slices`.
        ArtifactError: as `read_runs`.
    """
    check_slices(plan)
    runs = read_runs(plan)
    task, store = plan.baseline.task, plan.baseline.store
    mixed = task if isinstance(task, MixedLanguage) else None
    of: Literal["pairs", "documents"] = "documents" if mixed else "pairs"
    chosen = mixed.units_by_part("dev") if mixed else pairs_by_slice(store, "dev")
    more = [_held_out(mixed)] if mixed else []
    found, slices = conclude(plan, runs), judge_slices(plan, runs, chosen)
    return replace(found, slices=slices, slices_of=of, notes=(*found.notes, *more, *notes_on(plan, slices, of)))


def _held_out(task: MixedLanguage) -> str:
    """Of what the verdict on a whole mix is."""
    whole = task.totals("dev")["targets"]
    shares = (f"{part.totals('dev')['targets'] / whole:.0%} {name}" for name, part in task.by_name("dev").items())
    return (
        f"the held-out tokens are {', '.join(shares)}, whatever the mix: other shares of them can turn a verdict on all"
    )


def judge_slices(plan: Plan, found: Runs, chosen: Chosen) -> tuple[Slice, ...]:
    """Judge every slice by the comparison's rule, as if its pairs (of a mix, units) were the whole dev split.

    The levels are corrected for all slices and arms together, so that `alpha` is the chance that any of them is called
    better or worse when none differs.

    Args:
        found: the runs of each arm.
        chosen: the pairs of each slice, (n_pairs,) bool by its name.
    """
    metrics = plan.baseline.task.metrics
    parts = {name: _part(plan, found, name, pairs) for name, pairs in chosen.items()}
    judged = _judge({name: part for name, part in parts.items() if chosen[name].sum() >= FEWEST}, plan)
    slices = []
    for name, part in parts.items():
        judgements = [judgement(verdict, part, plan.baseline.name, metrics) for verdict in judged.get(name, ())]
        scores = {arm: mean_scores(own, metrics) for arm, own in part.found.items()}
        named = tuple(replace(j, sentence=f"{name}: {j.sentence}") for j in judgements)
        slices.append(Slice(name, int(chosen[name].sum()), scores, part.rule.margin, named))
    return tuple(slices)


def _part(plan: Plan, found: Runs, name: str, pairs: npt.NDArray[np.bool_]) -> Paired:
    """The runs as if these pairs were all."""
    task = plan.baseline.task
    measured = next((f.measured for own in found.values() for f in own if f.measured), None)
    # As `Translation.totals`, of these pairs.
    totals = {"targets": float(measured.sums["targets"][pairs].sum()), "pairs": int(pairs.sum())} if measured else {}
    if isinstance(task, MixedLanguage):
        totals = dict(task.by_name("dev")[name].totals("dev"))
    metrics = task.metrics
    return pair_up(plan, {arm: [_within(f, pairs, metrics, totals) for f in own] for arm, own in found.items()}, totals)


def _within(
    found: Found, pairs: npt.NDArray[np.bool_], metrics: Sequence[Metric], totals: Mapping[str, float]
) -> Found:
    """A run whose documents are these pairs. One that diverged did so on every slice."""
    if found.measured is None:
        return found
    measured = replace(found.measured, sums={name: column[pairs] for name, column in found.measured.sums.items()})
    scores = scores_of(measured, metrics, totals, Path(found.run.folder))
    return replace(found, measured=measured, run=replace(found.run, scores=scores))


def _judge(parts: Mapping[str, Paired], plan: Plan) -> dict[str, list[Verdict]]:
    """The verdicts of each slice, from one call for all: it corrects for their number.

    Every slice has a margin of its own, so differences are judged in units of it. Dunnett's correction is for arms
    on the same documents; Holm's, which holds for any, takes its place.
    """
    places = [(name, arm) for name, part in parts.items() for arm in part.pairs]
    differences = {
        str(i): [d / parts[name].rule.margin for _, d in parts[name].pairs[arm]] for i, (name, arm) in enumerate(places)
    }
    correction = "holm" if plan.rule.correction == "dunnett" else plan.rule.correction
    verdicts: dict[str, list[Verdict]] = {}
    rule = replace(plan.rule, margin=1.0, correction=correction, better=metric_of(plan).better)
    for (name, arm), verdict in zip(places, judge(differences, rule), strict=True):
        difference = times(verdict.difference, parts[name].rule.margin)
        verdicts.setdefault(name, []).append(replace(verdict, arm=arm, difference=difference))
    return verdicts


def notes_on(plan: Plan, slices: Sequence[Slice], of: str = "pairs") -> Iterator[str]:
    """What to bear in mind of the verdicts by slice, in sentences."""
    n = sum(len(part.judgements) for part in slices)
    if not any(part.enough for part in slices):
        yield (
            f"by slice: none has {FEWEST} {of}, so nothing is said of any; hold out more, e.g. "
            "--set text.dev_fraction=0.2"
        )
    elif n and plan.rule.correction == "none":
        yield f"by slice: {n} verdicts without a correction, as asked: the more there are, the likelier a wrong winner"
    elif n:
        name = "Bonferroni" if plan.rule.correction == "bonferroni" else "Holm"
        yield (
            f"by slice: {name}'s correction is for all {n} verdicts together: the chance that any of them names a "
            f"wrong winner is at most {plan.rule.alpha:g}"
        )
    won = [(part, j) for part in slices for j in part.judgements if j.verdict.names_winner]
    for part, j in won:
        if j.others_could_turn:
            yield f"{part.name}: the verdict on {j.arm} holds for these {part.n:,} {of}; others could turn it"
    by_t = [j for _, j in won if j.verdict.rests_on_normality]
    if by_t:
        yield (
            f"by slice: {len(by_t)} of {len(won)} verdicts of better or worse rest on the differences being about "
            "normal: the t test decides and a sign-flip test does not"
        )
