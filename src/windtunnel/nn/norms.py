"""Normalisation of the residual stream: layer norm, RMS norm, or none."""

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


NORMS: dict[str, type[LayerNorm] | type[RMSNorm] | type[NoNorm]] = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "none": NoNorm,
}
