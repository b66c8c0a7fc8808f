"""The cross-entropy of logits and targets: the loss of every task whose targets are ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.text.batches import IGNORED


def loss_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy summed over all targets that are not padding, in nats, computed in float32.

    A sum, not a mean: dividing once by the number of targets in the whole batch makes accumulation over
    micro-batches with unequal numbers of tokens exact.
    """
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """The cross-entropy of each target in nats (B, T), computed in float32; 0 where it is padding."""
    each = F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.view_as(targets_BT)


CHUNK = 2**20
"""So many logits at a time are held in float32 on the way to a training loss: 4 MiB, which a cache holds, too."""


def training_loss_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """`loss_sum` of many logits in chunks; its gradient can be computed once, and takes the place of the logits.

    Autograd keeps the logits in float32, their log-softmax and its gradient, each as large as the logits; of 50,257
    columns that is most of a small model's memory.
    """
    if logits_BTV.numel() <= CHUNK:
        return loss_sum(logits_BTV, targets_BT)
    summed: Tensor = _CrossEntropySum.apply(logits_BTV.flatten(0, 1), targets_BT.flatten())  # type: ignore[no-untyped-call]
    return summed


class _CrossEntropySum(torch.autograd.Function):
    """logits (N, V), targets (N,) -> summed cross-entropy in float32."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        counted_N = targets_N != IGNORED
        at = torch.arange(len(targets_N), device=targets_N.device), targets_N.clamp(min=0)
        most_N1 = logits_NV.amax(1, keepdim=True).float()
        sums_N = [(chunk.float() - most_N1).exp_().sum(1) for chunk in _chunks(logits_NV)]
        log_sum_N = torch.stack(sums_N).sum(0).log()
        log_p_N = (logits_NV[at].float() - most_N1[:, 0] - log_sum_N) * counted_N
        ctx.logits_NV, ctx.rest = logits_NV, (at, counted_N, most_N1[:, 0] + log_sum_N, log_p_N)
        return -log_p_N.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        """softmax - one-hot, in the type of the logits."""
        if ctx.logits_NV is None:
            raise RuntimeError("the gradient of a training loss can be computed once; take loss_sum to do it again")
        gradient_NV, ctx.logits_NV = ctx.logits_NV, None
        at, counted_N, log_z_N, log_p_N = ctx.rest
        scale_N = scale * counted_N
        for chunk in _chunks(gradient_NV):
            chunk.copy_((chunk.float() - log_z_N[:, None]).exp_().mul_(scale_N[:, None]))
        gradient_NV[at] = (log_p_N.expm1() * scale_N).to(gradient_NV.dtype)
        return gradient_NV, None


def _chunks(logits_NV: Tensor) -> Sequence[Tensor]:
    """Some columns of all rows at a time."""
    return torch.split(logits_NV, max(1, CHUNK // len(logits_NV)), dim=1)
