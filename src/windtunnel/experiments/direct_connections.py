"""003-1.E03: connections from the token vectors straight to the logits, judged on the dev split and by minibatches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Findings, Given, Row, Setting, draw, table
from windtunnel.experiments.makemore import HERE, config_of
from windtunnel.experiments.training import folders_of, trained
from windtunnel.report.charts import histograms
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.training.events import Step
from windtunnel.training.run import open_run

ROW, E21 = Row("003-1.E03"), Row("E21")
STEPS, SEEDS = 20_000, 8
LAST = 100
"""Minibatches at the end of a run, at its lowest rate, of which each could have been the last one."""
RIGHT = 0.95
ARMS: dict[str, dict[str, bool]] = {"without": {}, "direct connections": {"direct": True}}


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


def direct_connections(at: Setting) -> Findings:
    """Direct connections.

    The mlp with batch norm was trained without and with a matrix from the token vectors straight to the logits
    (Bengio et al. 2003), on paired seeds; measured on `names`. Beside the verdict on the whole dev split stands what
    single minibatches among the last 100 of two runs would have said.
    """
    steps = at.size(STEPS, quick=150)
    yield Given({"steps": steps})
    arms = [Arm(name, config_of(own, steps, at.size(10, quick=2))) for name, own in ARMS.items()]
    found = yield from trained(at, "without and with direct connections", arms, at.seeds(SEEDS), "dev")
    last = last_batches(found)
    yield from claims(found, last)
    yield from minibatches(last)


def last_batches(found: Comparison, last: int = LAST) -> LastBatches:
    """The train losses of the last minibatches of both arms, against each other half of them apart."""
    runs = ([open_run(folder).events() for folder in folders_of(found, arm.name)] for arm in found.arms)
    without, with_ = (np.array([[e.loss for e in own if isinstance(e, Step)][-last:] for own in arm]) for arm in runs)
    apart = np.roll(with_, with_.shape[1] // 2, axis=1)
    return LastBatches(apart - without, np.array([d for _, d in found.judgements[0].differences]))


def claims(found: Comparison, last: LastBatches) -> Findings:
    """The idea, and the way in which it was judged."""
    [judgement] = found.judgements
    right, spread, over = mean_interval(last.right.tolist()), float(last.differences.std()), judgement.over_seeds
    times = spread / max(abs(over.estimate), 1e-12)
    statement = f"direct connections lower the dev loss; {HERE}"
    yield ROW.judged(statement, judgement, ["better"], "one minibatch of each: 1.9869 and 1.6392")
    statement = f"the last minibatch of each run tells which is better on dev, in at least {RIGHT:.0%}"
    yield E21.within(statement, right, RIGHT, 1, shown="it has the sign of the dev difference in a share of {}")
    statement = "two last minibatches may differ by .35 although the dev losses do not"
    shown = f"standard deviation of their difference {spread:.4f}, {times:.0f} times the mean dev difference {over}"
    yield E21.within(statement, share_beyond(last, 0.3477), 0.01, 1, ".3477", shown)


def share_beyond(last: LastBatches, size: float) -> Estimate:
    """The share of minibatch differences at least so large, over seeds."""
    return mean_interval((np.abs(last.differences) >= size).mean(axis=1).tolist())


def minibatches(last: LastBatches) -> Findings:
    """Of each seed the difference on dev, and what single minibatches say: as a table, and on the same scale."""
    rows = (
        (f"{i}", f"{dev:+.4f}", f"{own[-1]:+.4f}", f"{own.mean():+.4f}", own.std(), f"{100 * right:.0f} %")
        for i, (dev, own, right) in enumerate(zip(last.dev, last.differences, last.right, strict=True))
    )
    heads = ("seed", "dev", "last minibatch", "mean of the last", "their deviation", "right sign")
    yield table(f"With - without, nats: dev split and last {last.differences.shape[1]} minibatches", heads, rows)
    down = {"no difference": 0.0, "whole dev split, each seed": last.dev}
    xlabel = "with - without direct connections, nats (left of 0 is better)"
    yield draw("minibatches", histograms({"one minibatch each": last.differences}, down=down, xlabel=xlabel))
