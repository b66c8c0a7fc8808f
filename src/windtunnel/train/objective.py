"""Loss as a function of logits and targets."""

from __future__ import annotations

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


CHUNK = 2**22
"""So many logits at a time are held in float32 on the way to a training loss: 16 MiB."""


def training_loss_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """`loss_sum` with its gradient computed in the same pass, chunk by chunk; its gradient can be computed once.

    Autograd keeps the logits in float32, their log-softmax and its gradient, each as large as the logits; of 50,257
    columns that is most of a small model's memory, and reading it most of the time of its loss. Here only the
    gradient is kept, in the type of the logits.
    """
    summed: Tensor = _CrossEntropySum.apply(logits_BTV.flatten(0, 1), targets_BT.flatten())  # type: ignore[no-untyped-call]
    return summed


class _CrossEntropySum(torch.autograd.Function):
    """logits (N, V), targets (N,) -> summed cross-entropy in float32; the gradient is softmax - one-hot."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        gradient_NV = torch.empty_like(logits_NV)
        total = torch.zeros((), device=logits_NV.device)
        n_rows = max(1, CHUNK // logits_NV.shape[1])
        for begin in range(0, len(logits_NV), n_rows):
            logits_nV, targets_n = logits_NV[begin : begin + n_rows], targets_N[begin : begin + n_rows]
            log_p_nV = torch.log_softmax(logits_nV, -1, dtype=torch.float32)
            total += F.nll_loss(log_p_nV, targets_n, ignore_index=IGNORED, reduction="sum")
            counted_n1 = (targets_n != IGNORED)[:, None]
            p_nV = log_p_nV.exp_().mul_(counted_n1)
            p_nV.scatter_add_(1, targets_n.clamp(min=0)[:, None], -counted_n1.float())
            gradient_NV[begin : begin + n_rows] = p_nV
        ctx.gradient_NV = gradient_NV
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        if ctx.gradient_NV is None:
            raise RuntimeError("the gradient of a training loss can be computed once; take loss_sum to do it again")
        gradient_NV, ctx.gradient_NV = ctx.gradient_NV, None
        return gradient_NV.mul_(scale), None
