"""How well a model fits what it was trained on and what it was not, each with an interval over documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.inspect.doctor.data import unigram, unigram_nats
from windtunnel.nn.mode import evaluating
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.intervals import Estimate
from windtunnel.tasks import Task
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.text.store import TokenStore

ROWS = 64


@dataclass(frozen=True)
class RowLosses:
    """Summed loss in nats and number of targets of each row (a document, a window): (R,) each."""

    nats: np.ndarray
    tokens: np.ndarray

    @property
    def mean(self) -> Estimate:
        """Nats a token, with an interval over rows."""
        return ratio_of_sums_interval(self.nats, self.tokens)

    def minus(self, other: RowLosses) -> Estimate:
        """How much higher than another loss on the same rows, in nats per token, paired."""
        return ratio_of_sums_interval(self.nats - other.nats, self.tokens)


@dataclass(frozen=True)
class Fit:
    """Losses of one model on samples of both splits, beside those of token frequencies (of train) on the same rows.

    gap: dev - train; its interval is made of those of both (Zou & Donner 2008, Statistics in Medicine 27).
    """

    train: Estimate
    dev: Estimate
    gap: Estimate
    unigram: Estimate
    better_than_unigram: Estimate
    """unigram - dev on the same rows."""


def fit_of(model: nn.Module, task: Task, store: TokenStore, max_tokens: int) -> Fit | None:
    """The fit of a model; None without a dev split."""
    if task.totals("dev")["targets"] < 1:
        return None
    train = row_losses(model, task, split_sample(task, "train", max_tokens)).mean
    batches = split_sample(task, "dev", max_tokens)
    dev, by_frequency = row_losses(model, task, batches), unigram_losses(store, batches)
    return Fit(train, dev.mean, difference(dev.mean, train), by_frequency.mean, by_frequency.minus(dev))


def split_sample(task: Task, split: str, max_targets: int) -> list[Batch]:
    """Batches of a fixed random sample of a split's examples."""
    return list(task.examples(split).sweep(ROWS, max_targets))


def row_losses(model: nn.Module, task: Task, batches: Sequence[Batch]) -> RowLosses:
    """The loss of each row of some batches under a model in evaluation mode."""

    def nats(batch: Batch) -> Tensor:
        return task.losses(model(**batch.inputs), batch.targets)

    with torch.no_grad(), evaluating(model):
        return _rows(nats, batches)


def unigram_losses(store: TokenStore, batches: Sequence[Batch]) -> RowLosses:
    """The loss of each row under the token frequencies of train; where it finds pictures, of a blind guess."""
    if "pictures" in batches[0].inputs:
        return _rows(lambda batch: torch.full(batch.targets.shape, math.log(len(batch.inputs["pictures"]))), batches)
    log_probabilities = unigram(store)
    return _rows(lambda batch: unigram_nats(log_probabilities, batch), batches)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from the intervals of each."""
    low = a.estimate - b.estimate - math.hypot(a.estimate - a.low, b.high - b.estimate)
    high = a.estimate - b.estimate + math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Estimate(a.estimate - b.estimate, low, high, min(a.n, b.n), "difference of two samples, 95 % interval")


def _rows(nats: Callable[[Batch], Tensor], batches: Sequence[Batch]) -> RowLosses:
    return RowLosses(
        np.concatenate([nats(batch).double().sum(dim=1).numpy() for batch in batches]),
        np.concatenate([(batch.targets != IGNORED).sum(dim=1).numpy() for batch in batches]),
    )
