"""The keys and values of the tokens already read, so that decoding computes each token once.

The caller owns the cache: a model is given one, appends to it and keeps nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


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

    def append(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens of one layer after the `length` old ones; return all keys and values so far."""
        end = self.length + k_BGTK.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BGTK
        self.values[layer, :, :, self.length : end] = v_BGTK
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
