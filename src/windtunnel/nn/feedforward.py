"""The feed-forward half of a block: widen, bend, narrow; with or without a gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.nn.linear import Linear


class FeedForward(nn.Module):
    """narrow(activation(widen(x))), position by position (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, d_model: int, d_ff: int, bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.widen = Linear(d_model, d_ff, bias=bias)
        self.narrow = Linear(d_ff, d_model, bias=bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.narrow(self.activation(self.widen(x_BTD)))


class OneLayer(nn.Module):
    """activation(linear(x)) of the same width, position by position."""

    def __init__(self, d_model: int, bias: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = Linear(d_model, d_model, bias=bias)
        self.activation = activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.activation(self.linear(x_BTD))


class GatedFeedForward(nn.Module):
    """narrow(silu(gate(x)) * widen(x)), known as SwiGLU (Shazeer 2020, arXiv 2002.05202, equation 6)."""

    def __init__(self, d_model: int, d_ff: int, bias: bool) -> None:
        super().__init__()
        self.gate = Linear(d_model, d_ff, bias=bias)
        self.widen = Linear(d_model, d_ff, bias=bias)
        self.narrow = Linear(d_ff, d_model, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.narrow(F.silu(self.gate(x_BTD)) * self.widen(x_BTD))


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in the approximation of GPT-2 (Hendrycks & Gimpel 2016, arXiv 1606.08415): x (1 + tanh u) / 2.

    Compiled for a CPU it is written x sigmoid(2 u), the same function: an exponential costs a third of a tanh there.
    """
    if torch.compiler.is_compiling() and x.device.type == "cpu":
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return F.gelu(x, approximate="tanh")


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)^2 (So et al. 2021, arXiv 2109.08668, section 3)."""
    return torch.relu(x).square()


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation of GELU that CLIP was trained with (Hendrycks & Gimpel 2016)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": gelu_tanh,
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu_squared": relu_squared,
}
FEED_FORWARDS: dict[str, Callable[[int, int, bool], FeedForward | GatedFeedForward]] = {
    **{name: partial(FeedForward, activation=activation) for name, activation in ACTIVATIONS.items()},
    "swiglu": GatedFeedForward,
}
