"""What a model makes of pictures and captions: vectors of one space, of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from windtunnel.errors import ConfigError
from windtunnel.models.clip import CLIP
from windtunnel.nn.mode import evaluating
from windtunnel.tasks import Contrastive
from windtunnel.tasks.vectors import captions_of
from windtunnel.text.features import Floats
from windtunnel.text.kept import Vectors
from windtunnel.training.run import TrainedModel


def clip_of(trained: TrainedModel) -> CLIP:
    """The model of a run that finds pictures. Raises ConfigError for another."""
    if not isinstance(trained.model, CLIP):
        raise ConfigError(
            f"{trained.run.folder} is a {trained.model.config.family}, and finds no pictures; train one that does: "
            "windtunnel train emoji --recipe clip"
        )
    return trained.model


def encoded(model: CLIP, read: torch.Tensor) -> Vectors:
    """The vectors (N, D) of pictures as the model reads them."""
    with evaluating(model), torch.no_grad():
        vectors: Vectors = model.encode_pictures(read.to(model.log_scale.device)).cpu().numpy()
    return vectors


def pictures_of(trained: TrainedModel, task: Contrastive, split: str) -> Floats:
    """What a model makes of the pictures of a split, of length 1: (n, D)."""
    examples = task.examples(split)
    return encoded(clip_of(trained), examples.seen(np.arange(len(examples)))).astype(np.float64)


def vectors_of(trained: TrainedModel, texts: Sequence[str]) -> Floats:
    """What a model makes of any captions, of length 1: (M, D). Raises ConfigError for a run that finds no pictures, and
    as `captions_of`."""
    model = clip_of(trained)
    read = captions_of(model.config, trained.tokenizer, texts)
    read = {name: values.to(model.log_scale.device) for name, values in read.items()}
    with evaluating(model), torch.no_grad():
        vectors: Floats = model.encode_texts(read["ids"], read.get("kept")).double().cpu().numpy()
    return vectors
