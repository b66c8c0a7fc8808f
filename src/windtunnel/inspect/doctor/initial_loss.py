"""The loss before training against that of a blind guess, ln V, and what makes it differ."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import Batch


@dataclass(frozen=True)
class InitialLoss:
    """Loss of a model on batches, in nats per target, against `blind`, ln V for V tokens, labels or pictures.

    logit_std: the standard deviation of the logits over the vocabulary, averaged over tokens. Independent normal
        logits of that deviation s cost ln V + s^2 / 2 (the mean of a log-normal).
    """

    loss: Estimate
    blind: float
    logit_std: float


def initial_loss(model: nn.Module, batches: Sequence[Batch]) -> InitialLoss:
    """Measure a model as it is; the interval is over the batches."""
    losses, spreads = [], []
    with torch.no_grad():
        for batch in batches:
            logits_BTV = model(**batch.inputs)
            losses.append(loss_sum(logits_BTV, batch.targets).item() / batch.n_targets)
            spreads.append(logits_BTV.float().std(dim=-1, correction=0).mean().item())
    return InitialLoss(mean_interval(losses), math.log(logits_BTV.shape[-1]), sum(spreads) / len(spreads))


def culprit(model: nn.Module, batch: Batch, factor: float = 0.1) -> tuple[str, float]:
    """The matrix that, made smaller by `factor`, brings the loss on a batch down most: (name, that loss).

    An experiment instead of a rule about names: it finds a large head, a large embedding, or one layer that
    multiplies, in any model. A change of less than a thousandth has no culprit: ("", the loss as it is).
    """
    trial = copy.deepcopy(model)
    before = initial_loss(trial, [batch]).loss.estimate
    found = ("", before)
    for name, parameter in trial.named_parameters():
        if parameter.dim() < 2:  # the gain of a norm before a large matrix would do it, too
            continue
        kept = parameter.detach().clone()
        parameter.data.mul_(factor)
        loss = initial_loss(trial, [batch]).loss.estimate
        parameter.data.copy_(kept)
        if loss < found[1] - 1e-3 * abs(before):
            found = (name, loss)
    return found
