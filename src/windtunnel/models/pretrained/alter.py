"""A trained model made into another one: (config, weights) -> (config, weights), to be trained a little further."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models.transformer import TransformerConfig

Model = tuple[TransformerConfig, dict[str, Tensor]]


def to_grouped_queries(config: TransformerConfig, weights: Mapping[str, Tensor], n_kv_heads: int) -> Model:
    """Fewer key and value heads, each the mean of those it replaces (Ainslie et al. 2023, arXiv 2305.13245, fig. 3).

    Query heads that shared a key head after the change are neighbours, as attention reads them.

    Raises:
        ConfigError: when the present heads cannot be divided into that number of groups; possible numbers are listed.
    """
    before = config.kv_heads
    if n_kv_heads < 1 or before % n_kv_heads:
        possible = ", ".join(str(n) for n in range(1, before + 1) if before % n == 0)
        raise ConfigError(
            f"{before} key and value heads cannot become n_kv_heads={n_kv_heads}; possible are {possible}"
        )
    width = config.head_width
    sizes = [config.n_heads * width, before * width, before * width]

    def pooled(packed: Tensor) -> Tensor:
        q, k, v = torch.split(packed, sizes)
        k, v = (x.reshape(n_kv_heads, -1, width, *x.shape[1:]).mean(1).flatten(0, 1) for x in (k, v))
        return torch.cat((q, k, v))

    changed = {name: pooled(tensor) if ".attention.qkv." in name else tensor for name, tensor in weights.items()}
    return config.replace(n_kv_heads=n_kv_heads), changed


def to_rotary(config: TransformerConfig, weights: Mapping[str, Tensor], rope_base: float = 10000.0) -> Model:
    """Rotary positions in place of whatever the model had; learned ones are dropped.

    Raises:
        ConfigError: when its positions are rotary already, or its heads have an odd width.
    """
    if config.position == "rope":
        raise ConfigError("the model's positions are rotary already (model.position=rope)")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("position.")}
    return config.replace(position="rope", rope_base=rope_base), kept


def to_window(
    config: TransformerConfig, weights: Mapping[str, Tensor], window: int | tuple[int | None, ...] | None
) -> Model:
    """Attention to the last `window` tokens only, itself included; one number or one a layer. No weight changes.

    Raises:
        ConfigError: for a window below one, or not one a layer.
    """
    return config.replace(window=window), dict(weights)
