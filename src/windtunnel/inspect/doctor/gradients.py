"""The gradient of every parameter: none, exactly zero, zero but for rounding, or how large."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from windtunnel.text.batches import IGNORED, Batch

State = Literal["flows", "frozen", "unused", "zero", "cancels"]
ROUNDING = 1e-3
"""A gradient that shrinks by more than this factor from float32 to float64 is rounding: float64 rounds 5e8 times finer,
and one that is really there is the same in both."""


@dataclass(frozen=True)
class Gradient:
    """The gradient of one parameter on a batch.

    state: `flows`; `frozen` (the parameter asks for none); `unused` (the loss does not depend on it, autograd gives
        None); `zero` (exactly, in every element); `cancels` (zero but for rounding, as of a bias before a norm that
        subtracts the mean).
    rms, weight_rms: root mean squares of the gradient and of the parameter. rms_64: of the gradient in float64.
    """

    name: str
    shape: tuple[int, ...]
    state: State
    rms: float
    rms_64: float
    weight_rms: float


def gradient_flow(model: nn.Module, batch: Batch) -> tuple[Gradient, ...]:
    """The gradients of the mean loss of a batch, in float32 and again in float64, without dropout.

    Modules with running statistics normalise by the batch, as in training; the model itself is left as it is.
    """
    single, double = (_with_gradients(model, batch, dtype) for dtype in (torch.float32, torch.float64))
    found = []
    for (name, p), (_, q) in zip(single.named_parameters(), double.named_parameters(), strict=True):
        rms, rms_64 = (0.0 if x.grad is None else x.grad.double().square().mean().sqrt().item() for x in (p, q))
        state: State = "flows"
        if p.grad is None:
            state = "unused" if p.requires_grad else "frozen"
        elif rms == 0:
            state = "zero"
        elif rms_64 < ROUNDING * rms:
            state = "cancels"
        weight = p.detach().double().square().mean().sqrt().item()
        found.append(Gradient(name, tuple(p.shape), state, rms, rms_64, weight))
    return tuple(found)


def _with_gradients(model: nn.Module, batch: Batch, dtype: torch.dtype) -> nn.Module:
    trial = copy.deepcopy(model).to(dtype).eval()
    for module in trial.modules():
        if "running_mean" in dict(module.named_buffers(recurse=False)):
            module.train()
    trial.zero_grad(set_to_none=True)
    # `loss_sum` would round the logits to float32.
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.inputs.items()}
    loss = F.cross_entropy(trial(**inputs).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    return trial
