"""Model families: one file each, and one line here."""

from __future__ import annotations

from windtunnel.models.transformer import Transformer, TransformerConfig, build

ModelConfig = TransformerConfig
"""The config of any family; with a second family this becomes their union, told apart by `family`."""

__all__ = ["ModelConfig", "Transformer", "TransformerConfig", "build"]
