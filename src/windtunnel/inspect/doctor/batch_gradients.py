"""How the gradient of a batch varies with the batch, and with the parts it is computed in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from windtunnel.inspect.doctor.noise import gradient_vectors
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import Examples, batch
from windtunnel.training.step import gradients


def gradient_variance(model: nn.Module, source: Examples, sizes: Sequence[int], epochs: Sequence[int]) -> np.ndarray:
    """The variance of a batch's gradient, summed over the parameters: (epochs, sizes).

    The batches of an epoch divide the examples among them, and the sample variance of such batches is that of one
    example over B without bias: what finite data takes from each variance their negative correlation gives back
    (Cochran 1977, section 2.6).
    """
    found = np.empty((len(epochs), len(sizes)))
    for i, epoch in enumerate(epochs):
        for j, size in enumerate(sizes):
            n, total, squares = len(source) // size, torch.zeros(()), 0.0
            batches = [batch(source, size, epoch, step) for step in range(n)]
            for gradient in gradient_vectors(model, batches):
                total = total + gradient.double()
                squares += float(gradient.double().square().sum())
            found[i, j] = (squares - float(total.square().sum()) / n) / (n - 1)
    return found


def gradient_of(model: nn.Module, source: Examples, size: int, parts: int, seed: int) -> torch.Tensor:
    """The gradient of one batch as training accumulates it over micro-batches."""
    model.zero_grad(set_to_none=True)
    gradients(lambda rows: loss_sum(model(**rows.inputs), rows.targets), batch(source, size, seed, 0), parts, seed, 0)
    found = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The length of the difference over that of the first."""
    return float((a - b).norm() / a.norm())
