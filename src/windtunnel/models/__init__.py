"""Model families: one file each, and one line here."""

from __future__ import annotations

from typing import Annotated, Any, overload

import torch
from pydantic import Discriminator, Tag

from windtunnel.errors import ConfigError
from windtunnel.models import mlp, transformer
from windtunnel.models.mlp import MLP, MLPConfig
from windtunnel.models.transformer import Transformer, TransformerConfig

Model = Transformer | MLP


def _family(data: Any) -> str:
    return str(data.get("family", "transformer") if isinstance(data, dict) else getattr(data, "family", "transformer"))


ModelConfig = Annotated[
    Annotated[TransformerConfig, Tag("transformer")] | Annotated[MLPConfig, Tag("mlp")], Discriminator(_family)
]
"""The config of any family, told apart by `family`."""


def create(config: TransformerConfig | MLPConfig) -> Model:
    """A model whose weights are still to be filled."""
    return MLP(config) if isinstance(config, MLPConfig) else Transformer(config)


@overload
def build(config: TransformerConfig, seed: int) -> Transformer: ...
@overload
def build(config: ModelConfig, seed: int, generator: torch.Generator | None = None) -> Model: ...
def build(config: TransformerConfig | MLPConfig, seed: int, generator: torch.Generator | None = None) -> Model:
    """A freshly initialised model; the weights are a function of (seed, their names, their shapes).

    Args:
        generator: draws all weights of an mlp one after another, as a published script does; see `mlp.build`.
    """
    if isinstance(config, MLPConfig):
        return mlp.build(config, seed, generator)
    return transformer.build(config, seed)


def as_transformer(model: Model, purpose: str) -> Transformer:
    """The model itself. Raises ConfigError for one of another family; `purpose` is what wants a transformer."""
    if not isinstance(model, Transformer):
        raise ConfigError(f"{purpose} needs a transformer, and this model is an {model.config.family}")
    return model


__all__ = [
    "MLP",
    "MLPConfig",
    "Model",
    "ModelConfig",
    "Transformer",
    "TransformerConfig",
    "as_transformer",
    "build",
    "create",
]
