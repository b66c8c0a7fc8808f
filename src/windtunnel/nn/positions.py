"""How a transformer knows where a token stands: five ways behind one contract.

A `Position` may act in three places, and each kind acts in exactly one: `embed` adds to the token embedding,
`rotation` turns queries and keys, `slopes` lowers the scores of distant keys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from windtunnel.errors import DataError

Rotation = tuple[Tensor, Tensor]


def sinusoidal(positions_T: Tensor, d_model: int) -> Tensor:
    """Sines in the even and cosines in the odd columns, (T, D) (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(torch.arange(0, d_model, 2, device=positions_T.device) * (-math.log(10000.0) / d_model))
    angles = positions_T[:, None].float() * rates
    table_TD = torch.zeros(len(positions_T), d_model, device=positions_T.device)
    table_TD[:, 0::2] = angles.sin()
    table_TD[:, 1::2] = angles.cos()[:, : d_model // 2]
    return table_TD


def rotation(positions_T: Tensor, d_head: int, base: float = 10000.0) -> Rotation:
    """Cosines and sines of the rotary angles, each (T, K/2) (Su et al. 2021, arXiv 2104.09864, equation 15)."""
    rates = base ** (-torch.arange(0, d_head, 2, device=positions_T.device).float() / d_head)
    angles = positions_T[:, None].float() * rates
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, turn: Rotation) -> Tensor:
    """Turn each pair (x_i, x_{i + K/2}) by its position's angle; then q(m)·k(n) depends on m - n only.

    RoFormer pairs neighbours (x_2i, x_2i+1); halves are paired here, as in Llama: the same up to a permutation
    of the columns of the query and key matrices.
    """
    cos, sin = (part.to(x_BHTK.dtype) for part in turn)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


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

    def __init__(self, context_length: int, d_model: int, n_heads: int, d_head: int, rope_base: float) -> None:
        super().__init__()
        self.context_length, self.d_model, self.n_heads = context_length, d_model, n_heads
        self.d_head, self.rope_base = d_head, rope_base

    def embed(self, positions_T: Tensor) -> Tensor | None:
        """What is added to the token embeddings, (T, D), or None."""
        return None

    def rotation(self, positions_T: Tensor) -> Rotation | None:
        """By what queries and keys at these positions are rotated, or None."""
        return None

    def slopes(self) -> Tensor | None:
        """ALiBi's slope of each head, (H,), or None."""
        return None


class Learned(Position):
    """One trained vector a position, as in GPT-2; there are none beyond the context length."""

    def __init__(self, context_length: int, d_model: int, n_heads: int, d_head: int, rope_base: float) -> None:
        super().__init__(context_length, d_model, n_heads, d_head, rope_base)
        self.embedding = nn.Embedding(context_length, d_model)

    def embed(self, positions_T: Tensor) -> Tensor:
        if len(positions_T) > self.context_length:
            raise DataError(
                f"{len(positions_T)} tokens are longer than the model's context of {self.context_length}; learned "
                "positions end there: give a shorter text, or train with --set model.position=rope"
            )
        embedded: Tensor = self.embedding(positions_T)
        return embedded


class Sinusoidal(Position):
    """Fixed sines and cosines added to the embeddings."""

    def embed(self, positions_T: Tensor) -> Tensor:
        return sinusoidal(positions_T, self.d_model)


class Rope(Position):
    """Rotary positions: queries and keys are turned by an angle proportional to their position."""

    def rotation(self, positions_T: Tensor) -> Rotation:
        return rotation(positions_T, self.d_head, self.rope_base)


class Alibi(Position):
    """Attention with linear biases: scores fall with distance, a different slope in each head."""

    def __init__(self, context_length: int, d_model: int, n_heads: int, d_head: int, rope_base: float) -> None:
        super().__init__(context_length, d_model, n_heads, d_head, rope_base)
        self.register_buffer("slopes_H", alibi_slopes(n_heads), persistent=False)

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
