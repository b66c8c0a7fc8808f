"""Normalisation: of each token's vector by itself (layer norm, RMS norm, none), or of each unit over a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Subtract the mean, divide by the standard deviation, scale and shift (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, d_model: int, epsilon: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, self.bias, self.epsilon)


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale (Zhang & Sennrich 2019, arXiv 1910.07467); it has no bias."""

    def __init__(self, d_model: int, epsilon: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, self.weight.shape, self.weight.to(x_BTD.dtype), self.epsilon)


class NoNorm(nn.Module):
    """The identity."""

    def __init__(self, d_model: int, epsilon: float, bias: bool) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD


class BatchNorm(nn.Module):
    """Each unit minus its mean over the batch, divided by its standard deviation, scaled and shifted.

    Ioffe & Szegedy 2015, arXiv 1502.03167. x (B, T, D) -> (B, T, D). In evaluation mode running statistics take the
    batch's place; the standard deviation itself is averaged, as makemore has it, where torch averages the variance.

    Args:
        momentum: how far the running statistics go towards those of a batch.
        unbiased: divide the squares by n - 1 instead of n.
    """

    running_mean: Tensor
    running_std: Tensor

    def __init__(self, d_model: int, epsilon: float, momentum: float, unbiased: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("running_mean", torch.zeros(d_model))
        self.register_buffer("running_std", torch.ones(d_model))
        self.epsilon, self.momentum, self.correction = epsilon, momentum, int(unbiased)

    def forward(self, x_BTD: Tensor) -> Tensor:
        mean_D, std_D = self.running_mean, self.running_std
        if self.training:
            variance_D, mean_D = torch.var_mean(x_BTD, dim=(0, 1), correction=self.correction)
            std_D = (variance_D + self.epsilon).sqrt()
            with torch.no_grad():
                # Not lerp_, for which torch.func.vmap has no rule.
                self.running_mean.add_(mean_D - self.running_mean, alpha=self.momentum)
                self.running_std.add_(std_D - self.running_std, alpha=self.momentum)
        return self.weight * (x_BTD - mean_D) / std_D + self.bias


class FixedNorm(nn.Module):
    """Each number minus a mean, divided by a standard deviation, both taken once; 0 and 1 before. (N, D) -> (N, D)."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def settle(self, x_ND: Tensor) -> None:
        """Take those of these rows."""
        self.mean.copy_(x_ND.double().mean(0))
        self.std.copy_(x_ND.double().std(0, correction=0) + 1e-6)

    def forward(self, x_ND: Tensor) -> Tensor:
        return (x_ND - self.mean) / self.std


NORMS: dict[str, type[LayerNorm] | type[RMSNorm] | type[NoNorm]] = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "none": NoNorm,
}
