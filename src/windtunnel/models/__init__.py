"""Model families: one file each, and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch

from windtunnel.config import any_of
from windtunnel.errors import ConfigError
from windtunnel.models.classifier import Classifier, ClassifierConfig
from windtunnel.models.clip import CLIP, CLIPConfig
from windtunnel.models.encoder import Encoder, EncoderConfig
from windtunnel.models.family import Model, ModelConfig, ParameterRow
from windtunnel.models.mlp import MLP, MLPConfig
from windtunnel.models.rnn import RNN, RNNConfig
from windtunnel.models.transformer import Transformer, TransformerConfig
from windtunnel.models.translator import Translator, TranslatorConfig

FAMILIES: dict[str, type[ModelConfig]] = {
    "transformer": TransformerConfig,
    "mlp": MLPConfig,
    "translator": TranslatorConfig,
    "rnn": RNNConfig,
    "classifier": ClassifierConfig,
    "encoder": EncoderConfig,
    "clip": CLIPConfig,
}


if TYPE_CHECKING:
    AnyModelConfig = ModelConfig
else:
    AnyModelConfig = any_of(FAMILIES)
"""The type of a setting that is the config of any family, told apart by `family`."""


@overload
def build(config: TransformerConfig, seed: int) -> Transformer: ...
@overload
def build(config: MLPConfig, seed: int, generator: torch.Generator | None = None) -> MLP: ...
@overload
def build(config: RNNConfig, seed: int) -> RNN: ...
@overload
def build(config: ModelConfig, seed: int, generator: torch.Generator | None = None) -> Model: ...
def build(config: ModelConfig, seed: int, generator: torch.Generator | None = None) -> Model:
    """A freshly initialised model, by `ModelConfig.build`."""
    return config.build(seed, generator)


def as_transformer(model: Model, purpose: str) -> Transformer:
    """The model itself. Raises ConfigError for one of another family; `purpose` is what wants a transformer."""
    if not isinstance(model, Transformer):
        raise ConfigError(f"{purpose} needs a transformer, and this model is of the family {model.config.family}")
    return model


def as_mlp(model: Model, purpose: str) -> MLP:
    """The model itself. Raises ConfigError for one of another family; `purpose` is what wants an mlp."""
    if not isinstance(model, MLP):
        raise ConfigError(f"{purpose} needs an mlp, and this model is of the family {model.config.family}")
    return model


__all__ = [
    "CLIP",
    "FAMILIES",
    "MLP",
    "RNN",
    "AnyModelConfig",
    "CLIPConfig",
    "Classifier",
    "ClassifierConfig",
    "Encoder",
    "EncoderConfig",
    "MLPConfig",
    "Model",
    "ModelConfig",
    "ParameterRow",
    "RNNConfig",
    "Transformer",
    "TransformerConfig",
    "Translator",
    "TranslatorConfig",
    "as_mlp",
    "as_transformer",
    "build",
]
