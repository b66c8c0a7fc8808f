"""003-1.E01: the lecture's ladder of initialisations up to batch norm: which rungs are real, and what minima say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, interval, table
from windtunnel.experiments.makemore import HERE, LADDER, PUBLISHED_DEV, REPLAY, config_of
from windtunnel.experiments.training import folders_of, trained
from windtunnel.report.charts import Curve, lines
from windtunnel.report.figures import dev_losses
from windtunnel.runs.arms import Arm
from windtunnel.runs.seeds import evaluate_seeds
from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference
from windtunnel.stats.multiplicity import adjust
from windtunnel.stats.paired import t_test
from windtunnel.training.events import Event, Step
from windtunnel.training.run import open_run

ROW, E19 = Row("003-1.E01"), Row("E19")
STEPS, SEEDS = 200_000, 8
PRINTED = 20
"""How many minibatch losses the script prints."""
TARGET = 2.2


def makemore_ladder(at: Setting) -> Findings:
    """The makemore ladder.

    The five versions of the lecture's mlp were trained with paired seeds on `names`, which is another file of names
    than the lecture's. Its own run is replayed draw by draw by `windtunnel train PATH/names.txt --recipe makemore`.
    """
    steps = at.size(STEPS, quick=120)
    yield Given({"steps": steps, "arms": LADDER})
    arms = [Arm(name, config_of(settings, steps, at.size(10, quick=2))) for name, settings in LADDER.items()]
    found = yield from trained(at, "the ladder", arms, at.seeds(SEEDS), "ladder")
    events = {arm.name: [open_run(folder).events() for folder in folders_of(found, arm.name)] for arm in found.arms}
    yield curves(events)
    best = min(found.arms, key=lambda arm: math.inf if arm.loss is None else arm.loss.estimate).name
    yield Progress("the best arm on all splits, test once")
    splits = {split: evaluate_seeds(folders_of(found, best), split).loss for split in ("train", "dev", "test")}
    yield table(f"The best arm, {best}", ("split", "loss"), ((split, str(loss)) for split, loss in splits.items()))
    yield from ladder(found, splits["dev"])
    yield from minima(minibatch_minima(found, events["batch norm"]))


def losses_of(found: Comparison) -> dict[str, list[float]]:
    """The dev losses of every arm, seed by seed; a run that is missing or diverged is NaN."""
    losses = {arm.name: [math.nan if run.loss is None else run.loss for run in arm.seeds] for arm in found.arms}
    return {name: [loss if math.isfinite(loss) else math.nan for loss in own] for name, own in losses.items()}


def rungs(losses: Mapping[str, Sequence[float]]) -> dict[str, tuple[Estimate, float]]:
    """Each rung minus the one before it, paired over the seeds that both have, and its p after Holm."""
    steps: dict[str, tuple[list[float], list[float]]] = {}
    for (_, below), (name, own) in pairwise(losses.items()):
        both = [(a, b) for a, b in zip(below, own, strict=True) if not math.isnan(a + b)]
        steps[name] = [a for a, _ in both], [b for _, b in both]
    p = [t_test([b - a for a, b in zip(*both, strict=True)]).p for both in steps.values()]
    return {name: (paired_difference(*both), q) for (name, both), q in zip(steps.items(), adjust(p), strict=True)}


def ladder(found: Comparison, dev: Estimate) -> Findings:
    """The target, and every rung against the one before it."""
    shown = f"{{}}; the published run itself: {REPLAY}"
    yield ROW.within(f"a dev loss below {TARGET}; {HERE}", dev, 0, TARGET, "2.1050 on names.txt", shown)
    losses = losses_of(found)
    steps = rungs(losses)
    for (before, name), (difference, p) in zip(pairwise(losses), steps.values(), strict=True):
        claim = ROW.within(
            f"{name}: a lower dev loss than {before}", difference, high=0,
            printed=f"{PUBLISHED_DEV[before]:g} to {PUBLISHED_DEV[name]:g}", shown=f"{{}}, p {p:.2g} after Holm",
        )  # fmt: skip
        yield claim if p <= found.rule.alpha else replace(claim, verdict="undecided")
    rows = []
    for name, own in losses.items():
        step, p = steps.get(name, (None, math.nan))
        dev = mean_interval([loss for loss in own if not math.isnan(loss)])
        after = ("", "") if step is None else (interval(step, "+.4f"), f"{p:.2g}")
        rows.append((name, f"{PUBLISHED_DEV[name]:g}", dev, *after))
    heads = ("rung", "published dev, 1 run, names.txt", "dev", "minus the rung before", "p after Holm")
    yield table("The ladder, 95 % intervals over seeds", heads, rows)


def minibatch_minima(found: Comparison, runs: Sequence[Sequence[Event]]) -> dict[str, list[float]]:
    """Of each run with batch norm: the least of the printed minibatches, of all of them, and the dev loss."""
    printed, every = [], []
    for events in runs:
        losses = [e.loss for e in events if isinstance(e, Step)]
        printed.append(min(losses[:: max(1, len(losses) // PRINTED)]))
        every.append(min(losses))
    return {"printed": printed, "all": every, "dev": losses_of(found)["batch norm"]}


def minima(least: Mapping[str, list[float]]) -> Findings:
    """What the least minibatch loss that was printed is not."""
    below, gap = (paired_difference(least[a], least["all"]) for a in ("printed", "dev"))
    printed, every, dev = (f"{name} {np.mean(least[name]):.4f}" for name in ("printed", "all", "dev"))
    yield E19.within("the least printed loss is the least of the run (within .01)", below, -0.01, 0.01, "1.8347",
                     f"{printed}, {every}; all - printed = {{}}")  # fmt: skip
    yield E19.within("the least minibatch loss tells the loss of the model (within .05)", gap, -0.05, 0.05,
                     shown=f"{every}, {dev}; all - dev = {{}}")  # fmt: skip
    heads = ("seed", f"least of {PRINTED} printed", "least of all", "dev at last")
    rows = ((f"{i}", *own) for i, own in enumerate(zip(*least.values(), strict=True)))
    yield table("Minibatch minima of batch norm", heads, rows)


def curves(events: Mapping[str, Sequence[Sequence[Event]]]) -> Drawing:
    """Dev loss of every arm (mean over seeds, marked) and its train loss in means of many steps."""
    both: dict[str, list[Curve]] = {}
    late: list[float] = []
    for name, runs in events.items():
        dev = {step: float(np.mean(losses)) for step, losses in dev_losses(runs).items() if step}
        both[name] = [([*dev], [*dev.values()]), block_means(runs)]
        late += [loss for x, y in both[name] for step, loss in zip(x, y, strict=True) if step >= max(dev) / 2]
    low, high = min(late), min(max(late), min(late) + 0.5)  # naive begins far above the others
    blind = {"blind guess": math.log(27)}
    panels = [
        lines(both, blind, title="marks: dev; lines: train, smoothed", ylim=(low - 0.05, 3.6),
              xlabel="step", ylabel="loss, nats per token"),
        lines(both, blind, title="the second half, closer", ylim=(low - 0.01, high + 0.01), xlabel="step",
              xlim=(max(dev) / 2, max(dev) * 1.02)),
    ]  # fmt: skip
    return draw("curves", *panels)


def block_means(runs: Sequence[Sequence[Event]], blocks: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Steps (blocks,) and train loss (blocks,): means over blocks of steps and over the runs that go as far."""
    rows = [[e.loss for e in events if isinstance(e, Step)] for events in runs]
    n = min(map(len, rows))
    size = max(1, n // blocks)
    loss = np.array([row[: n // size * size] for row in rows]).reshape(len(rows), -1, size).mean(axis=(0, 2))
    return (np.arange(len(loss)) + 0.5) * size, loss
