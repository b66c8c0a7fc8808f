"""How well a model fits what it was trained on and what it was not, each with an interval over documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.inspect.doctor.data import label_frequencies, nats_by_frequency, unigram
from windtunnel.nn.mode import evaluating
from windtunnel.stats.bootstrap import ratio_of_sums_interval
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson
from windtunnel.tasks import Classification, Contrastive, Task
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.text.store import TokenStore

ROWS = 64
FIRST = 5
"""Among so many pictures a caption has to find its own."""


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
    """Losses of one model on samples of both splits, beside those of the task's `inputless` guess on the same rows.

    gap: dev - train; its interval is made of those of both (Zou & Donner 2008, Statistics in Medicine 27). Pictures
        are found among as many of either split, as more of them alone make the loss higher.
    among_first: of dev's captions the share that finds its picture among the first FIRST, by Wilson; None of other
        tasks. chance: what that is by chance.
    """

    train: Estimate
    dev: Estimate
    gap: Estimate
    unigram: Estimate
    better_than_unigram: Estimate
    """unigram - dev on the same rows."""
    among_first: Estimate | None = None
    chance: float = 0.0


def fit_of(model: nn.Module, task: Task, store: TokenStore, max_tokens: int) -> Fit | None:
    """The fit of a model; None without a dev split."""
    if task.totals("dev")["targets"] < 1:
        return None
    seen, batches = (split_sample(task, split, max_tokens) for split in ("train", "dev"))
    if isinstance(task, Contrastive):
        n = min(len(seen[0].targets), len(batches[0].targets))
        seen, batches = [_among(n, seen[0])], [_among(n, batches[0])]
    train, dev = row_losses(model, task, seen).mean, row_losses(model, task, batches)
    inputless = inputless_losses(task, store, batches)
    found = Fit(train, dev.mean, difference(dev.mean, train), inputless.mean, inputless.minus(dev))
    if not isinstance(task, Contrastive):
        return found
    return replace(found, among_first=_among_first(model, batches[0]), chance=FIRST / len(batches[0].targets))


def split_sample(task: Task, split: str, max_targets: int) -> list[Batch]:
    """Batches of a fixed random sample of a split's examples."""
    return list(task.examples(split).sweep(ROWS, max_targets))


def row_losses(model: nn.Module, task: Task, batches: Sequence[Batch]) -> RowLosses:
    """The loss of each row of some batches under a model in evaluation mode."""

    def nats(batch: Batch) -> Tensor:
        return task.losses(model(**batch.inputs), batch.targets)

    with torch.no_grad(), evaluating(model):
        return _rows(nats, batches)


def inputless_losses(task: Task, store: TokenStore, batches: Sequence[Batch]) -> RowLosses:
    """The loss of each row under the frequencies of tokens or labels in train; of a blind guess among pictures."""
    if isinstance(task, Contrastive):
        return _rows(lambda batch: torch.full(batch.targets.shape, math.log(len(batch.inputs["pictures"]))), batches)
    log_probabilities = label_frequencies(store) if isinstance(task, Classification) else unigram(store)
    return _rows(lambda batch: nats_by_frequency(log_probabilities, batch), batches)


def _among(n: int, batch: Batch) -> Batch:
    """n captions of a batch, to be found among their pictures alone: a fixed random sample."""
    rows = torch.randperm(len(batch.targets), generator=torch.Generator().manual_seed(0))[:n].sort().values
    inputs = {name: x[batch.targets[rows, 0] if name == "pictures" else rows] for name, x in batch.inputs.items()}
    return Batch(inputs, torch.arange(n)[:, None])


def _among_first(model: nn.Module, batch: Batch) -> Estimate:
    with torch.no_grad(), evaluating(model):
        scores = model(**batch.inputs)[:, 0]
    nearer = (scores >= scores.gather(1, batch.targets)).sum(1)
    return wilson(int((nearer <= FIRST).sum()), len(scores))


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
