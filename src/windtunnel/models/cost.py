"""What follows from a family's own formulas."""

from __future__ import annotations

from windtunnel.models.family import ModelConfig


def parameter_formulas(config: ModelConfig) -> list[tuple[str, str, int]]:
    """`ModelConfig.parameter_rows` as tuples (module, formula, number)."""
    return [(row.module, row.formula, row.n_parameters) for row in config.parameter_rows()]


def cache_elements_per_token(config: ModelConfig) -> int:
    """Numbers that the KV cache keeps for each token."""
    return config.cache_elements_per_token()


def training_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward and backward matrix-multiply FLOPs a token: the backward pass costs twice the forward."""
    return 3 * sum(config.flops_by_part(length).values()) / length
