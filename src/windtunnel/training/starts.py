"""The weights of another run that a model begins with: which of them are taken, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.models import Model, ModelConfig
from windtunnel.models.pretrained.parts import listing
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.checkpoint import Checkpoint, load_weights
from windtunnel.training.run_config import Start

if TYPE_CHECKING:
    from windtunnel.training.run import Run


def begin(model: Model, start: Start, weights: Mapping[str, Tensor]) -> None:
    """Load what a start takes of a run's weights; a head that it leaves out stays as it is."""
    own = {name: tensor for name, tensor in model.state_dict().items() if start.part == "trunk" and _is_head(name)}
    load_weights(model, own | _taken(start, weights))


def settle(start: Start, run: Run, checkpoint: Checkpoint, model: ModelConfig, tokenizer: Tokenizer) -> Start:
    """The start with its whole path and its weights' SHA-256.

    Args:
        run, checkpoint: what it begins with, as `open_start` gives them.

    Raises:
        ConfigError: when the weights do not fit the model or mean other tokens.
    """
    if run.altered:
        raise ConfigError(f"the model of {start.run} was altered in Python: no settings describe it; take another")
    _check_fit(start, checkpoint.weights, model)
    if run.tokenizer.to_json() != tokenizer.to_json():
        raise ConfigError(
            f"the weights of {start.run} were trained with another tokenizer; use that one, as --from does: "
            f"--set text.tokenizer={run.folder / 'tokenizer.json'}"
        )
    return start.replace(run=str(run.folder.resolve()), weights_sha256=checkpoint.sha256)


def _check_fit(start: Start, weights: Mapping[str, Tensor], model: ModelConfig) -> None:
    """Raises ConfigError unless what a start takes of a run's weights is what a model of these settings has."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in model.create().state_dict().items()}
    if start.part == "trunk":
        expected = {name: shape for name, shape in expected.items() if not _is_head(name)}
    given = {name: tensor.shape for name, tensor in _taken(start, weights).items()}
    wrong = [name for name in sorted({**expected, **given}) if expected.get(name) != given.get(name)]
    if wrong:
        raise ConfigError(
            f"the weights of {start.run} do not fit the model's settings, which have other tensors: {listing(wrong)}; "
            "leave out the settings of the model that differ from that run's"
        )


def _taken(start: Start, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are taken of a run's, by their names in the model that begins with them."""
    if start.part == "all":
        return dict(weights)
    names = {name: name if name.startswith("trunk.") else f"trunk.{name}" for name in weights if not _is_head(name)}
    return {new: weights[old] for old, new in names.items()}


def _is_head(name: str) -> bool:
    """Whether a parameter belongs to a model's head."""
    return name.startswith("head.")
