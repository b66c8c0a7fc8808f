"""How a transformer knows where a token stands: five ways behind one contract.

A `Position` may act in three places, and each kind acts in exactly one: `embed` adds to the token embedding,
`rotation` turns queries and keys, `slopes` lowers the scores of distant keys.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import Config
from windtunnel.errors import DataError

Rotation = tuple[Tensor, Tensor]
Positive = Annotated[float, Field(gt=0)]


class RopeScaling(Config):
    """Slower rotary angles, so that a model reads further than it was trained.

    `linear` divides every rate by the factor (Chen et al. 2023, arXiv 2306.15595). `llama3` divides only the slow
    ones (Llama 3.1): those that turn less than low_freq_factor times within the original context fully, those that
    turn more than high_freq_factor times not at all, and those between in proportion.
    """

    kind: Literal["linear", "llama3"]
    factor: Positive
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    original_context_length: PositiveInt = 8192

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor {self.high_freq_factor} must be greater than low_freq_factor {self.low_freq_factor}"
            )
        return self

    def divisors(self, rates: Tensor) -> Tensor:
        """By what each rate, in radians a token, is divided."""
        if self.kind == "linear":
            return torch.full_like(rates, self.factor)
        turns = self.original_context_length * rates / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return 1 / ((1 - kept) / self.factor + kept)


def sinusoidal(positions: Tensor, d_model: int) -> Tensor:
    """Sines in the even and cosines in the odd columns, (..., D) (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, d_model, 2, device=positions.device) * (-math.log(10000.0) / d_model))
    angles = positions[..., None].float() * rates
    table = torch.zeros(*positions.shape, d_model, device=positions.device)
    table[..., 0::2] = angles.sin()
    table[..., 1::2] = angles.cos()[..., : d_model // 2]
    return table


def rotation(positions_T: Tensor, d_head: int, base: float = 10000.0, scaling: RopeScaling | None = None) -> Rotation:
    """Cosines and sines of the rotary angles, each (T, K/2) (Su et al. 2021, arXiv 2104.09864, equation 15)."""
    rates = base ** (-torch.arange(0, d_head, 2, device=positions_T.device).float() / d_head)
    if scaling is not None:
        rates = rates / scaling.divisors(rates)
    angles = positions_T[:, None].float() * rates
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, rotary: Rotation) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) by its position's angle; then q(m)·k(n) depends on m - n only.

    RoFormer pairs neighbours (x_2i, x_2i+1); halves are paired here, as in Llama: the same up to a permutation
    of the columns of the query and key matrices. Columns beyond those that there are angles for stay as they are.
    """
    cos, sin = (part.to(x_BHTK.dtype) for part in rotary)
    width = 2 * cos.shape[-1]
    first, second = x_BHTK[..., :width].chunk(2, dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned if width == x_BHTK.shape[-1] else (*turned, x_BHTK[..., width:]), dim=-1)


def alibi_slopes(n_heads: int) -> Tensor:
    """The slope of each head, (H,): a geometric sequence from 2^(-8/H) (Press et al. 2022, section 3).

    For a number of heads that is no power of two, the paper's own rule: the slopes of the power below, then
    every other slope of twice that power.
    """
    power = 2 ** math.floor(math.log2(n_heads))

    def geometric(n: int) -> list[float]:
        return [2 ** (-8 * (i + 1) / n) for i in range(n)]

    return torch.tensor((geometric(power) + geometric(2 * power)[0::2])[:n_heads])


class Position(nn.Module):
    """No information about position beyond what the causal mask gives; the other kinds each change one method."""

    def __init__(
        self,
        context_length: int,
        d_model: int,
        n_heads: int,
        d_head: int,
        rope_base: float,
        rope_scaling: RopeScaling | None = None,
    ) -> None:
        super().__init__()
        self.context_length, self.d_model, self.n_heads = context_length, d_model, n_heads
        self.d_head, self.rope_base, self.rope_scaling = d_head, rope_base, rope_scaling
        self.build()

    def build(self) -> None:
        """Make the parameters and buffers, if there are any."""

    def embed(self, positions: Tensor) -> Tensor | None:
        """What is added to the embeddings of tokens at positions (T,) or (B, T): (..., D), or None."""
        return None

    def rotation(self, positions_T: Tensor) -> Rotation | None:
        """By what queries and keys at these positions are rotated, or None."""
        return None

    def slopes(self) -> Tensor | None:
        """ALiBi's slope of each head, (H,), or None."""
        return None


class Learned(Position):
    """One trained vector a position, as in GPT-2; there are none beyond the context length."""

    def build(self) -> None:
        self.embedding = nn.Embedding(self.context_length, self.d_model)

    def embed(self, positions: Tensor) -> Tensor:
        if positions.shape[-1] > self.context_length:
            raise DataError(
                f"{positions.shape[-1]} tokens are longer than the model's context of {self.context_length}; learned "
                "positions end there: give a shorter text, or train with --set model.position=rope"
            )
        embedded: Tensor = self.embedding(positions)
        return embedded


class Sinusoidal(Position):
    """Fixed sines and cosines added to the embeddings."""

    def embed(self, positions: Tensor) -> Tensor:
        return sinusoidal(positions, self.d_model)


class Rope(Position):
    """Rotary positions: queries and keys are turned by an angle proportional to their position."""

    def rotation(self, positions_T: Tensor) -> Rotation:
        return rotation(positions_T, self.d_head, self.rope_base, self.rope_scaling)


class Alibi(Position):
    """Attention with linear biases: scores fall with distance, a different slope in each head."""

    def build(self) -> None:
        self.register_buffer("slopes_H", alibi_slopes(self.n_heads), persistent=False)

    def slopes(self) -> Tensor:
        slopes_H = self.slopes_H
        assert isinstance(slopes_H, Tensor)
        return slopes_H


POSITIONS: dict[str, type[Position]] = {
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "rope": Rope,
    "alibi": Alibi,
    "none": Position,
}
