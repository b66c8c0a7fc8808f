"""Loss as a function of logits and targets."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


def training_loss_sum(logits_BTV: Tensor, targets_BT: Tensor, compiled: bool = False) -> Tensor:
    """`loss_sum` with its gradient computed in the same pass, chunk by chunk; its gradient can be computed once.

    Autograd keeps the logits in float32, their log-softmax and its gradient, each as large as the logits; of 50,257
    columns that is most of a small model's memory, and reading it most of the time of its loss. Here only the
    gradient is kept, in the type of the logits. `compiled` is for several chunks: one kernel that writes nothing else.
    """
    summed: Tensor = _CrossEntropySum.apply(logits_BTV.flatten(0, 1), targets_BT.flatten(), compiled)  # type: ignore[no-untyped-call]
    return summed


def cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in float32, and its gradient softmax - one-hot, (N, V) in the type of the logits."""
    counted_N1, targets_N1 = (targets_N != IGNORED)[:, None], targets_N.clamp(min=0)[:, None]
    log_p_NV = torch.log_softmax(logits_NV, -1, dtype=torch.float32)
    log_p_N1 = log_p_NV.gather(1, targets_N1).mul_(counted_N1)
    gradient_NV = log_p_NV.exp_().mul_(counted_N1).to(logits_NV.dtype)
    gradient_NV.scatter_(1, targets_N1, log_p_N1.expm1().to(logits_NV.dtype))  # at the target, where expm1(0) is 0
    return -log_p_N1.sum(), gradient_NV


@cache
def _compiled() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`cross_entropy` as one kernel, which holds no logits in float32; torch's compiler is imported only then."""
    return torch.compile(cross_entropy)


class _CrossEntropySum(torch.autograd.Function):
    """logits (N, V), targets (N,) -> summed cross-entropy in float32."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, compiled: bool) -> Tensor:
        if compiled and logits_NV.numel() > CHUNK:
            total, ctx.gradient_NV = _compiled()(logits_NV, targets_N)
            return total
        n_rows = max(1, CHUNK // logits_NV.shape[1])
        ctx.gradient_NV = torch.empty_like(logits_NV)
        total = torch.zeros((), device=logits_NV.device)
        chunks = (torch.split(x, n_rows) for x in (logits_NV, targets_N, ctx.gradient_NV))
        for logits_nV, targets_n, into_nV in zip(*chunks, strict=True):
            summed, gradient_nV = cross_entropy(logits_nV, targets_n)
            total += summed
            into_nV.copy_(gradient_nV)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        if ctx.gradient_NV is None:
            raise RuntimeError("the gradient of a training loss can be computed once; take loss_sum to do it again")
        gradient_NV, ctx.gradient_NV = ctx.gradient_NV, None
        return gradient_NV.mul_(scale), None, None
