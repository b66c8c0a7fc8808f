"""Tasks that no family is shipped for yet, each on a few made-up examples, and the steps that train them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from windtunnel.tasks import LOSS
from windtunnel.tasks.cross_entropy import losses
from windtunnel.text.batches import IGNORED, in_turn, sample
from windtunnel.training.evaluate import evaluate, unit_sums
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig
from windtunnel.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class ToyExamples:
    """n units of one row each; `rows` makes the batch of some of them."""

    n: int
    rows: Callable

    def __len__(self):
        return self.n

    def take(self, indices, key=0):
        return self.rows(indices)

    def sweep(self, size, max_tokens=None):
        lengths = np.array([self.take(np.array([i])).n_targets for i in range(self.n)])
        for some in in_turn(sample(lengths, max_tokens), size):
            yield self.take(some)._replace(units=torch.from_numpy(some)[:, None])


@dataclasses.dataclass(frozen=True)
class ToyTask:
    """One set of examples for every split."""

    own: ToyExamples
    blind: float
    metrics: tuple = (LOSS,)
    rows: int = 5

    def examples(self, split):
        return self.own

    def losses(self, logits, targets):
        return losses(logits, targets)

    def loss_sum(self, logits, targets):
        return self.losses(logits, targets).sum()

    def training_loss_sum(self, logits, targets, once=False):
        return self.loss_sum(logits, targets)

    def totals(self, split):
        return {"targets": self.own.take(np.arange(self.own.n)).n_targets}

    def n_units(self, split):
        return self.own.n


def right_padded(rows, fill):
    """(B, longest) int64."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def train(model, task, steps, size=8, parts=1, lr=0.02, seed=0):
    """The mean loss of every step, which a run's own Trainer takes."""
    config = RunConfig(
        corpus="made up here",
        optimizer=OptimizerConfig(lr=lr, weight_decay=0.0),
        schedule=ScheduleConfig(curve="constant", warmup=0),
        train=TrainConfig(steps=steps, batch_size=size, grad_accumulation=parts, precision="fp32", compile=False),
        seed=seed,
    )
    trainer = Trainer.begin(config, task, model)
    return [trainer.step().loss for _ in range(steps)]


def check_scores(model, task):
    """The scores on dev, which must be those of the sums over its units."""
    found, sums = evaluate(model, task, "dev", step=0), unit_sums(model, task, "dev")
    assert all(column.shape == (task.n_units("dev"),) for column in sums.values())
    assert found.whole
    assert found.n_tokens == sums["targets"].sum() == task.totals("dev")["targets"]
    columns = {name: column.sum() for name, column in sums.items()}
    for metric in task.metrics:
        assert found.scores[metric.name] == pytest.approx(metric.score(columns), rel=1e-6)
    return found.scores


def both_ways(logits_BB, targets_B1):
    """Half the loss of finding each row's partner, half that of being found by it (Radford et al. 2021), (B, 1)."""
    rows = torch.arange(len(logits_BB))
    found, finds = (F.cross_entropy(side, rows, reduction="none") for side in (logits_BB, logits_BB.T))
    return (0.5 * (found + finds) * (targets_B1[:, 0] != IGNORED))[:, None]
