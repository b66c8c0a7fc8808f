"""003-1.E01: the lecture's ladder of initialisations up to batch norm: which rungs are real, and what minima say."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.comparison.comparison import Comparison, SeedRun
from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, Verdict, signature, within
from windtunnel.experiments.makemore import HERE, LADDER, PUBLISHED_DEV, REPLAY, config_of
from windtunnel.experiments.training_before import compared, folders_of, laid
from windtunnel.report.charts import QUIET, drawing
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_rows import arm_rows, verdict_rows
from windtunnel.report.figures import dev_losses
from windtunnel.runs.arms import Arm
from windtunnel.runs.seeds import evaluate_seeds
from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference
from windtunnel.stats.multiplicity import adjust
from windtunnel.stats.paired import t_test
from windtunnel.training.events import Event, Step
from windtunnel.training.run import open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS = 200_000, 8
PRINTED = 20
"""How many minibatch losses the script prints."""
TARGET = 2.2
COLOURS = ("#000000", "#cc79a7", "#e69f00", "#0072b2", "#d55e00")


def makemore_ladder(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Which steps of the makemore lecture lower the loss?"""
    steps, n_seeds = (120, 2) if setting.quick else (STEPS, SEEDS)
    seeds = tuple(range(setting.seed, setting.seed + n_seeds))
    arms = [Arm(name, config_of(settings, steps, 2 if setting.quick else 10)) for name, settings in LADDER.items()]
    found = yield from compared("the ladder", arms, seeds, setting)
    events = {arm.name: [open_run(folder).events() for folder in folders_of(found, arm.name)] for arm in found.arms}
    best = min(found.arms, key=lambda arm: math.inf if arm.loss is None else arm.loss.estimate).name
    yield Progress("the best arm on all splits, test once", 0, 1)
    splits = {split: evaluate_seeds(folders_of(found, best), split).loss for split in ("train", "dev", "test")}
    minima = minibatch_minima(found, events["batch norm"])
    return Outcome(
        title="The makemore ladder",
        what=f"The five versions of the lecture's mlp were trained {steps:,} steps with {n_seeds} paired seeds; "
        f"{HERE}, which is another file of names than the lecture's. Its own run, replayed draw by draw: {REPLAY}",
        settings={"steps": steps, "seeds": n_seeds, "arms": LADDER, "comparison": found.signature},
        tables=(
            ladder_table(found),
            laid("Arms", *arm_rows(found)),
            laid("Against naive", *verdict_rows(found)),
            Table(f"The best arm, {best}", ("split", "loss"), tuple((s, str(loss)) for s, loss in splits.items())),
            minima_table(minima),
        ),
        figures={"curves": curve_figure(events), "ladder": comparison_figure(found)},
        claims=(*ladder_claims(found, splits["dev"]), *minimum_claims(minima)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )  # fmt: skip


def losses_of(found: Comparison) -> dict[str, list[float]]:
    """The dev losses of every arm, seed by seed; a run that is missing or diverged is NaN."""

    def loss(run: SeedRun) -> float:
        return run.loss if run.loss is not None and math.isfinite(run.loss) else math.nan

    return {arm.name: [loss(run) for run in arm.seeds] for arm in found.arms}


def rungs(losses: Mapping[str, Sequence[float]]) -> dict[str, tuple[Estimate, float]]:
    """Each rung minus the one before it, paired over the seeds that both have, and its p after Holm."""
    steps: dict[str, tuple[list[float], list[float]]] = {}
    for (_, below), (name, own) in pairwise(losses.items()):
        both = [(a, b) for a, b in zip(below, own, strict=True) if not math.isnan(a + b)]
        steps[name] = [a for a, _ in both], [b for _, b in both]
    p = [t_test([b - a for a, b in zip(*both, strict=True)]).p for both in steps.values()]
    return {name: (paired_difference(*both), q) for (name, both), q in zip(steps.items(), adjust(p), strict=True)}


def ladder_claims(found: Comparison, dev: Estimate) -> tuple[Claim, ...]:
    """The target, and every rung against the one before it."""
    names = list(LADDER)
    claims = [
        Claim(
            "003-1.E01", f"a dev loss below {TARGET}; {HERE}", "2.1050 on names.txt",
            f"{dev}; the published run itself: {REPLAY}", within(dev, 0, TARGET), {"dev": dev},
        )
    ]  # fmt: skip
    for name, (difference, p) in rungs(losses_of(found)).items():
        before = names[names.index(name) - 1]
        verdict: Verdict = "undecided" if p > found.rule.alpha else within(difference, -math.inf, 0)
        published = f"{PUBLISHED_DEV[before]:g} to {PUBLISHED_DEV[name]:g}"
        claims.append(
            Claim(
                "003-1.E01", f"{name}: a lower dev loss than {before}", published,
                f"{difference}, p {p:.2g} after Holm", verdict, {"difference": difference, "p": p},
            )
        )  # fmt: skip
    return tuple(claims)


def minibatch_minima(found: Comparison, runs: Sequence[Sequence[Event]]) -> dict[str, list[float]]:
    """Of each run with batch norm: the least of the printed minibatches, of all of them, and the dev loss."""
    printed, every = [], []
    for events in runs:
        losses = [e.loss for e in events if isinstance(e, Step)]
        printed.append(min(losses[:: max(1, len(losses) // PRINTED)]))
        every.append(min(losses))
    return {"printed": printed, "all": every, "dev": losses_of(found)["batch norm"]}


def minimum_claims(minima: Mapping[str, list[float]]) -> tuple[Claim, ...]:
    """What the least minibatch loss that was printed is not."""
    below, gap = (paired_difference(minima[a], minima["all"]) for a in ("printed", "dev"))
    means = {name: float(np.mean(values)) for name, values in minima.items()}
    return (
        Claim(
            "E19", "the least printed loss is the least of the run (within .01)", "1.8347",
            f"printed {means['printed']:.4f}, all {means['all']:.4f}; all - printed = {below}",
            within(below, -0.01, 0.01), {"difference": below, **means},
        ),
        Claim(
            "E19", "the least minibatch loss tells the loss of the model (within .05)", "",
            f"all {means['all']:.4f}, dev {means['dev']:.4f}; all - dev = {gap}",
            within(gap, -0.05, 0.05), {"difference": gap},
        ),
    )  # fmt: skip


def ladder_table(found: Comparison) -> Table:
    losses = losses_of(found)
    steps = rungs(losses)
    rows = []
    for name, own in losses.items():
        mean = mean_interval([loss for loss in own if not math.isnan(loss)])
        difference, p = steps.get(name, (None, math.nan))
        step = (
            "" if difference is None else f"{difference.estimate:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        )
        dev = f"{mean.estimate:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
        rows.append((name, f"{PUBLISHED_DEV[name]:g}", dev, step, "" if difference is None else f"{p:.2g}"))
    heads = ("rung", "published dev, 1 run, names.txt", "dev", "minus the rung before", "p after Holm")
    return Table("The ladder, 95 % intervals over seeds", heads, tuple(rows))


def minima_table(minima: Mapping[str, list[float]]) -> Table:
    rows = tuple((f"{i}", *(f"{values[i]:.4f}" for values in minima.values())) for i in range(len(minima["dev"])))
    heads = ("seed", f"least of {PRINTED} printed", "least of all", "dev at last")
    return Table("Minibatch minima of batch norm", heads, rows)


def curve_figure(events: Mapping[str, Sequence[Sequence[Event]]]) -> Figure:
    """Dev loss of every arm (mean over seeds, with markers) over its train loss in means of many steps."""
    with drawing(10.0, 4.4) as figure:
        whole, close = figure.subplots(1, 2, width_ratios=(3, 2))
        lowest, highest, last = math.inf, 0.0, 0
        for (name, runs), colour in zip(events.items(), COLOURS, strict=True):
            steps, train = block_means(runs)
            dev = {step: float(np.mean(losses)) for step, losses in dev_losses(runs).items() if step}
            for axes in (whole, close):
                axes.plot(steps, train, color=colour, linewidth=0.8, alpha=0.6)
                axes.plot(list(dev), list(dev.values()), color=colour, marker="o", markersize=4, label=name)
            late = [loss for step, loss in dev.items() if step >= steps[-1] / 2]
            late += [loss for step, loss in zip(steps, train, strict=True) if step >= steps[-1] / 2]
            lowest, highest, last = min([lowest, *late]), max([highest, *late]), int(steps[-1])
        highest = min(highest, lowest + 0.5)  # naive begins far above the others
        whole.axhline(math.log(27), color=QUIET, linestyle=":", linewidth=1)
        whole.set(ylim=(lowest - 0.05, math.log(27) + 0.3), xlim=0, xlabel="step", ylabel="loss, nats a token")
        whole.set_title("dots: dev; thin: train, smoothed; dotted: a blind guess", loc="left", fontsize=10)
        close.set(xlim=(last / 2, last * 1.02), ylim=(lowest - 0.01, highest + 0.01), xlabel="step")
        close.set_title("the second half, closer", loc="left", fontsize=10)
        whole.legend()
    return figure


def block_means(runs: Sequence[Sequence[Event]], blocks: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Steps (blocks,) and train loss (blocks,): means over blocks of steps and over the runs that go as far."""
    rows = [[e.loss for e in events if isinstance(e, Step)] for events in runs]
    n = min(map(len, rows))
    size = max(1, n // blocks)
    loss = np.array([row[: n // size * size] for row in rows]).reshape(len(rows), -1, size).mean(axis=(0, 2))
    return (np.arange(len(loss)) + 0.5) * size, loss
