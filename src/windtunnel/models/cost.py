"""What follows from a family's own formulas."""

from __future__ import annotations

from windtunnel.models.family import ModelConfig


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward and backward matrix-multiply FLOPs a token: the backward pass costs twice the forward."""
    return 3 * sum(config.flops_by_part(length).values()) / length
