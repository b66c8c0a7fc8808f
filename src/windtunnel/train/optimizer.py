"""Optimizers, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from windtunnel.config import Config
from windtunnel.errors import ArtifactError


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) or SGD with momentum."""

    added: ClassVar[frozenset[str]] = frozenset({"decay_vectors"})
    name: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """On matrices; biases, norms and other vectors are decayed only with `decay_vectors`."""
    decay_vectors: bool = False


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over all parameters of the model in two groups: matrices with decay, vectors without or with."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": config.weight_decay * config.decay_vectors},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    betas = (config.beta_1, config.beta_2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.epsilon, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state by 'KIND/PARAMETER', for example 'exp_avg/embedding.weight'."""
    return {
        f"{kind}/{name}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    place: Callable[[Tensor, Tensor], Tensor] = lambda value, parameter: value.to(parameter.device, copy=True),
) -> None:
    """Put back what `optimizer_tensors` gave.

    Args:
        place: (value, its parameter) -> a copy of the value that lies as the parameter does.

    Raises:
        ArtifactError: when a tensor belongs to no parameter of the model or has another shape than it, or when
            the state of some parameters is missing.
    """
    parameters = dict(model.named_parameters())
    named: dict[str, set[str]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if name not in parameters:
            raise ArtifactError(f"the saved optimizer state {key} belongs to no parameter of this model")
        if value.dim() and value.shape != parameters[name].shape:
            expected, given = tuple(parameters[name].shape), tuple(value.shape)
            raise ArtifactError(f"the saved optimizer state {key} does not fit: expected {expected}, given {given}")
        named.setdefault(kind, set()).add(name)
        optimizer.state[parameters[name]][kind] = place(value, parameters[name])
    for kind, names in named.items():
        if missing := sorted(parameters.keys() - names):
            raise ArtifactError(f"the saved optimizer state lacks {', '.join(f'{kind}/{name}' for name in missing)}")
