"""Muon: the matrices between the layers take orthogonal steps, all other parameters those of AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from windtunnel.nn.blocks import layers_of
from windtunnel.nn.linear import Linear
from windtunnel.training import machine

A, B, C = 3.4445, -4.7750, 2.0315
"""Of the quintic a x + b x^3 + c x^5 which, five times over, takes any singular value in (0.01, 1] close to 1."""
ITERATIONS = 5
LARGEST = 1.2
"""No singular value of what comes out is larger than this, but for rounding."""


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    The numbers are those of `torch.optim.Muon`, which goes through the matrices one by one: for small ones that is
    mostly overhead. Here matrices of one shape are one batch.

    Args:
        matrices: parameters of two dimensions, and the numbers of rows of the matrices that each is packed of.
        others: groups as AdamW takes them.
        matrix_lr: for the matrices at their peak, when that of the others is `lr`. A scheduled rate scales both.
    """

    def __init__(
        self,
        matrices: Sequence[tuple[Tensor, Sequence[int]]],
        others: Sequence[dict[str, Any]],
        lr: float,
        matrix_lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        **adamw: Any,
    ) -> None:
        own = {"params": [p for p, _ in matrices], "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([own], {"lr": lr, "ratio": matrix_lr / lr})
        self.matrices, self.sizes = self.param_groups[0], {p: list(sizes) for p, sizes in matrices}
        self.adamw = torch.optim.AdamW(others, lr=lr, fused=True, **adamw)
        self.adamw.state = self.state
        self.param_groups += self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of everything that has a gradient."""
        self.adamw.step()
        lr, momentum = self.matrices["lr"] * self.matrices["ratio"], self.matrices["momentum"]
        moved = {p: p.grad for p in self.sizes if p.grad is not None}
        averages = [self._average(p) for p in moved]
        torch._foreach_lerp_(averages, list(moved.values()), 1 - momentum)
        ahead = torch._foreach_lerp(list(moved.values()), averages, momentum)  # Nesterov's
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p, update in zip(moved, ahead, strict=True):
            p.mul_(1 - lr * self.matrices["weight_decay"])
            for part, own in zip(torch.split(p, self.sizes[p]), torch.split(update, self.sizes[p]), strict=True):
                alike.setdefault(part.shape, []).append((part, own))
        for shape, pairs in alike.items():
            steps = orthogonal(torch.stack([update for _, update in pairs])).to(pairs[0][0].dtype)
            for (part, _), step in zip(pairs, steps, strict=True):
                part.add_(step, alpha=-lr * gain(shape))

    def _average(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        average: Tensor = state["momentum_buffer"]
        return average

    def longest_update(self, lr: float) -> float:
        """The norm that no update at this rate exceeds; AdamW moves a weight by at most about the rate."""
        shapes = [part.shape for p, sizes in self.sizes.items() for part in torch.split(p, sizes)]
        squares = [(LARGEST * self.matrices["ratio"] * gain(shape)) ** 2 * min(shape) for shape in shapes]
        others = sum(p.numel() for group in self.adamw.param_groups for p in group["params"])
        return lr * math.sqrt(sum(squares) + others)


def gain(shape: torch.Size) -> float:
    """By what the orthogonal step is multiplied: sqrt(rows / columns) of a tall matrix, else 1 (Jordan et al.)."""
    return math.sqrt(max(1.0, shape[0] / shape[1]))


def orthogonal(matrices_NRC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """U V^T of each matrix U S V^T (N, R, C), but with singular values anywhere in about 0.7 to 1.2.

    By a Newton-Schulz iteration, in bfloat16 where the machine multiplies it fast.
    """
    dtype = dtype or (torch.bfloat16 if machine.has_fast_bf16() else torch.float32)
    x, tall = matrices_NRC.to(dtype), matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(square, square, square, beta=B, alpha=C)
        x = torch.baddbmm(x, x, polynomial, beta=A) if tall else torch.baddbmm(x, polynomial, x, beta=A)
    return x


def hidden_matrices(model: nn.Module) -> dict[Tensor, list[int]]:
    """The weights of linear and recurrent layers in the model's blocks or layers, neither its embedding nor its head.

    Of each the rows of the matrices in it: queries, keys and values are three, packed. Made orthogonal as one, the
    larger gradient of the values would leave the queries hardly a step.
    """
    inside = [module for layer in layers_of(model) for module in layer.modules()]
    return {matrix: parts for module in inside for matrix, parts in _matrices(module)}


def _matrices(module: nn.Module) -> list[tuple[Tensor, list[int]]]:
    """The matrices of a module's own, with the rows of those that each is packed of."""
    if isinstance(module, nn.Linear):
        return [(module.weight, module.parts if isinstance(module, Linear) else [module.out_features])]
    if isinstance(module, nn.RNNBase):  # of a gru three gates, of an lstm four
        d = module.hidden_size
        return [(matrix, [d] * (len(matrix) // d)) for matrix in module.parameters() if matrix.dim() == 2]
    return []
