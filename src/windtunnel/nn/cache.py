"""The keys and values of the tokens already read, so that decoding computes each token once.

The caller owns the cache: a model is given one, appends to it and keeps nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from windtunnel.nn.attention import Mask, visible


class AnyCache(Protocol):
    """What a model keeps of the tokens that it has read, whatever its family: keys and values, or a state."""

    capacity: int
    length: int

    def advance(self, n_tokens: int) -> None:
        """Note that n_tokens more have been read."""

    def select(self, rows_B: Tensor) -> Self:
        """A new cache in which row i holds what row rows_B[i] holds here."""
        ...


class Cache:
    """Room for `capacity` tokens in every layer; `length` of them are filled.

    Keys and values are each (n_layers, B, G, capacity, K).
    """

    def __init__(
        self, n_layers: int, batch_size: int, n_kv_heads: int, capacity: int, d_head: int, like: Tensor
    ) -> None:
        shape = (n_layers, batch_size, n_kv_heads, capacity, d_head)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.capacity = capacity
        self.length = 0
        self.of_memory: dict[int, tuple[Tensor, Tensor]] = {}
        """By layer the keys and values (B, G, S, K) of what cross-attention reads; they are computed once."""

    def positions(self, n_tokens: int) -> Tensor:
        """Where the next n_tokens stand, (T,)."""
        return torch.arange(self.length, self.length + n_tokens, device=self.keys.device)

    def advance(self, n_tokens: int) -> None:
        """Note that n_tokens more have been written in every layer."""
        self.length += n_tokens

    def append(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens of one layer after the `length` old ones; return all keys and values so far."""
        end = self.length + k_BGTK.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BGTK
        self.values[layer, :, :, self.length : end] = v_BGTK
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def select(self, rows_B: Tensor) -> Cache:
        """A new cache in which row i holds what row rows_B[i] holds here."""
        chosen = copy.copy(self)
        chosen.keys, chosen.values = self.keys.index_select(1, rows_B), self.values.index_select(1, rows_B)
        chosen.of_memory = {layer: (k[rows_B], v[rows_B]) for layer, (k, v) in self.of_memory.items()}
        return chosen


class StaticCache:
    """The memory of a `Cache` for one new token at a time, written in place, so that a compiled step can own it.

    Only the number of filled places changes between steps; `append` gives those, and `attend` reads them.

    Args:
        keys, values: one tensor a layer, (B, G, capacity, K).
        places_S: 0, 1, ... up to where the new token stands.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], places_S: Tensor) -> None:
        self.keys, self.values, self.places_S = keys, values, places_S

    def positions(self, n_tokens: int) -> Tensor:
        """Where the new token stands, (1,)."""
        if n_tokens != 1:
            raise ValueError(f"a static cache takes one token at a time, given {n_tokens}")
        return self.places_S[-1:]

    def advance(self, n_tokens: int) -> None:
        """Nothing: the caller gives the places."""

    def append(self, layer: int, k_BG1K: Tensor, v_BG1K: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new token of one layer; return all keys and values so far."""
        filled = self.places_S.shape[0]
        self.keys[layer].index_copy_(2, self.places_S[-1:], k_BG1K)
        self.values[layer].index_copy_(2, self.places_S[-1:], v_BG1K)
        return self.keys[layer][:, :, :filled], self.values[layer][:, :, :filled]

    def attend(self, q_BH1K: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
        """`windtunnel.nn.attention.attend` for the one query at the last place, as products and sums in the open.

        A compiler makes loops of them; a matrix product of one row would be a call to a library.
        """
        if dropout or not mask.causal or mask.kept_BS is not None:
            raise ValueError(f"decoding is causal, without dropout and padding, given {mask} and dropout={dropout}")
        B, H, _, K = q_BH1K.shape
        G, S = k_BGSK.shape[1:3]
        q_BGN1K = q_BH1K.reshape(B, G, H // G, 1, K) * K**-0.5
        scores_BHS = (q_BGN1K * k_BGSK[:, :, None]).sum(-1).reshape(B, H, S)
        distances_S = self.places_S[-1:] - self.places_S
        if mask.slopes_H is not None:
            scores_BHS = scores_BHS - mask.slopes_H[:, None] * distances_S
        if mask.window is not None:
            scores_BHS = scores_BHS.masked_fill(~visible(distances_S, mask.window), -torch.inf)
        mixed_BGNK = (scores_BHS.softmax(dim=-1).reshape(B, G, H // G, S, 1) * v_BGSK[:, :, None]).sum(-2)
        return mixed_BGNK.reshape(B, H, 1, K)
