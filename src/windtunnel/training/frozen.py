"""Parameters that stay as they are: which of them, and a head on a frozen trunk that is solved, not stepped towards.

What a frozen trunk makes of a text never changes, so it is computed once for each weights, texts and pooling, and kept
in the cache (`features`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from windtunnel.errors import ConfigError
from windtunnel.models.classifier import Classifier
from windtunnel.nn.blocks import layers_of
from windtunnel.tasks import Classification
from windtunnel.text.features import Floats, Ints, linear_head
from windtunnel.training.run_config import Freeze
from windtunnel.training.vectors import kept_vectors, of_split


def freeze(model: nn.Module, what: Freeze) -> None:
    """Take parameters out of training.

    Args:
        what: `embeddings`; a number N, the embeddings and the first N layers; `all`, all but the head of a classifier.

    Raises:
        ConfigError: when that leaves nothing to train.
    """
    for parameter in _frozen(model, what):
        parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"train.freeze={what} leaves nothing to train in this model; freeze less")


def _frozen(model: nn.Module, what: Freeze) -> Iterator[nn.Parameter]:
    if what is None:
        return
    if what == "all":
        if not isinstance(model, Classifier):
            raise ConfigError("train.freeze=all trains the head of a classifier alone, and this model is none; omit it")
        yield from model.trunk.parameters()
        return
    for module in model.modules():
        yield from module.parameters(recurse=False) if isinstance(module, nn.Embedding) else ()
    layers = layers_of(model)
    if isinstance(what, int) and what > len(layers):
        raise ConfigError(f"train.freeze={what} freezes layers, and this model has {len(layers)}; give at most those")
    for layer in layers[: what if isinstance(what, int) else 0]:
        yield from layer.parameters()


def solve_head(model: Classifier, task: Classification, chosen: Ints) -> str:
    """Set the head to the logistic regression on the trunk's features of the chosen texts; says what was done."""
    weights, biases, penalty = solved_head(model, task, chosen)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weights))
        assert model.head.bias is not None
        model.head.bias.copy_(torch.from_numpy(biases))
    return (
        f"the trunk is frozen: its features of {len(chosen):,} texts were computed once, and the head was "
        f"solved to convergence (logistic regression, C {penalty:g} chosen on dev)"
    )


def solved_head(model: Classifier, task: Classification, chosen: Ints) -> tuple[Floats, Floats, float]:
    """`linear_head` of the trunk's features of the chosen texts of the train split (`train_texts`) and of dev."""
    train = features(model, task, "train", chosen)
    dev = features(model, task, "dev") if task.n_units("dev") else train[:0]
    labels = {split: np.asarray(task.store.splits[split].labels, np.int64) for split in ("train", "dev")}
    return linear_head(train, labels["train"][chosen], dev, labels["dev"], task.model.n_labels)


def features(model: Classifier, task: Classification, split: str, chosen: Ints | None = None) -> Floats:
    """The pooled vectors (N, D) of a split's texts, or the chosen ones, from the cache where they are there."""
    n = task.n_units(split)
    some = [] if chosen is None or len(chosen) == n else [chosen.tolist()]
    return kept_vectors(
        model.trunk,
        [model.config.pool, task.store.folder.name, split, *some],
        (n if chosen is None else len(chosen), model.config.trunk.d_model),
        lambda: of_split(model, lambda ids, kept: model.pooled(ids, kept).float(), task, split, chosen),
    )
