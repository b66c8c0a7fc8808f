"""003-1.E03: connections from the token vectors straight to the logits, judged on the dev split and by minibatches."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, Verdict, signature, within
from windtunnel.experiments.makemore import HERE, config_of
from windtunnel.experiments.training_before import compared, folders_of, laid
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_rows import arm_rows, verdict_rows
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.training.events import Step
from windtunnel.training.run import open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS = 20_000, 8
LAST = 100
"""Minibatches at the end of a run, at its lowest rate, of which each could have been the last one."""
RIGHT = 0.95
WITHOUT, WITH = "without", "direct connections"


@dataclass(frozen=True)
class LastBatches:
    """What single minibatches say of the difference, with - without: differences (S, LAST) of S seeds.

    Each is between different batches, as in two runs of a script whose arms draw other weights. dev: (S,) on the
    whole dev split. right: the share (S,) of minibatches whose difference has the sign of the dev difference.
    """

    differences: np.ndarray
    dev: np.ndarray

    @property
    def right(self) -> np.ndarray:
        return (np.sign(self.differences) == np.sign(self.dev)[:, None]).mean(axis=1)


def direct_connections(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Do direct connections lower the loss?"""
    steps, n_seeds = (150, 2) if setting.quick else (STEPS, SEEDS)
    looks = 2 if setting.quick else 10
    arms = [Arm(WITHOUT, config_of({}, steps, looks)), Arm(WITH, config_of({"direct": True}, steps, looks))]
    seeds = range(setting.seed, setting.seed + n_seeds)
    found = yield from compared("without and with direct connections", arms, tuple(seeds), setting)
    last = last_batches(found)
    heads, rows = arm_rows(found)
    heads_2, rows_2 = verdict_rows(found)
    return Outcome(
        title="Direct connections",
        what=f"The mlp with batch norm was trained {steps:,} steps without and with a matrix from the token vectors "
        f"straight to the logits (Bengio et al. 2003), {n_seeds} paired seeds each; {HERE}. Beside the verdict on the "
        f"whole dev split stands what single minibatches among the last {LAST} of two runs would have said.",
        settings={"steps": steps, "seeds": n_seeds, "comparison": found.signature},
        tables=(laid("Arms", heads, rows), laid("Verdict on the dev split", heads_2, rows_2), minibatch_table(last)),
        figures={"dev": comparison_figure(found), "minibatches": minibatch_figure(last)},
        claims=claims(found, last),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def last_batches(found: Comparison) -> LastBatches:
    """The losses of the last minibatches of both arms, against each other half of them apart."""
    [judgement] = found.judgements
    without, with_ = (final_losses(folders_of(found, arm.name)) for arm in found.arms)
    apart = np.roll(with_, with_.shape[1] // 2, axis=1)
    return LastBatches(apart - without, np.array([difference for _, difference in judgement.differences]))


def final_losses(folders: Sequence[Path], last: int = LAST) -> np.ndarray:
    """The train losses (S, last) of the last steps of runs."""
    return np.array([[e.loss for e in open_run(f).events() if isinstance(e, Step)][-last:] for f in folders])


def claims(found: Comparison, last: LastBatches) -> tuple[Claim, ...]:
    """The idea, and the way in which it was judged."""
    [judgement] = found.judgements
    words: dict[str, Verdict] = {"better": "holds", "undecided": "undecided"}
    right, spread = mean_interval(last.right.tolist()), float(last.differences.std())
    over = judgement.over_seeds
    times = spread / max(abs(over.estimate), 1e-12)
    return (
        Claim(
            "003-1.E03", f"direct connections lower the dev loss; {HERE}", "one minibatch of each: 1.9869 and 1.6392",
            judgement.sentence, words.get(judgement.verdict.word, "does not hold"),
            {"difference": judgement.verdict.difference, "word": judgement.verdict.word, "margin": found.rule.margin},
        ),
        Claim(
            "E21", f"the last minibatch of each run tells which is better on dev, in at least {RIGHT:.0%}", "",
            f"it has the sign of the dev difference in a share of {right}", within(right, RIGHT, 1), {"share": right},
        ),
        Claim(
            "E21", "two last minibatches may differ by .35 although the dev losses do not", ".3477",
            f"standard deviation of their difference {spread:.4f}, {times:.0f} times the mean dev difference {over}",
            within(share_beyond(last, 0.3477), 0.01, 1), {"spread": spread, "dev": over},
        ),
    )  # fmt: skip


def share_beyond(last: LastBatches, size: float) -> Estimate:
    """The share of minibatch differences at least so large, over seeds."""
    return mean_interval((np.abs(last.differences) >= size).mean(axis=1).tolist())


def minibatch_table(last: LastBatches) -> Table:
    rows = tuple(
        (f"{i}", f"{dev:+.4f}", f"{own[-1]:+.4f}", f"{own.mean():+.4f}", f"{own.std():.4f}", f"{100 * right:.0f} %")
        for i, (dev, own, right) in enumerate(zip(last.dev, last.differences, last.right, strict=True))
    )
    heads = ("seed", "dev", "last minibatch", "mean of the last", "their deviation", "right sign")
    return Table(f"With - without, nats: dev split and last {last.differences.shape[1]} minibatches", heads, rows)


def minibatch_figure(last: LastBatches) -> Figure:
    """Differences that single minibatches show, and on the same scale those of the dev split."""
    with drawing(7.0, 3.6) as figure:
        axes = figure.subplots()
        share = np.full(last.differences.size, 1 / last.differences.size)
        axes.hist(last.differences.ravel(), bins=41, weights=share, color=TRAIN, alpha=0.7, label="one minibatch each")
        axes.axvline(0, color=QUIET, linewidth=1)
        for i, dev in enumerate(last.dev):
            axes.axvline(dev, color=DEV, linewidth=1, label="whole dev split, each seed" if i == 0 else None)
        axes.set(xlabel="with - without direct connections, nats (left of 0 is better)", ylabel="share")
        axes.legend()
    return figure
