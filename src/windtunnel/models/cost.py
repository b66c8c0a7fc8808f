"""What follows from a family's own formulas."""

from __future__ import annotations

from windtunnel.models.family import ModelConfig


def training_flops(config: ModelConfig, length: int, source: int | None = None) -> int:
    """Forward and backward matrix-multiply FLOPs of an example: the backward pass costs twice the forward.

    A part before the first parameter that is trained has no backward pass.
    """
    parts = config.flops_by_part(length, source)
    return sum(flops * (1 if part in config.untrained_parts else 3) for part, flops in parts.items())


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """`training_flops` of each of `length` tokens in a row."""
    return training_flops(config, length) / length
