"""The largest curvature of the loss, and the learning rate that it allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from windtunnel.nn.mode import evaluating
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import Batch
from windtunnel.training.optimizer import OptimizerConfig

LEAST = 8
"""Iterations before it may end: from a random vector the estimate can rest on a plateau before it rises."""


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of the (preconditioned) Hessian of a batch's mean loss: its sharpness.

    change: by which share the last of the iterations changed it.
    limit: above eigenvalue x lr = limit a step on that batch's quadratic grows instead of shrinking.
    """

    eigenvalue: float
    change: float
    iterations: int
    limit: float
    preconditioned: bool

    @property
    def largest_lr(self) -> float:
        """The learning rate at the limit; infinite where nothing curves upwards."""
        return self.limit / self.eigenvalue if self.eigenvalue > 0 else math.inf


def largest_curvature(
    loss: Tensor,
    parameters: Sequence[Tensor],
    iterations: int = 20,
    scales: Sequence[Tensor] | None = None,
    enough: float = 1e-2,
) -> tuple[float, float]:
    """The largest eigenvalue of the Hessian of a loss by power iteration on Hessian-vector products.

    Power iteration finds the eigenvalue that is largest in size; where that one is negative the Hessian is shifted by
    it and the iteration repeated (so the result is the largest, not the largest in size).

    Args:
        loss: a scalar with a graph that can be differentiated twice.
        iterations: at most; it ends when one changes the eigenvalue by a smaller share than `enough`.
        scales: P, positive, one tensor a parameter; then the matrix is P^(-1/2) H P^(-1/2).

    Returns:
        (eigenvalue, relative change of it in the last iteration).
    """
    parameters = [p for p in parameters if p.requires_grad]
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, first, strict=True) if g is not None and g.requires_grad]
    if not used:
        return 0.0, 0.0
    roots = [torch.ones_like(p) for p, _ in used]
    if scales is not None:
        by_id = {id(p): scale.rsqrt() for p, scale in zip(parameters, scales, strict=True)}
        roots = [by_id[id(p)] for p, _ in used]

    def product(vector: list[Tensor]) -> list[Tensor]:
        scaled = [root * v for root, v in zip(roots, vector, strict=True)]
        second = torch.autograd.grad(
            [g for _, g in used], [p for p, _ in used], scaled, retain_graph=True, allow_unused=True
        )
        return [torch.zeros_like(root) if h is None else root * h for root, h in zip(roots, second, strict=True)]

    value, change = _power(product, roots, iterations, 0.0, enough)
    if value < 0:
        shifted, change = _power(product, roots, iterations, value, enough)
        value += shifted
    return value, change


def _power(
    product: Callable[[list[Tensor]], list[Tensor]], like: list[Tensor], iterations: int, shift: float, enough: float
) -> tuple[float, float]:
    """The eigenvalue of H - shift that is largest in size, and how much the last iteration changed it."""
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device) for x in like]
    value, change = 0.0, math.inf
    for iteration in range(iterations):
        length = math.sqrt(sum(float((v.double() ** 2).sum()) for v in vector))
        if length == 0:
            return 0.0, 0.0
        vector = [v / length for v in vector]
        after = [h - shift * v for h, v in zip(product(vector), vector, strict=True)]
        before, value = value, sum(float((h.double() * v.double()).sum()) for h, v in zip(after, vector, strict=True))
        vector, change = after, abs(value - before) / max(abs(value), 1e-30)
        if change < enough and iteration >= LEAST:
            break
    return value, change


def sharpness(
    model: nn.Module, batch: Batch, config: OptimizerConfig, state: Mapping[str, Tensor], iterations: int = 20
) -> Curvature:
    """The curvature that the optimizer meets on a batch, without dropout, against the limit of its stability.

    SGD with momentum b: 2 (1 + b) / lr (Cohen et al. 2021, arXiv 2103.00065, appendix B; 2 / lr without). AdamW:
    2 (1 + b1) / (1 - b1) / lr for the Hessian preconditioned by sqrt(v) + epsilon, the second moments being those in
    the optimizer's state (Cohen et al. 2022, arXiv 2207.14484, equation 3). Muon: that of its AdamW, among the
    parameters that AdamW moves; for orthogonal steps no such limit is known.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.name == "muon":
        named = [(name, p) for name, p in named if f"momentum_buffer/{name}" not in state]
    adam = config.name != "sgd"
    scales = [_preconditioner(name, p, config, state) for name, p in named] if adam else None
    with evaluating(model), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        loss = loss_sum(model(**batch.inputs), batch.targets) / batch.n_targets
        value, change = largest_curvature(loss, [p for _, p in named], iterations, scales)
    b = config.beta_1 if adam else config.momentum
    return Curvature(value, change, iterations, 2 * (1 + b) / ((1 - b) if adam else 1), adam)


def _preconditioner(name: str, p: Tensor, config: OptimizerConfig, state: Mapping[str, Tensor]) -> Tensor:
    moment, step = state.get(f"exp_avg_sq/{name}"), state.get(f"step/{name}")
    if moment is None or step is None:  # never stepped: a parameter without a gradient
        return torch.ones_like(p)
    return (moment / (1 - config.beta_2 ** float(step))).sqrt() + config.epsilon
