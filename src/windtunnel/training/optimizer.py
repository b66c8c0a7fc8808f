"""Optimizers, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from windtunnel.config import Config
from windtunnel.errors import ArtifactError
from windtunnel.nn.blocks import layers_of
from windtunnel.training.muon import Muon, hidden_matrices


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), SGD with momentum, or Muon (`windtunnel.training.muon`)."""

    added: ClassVar[frozenset[str]] = frozenset({"decay_vectors", "matrix_lr", "trunk_factor", "layer_decay"})
    name: Literal["adamw", "sgd", "muon"] = "adamw"
    """AdamW, SGD with momentum, or Muon for the matrices inside the blocks and AdamW for all else."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    matrix_lr: Annotated[float, Field(gt=0)] = 0.02
    """For muon: the peak for the matrices inside the blocks; `lr` and AdamW are for all else."""
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For adamw: how much of the mean gradient is kept at each step."""
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """For adamw: how much of the mean squared gradient is kept at each step."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """For adamw: added to the root that each update is divided by."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For sgd and muon: how much of the last step's direction is kept."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """The share of a matrix that a step takes away, times the learning rate; biases, norms and other vectors are
    decayed only with `decay_vectors`."""
    decay_vectors: bool = False
    """Whether biases, norms and other vectors are decayed, too."""
    trunk_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of a classifier: the learning rate of the trunk is this many times that of the head. Of pictures and captions:
    that of a net that was trained before, times that of all else."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate of a layer is this many times that of the one above it: `lr` is for what lies above the last
    layer, and the embeddings lie below the first (Clark et al. 2020, arXiv 2003.10555)."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over all parameters that are trained: for each learning rate a group of matrices, which are decayed,
    and one of vectors, which are or are not. `factor` of a group is its learning rate, times that of the schedule."""
    hidden = hidden_matrices(model) if config.name == "muon" else {}
    hidden = {p: rows for p, rows in hidden.items() if p.requires_grad}
    parameters = {p: f for p, f in rate_factors(model, config).items() if p.requires_grad and p not in hidden}
    decays = {True: config.weight_decay, False: config.weight_decay * config.decay_vectors}
    groups = [
        {"params": own, "weight_decay": decay, "lr": config.lr * factor, "factor": factor}
        for factor in sorted(set(parameters.values()), reverse=True)
        for matrices, decay in decays.items()
        if (own := [p for p, f in parameters.items() if f == factor and (p.dim() >= 2) == matrices])
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    betas = (config.beta_1, config.beta_2)
    if hidden:
        rates, matrices = (config.lr, config.matrix_lr), list(hidden.items())
        return Muon(matrices, groups, *rates, config.momentum, config.weight_decay, betas=betas, eps=config.epsilon)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.epsilon, fused=True)


def rate_factors(model: nn.Module, config: OptimizerConfig) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter is, times that of the schedule."""
    named = getattr(getattr(model, "config", None), "trunk_names", ("trunk",))
    trunks, layers = [getattr(model, name, None) for name in named], layers_of(model)
    inside = {p for trunk in trunks if isinstance(trunk, nn.Module) for p in trunk.parameters()}
    heights = {p: height for height, layer in enumerate(layers, start=1) for p in layer.parameters()}
    factors, outside = {}, 0  # a parameter outside of all layers stands below the first, or above the last
    for p in model.parameters():
        outside = len(layers) + 1 if p in heights else outside
        depth = len(layers) + 1 - heights.get(p, outside)
        factors[p] = config.layer_decay**depth * (config.trunk_factor if p in inside else 1.0)
    return factors


def rates_note(model: nn.Module, optimizer: torch.optim.Optimizer, lr: float) -> str:
    """The peak learning rate of each part of a model, and its parameters, as the optimizer holds them; empty where all
    have the same."""
    factors = {p: group.get("factor", 1.0) for group in optimizer.param_groups for p in group["params"]}
    if len(set(factors.values())) < 2:
        return ""
    named = {name: factors[p] for name, p in model.named_parameters() if p in factors}
    parts: dict[float, dict[str, int]] = {}
    for name, p in model.named_parameters():
        if name in named:
            part, own = _part(name, named), parts.setdefault(named[name], {})
            own[part] = own.get(part, 0) + p.numel()
    said = [
        f"{', '.join(own)} {lr * factor:.3g} ({sum(own.values()):,} parameters)"
        for factor, own in sorted(parts.items(), reverse=True)
    ]
    return f"peak learning rates: {'; '.join(said)}"


def _part(name: str, factors: Mapping[str, float]) -> str:
    """The largest part of a model around a parameter that has its factor throughout."""
    words = name.split(".")
    parts = (".".join(words[:n]) for n in range(1, len(words)))
    alike = (part for part in parts if len({f for n, f in factors.items() if n.startswith(f"{part}.")}) == 1)
    return next(alike, name)


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
    known: bool = True,
) -> None:
    """Put back what `optimizer_tensors` gave.

    Args:
        place: (value, its parameter) -> a copy of the value that lies as the parameter does.
        known: whether the optimizer is one of `build_optimizer`, whose states have known shapes and owners.

    Raises:
        ArtifactError: when a tensor belongs to no parameter of the model or has another shape than it, or when
            the state of some parameters is missing.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    named: dict[str, set[str]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if name not in parameters:
            raise ArtifactError(f"the saved optimizer state {key} belongs to no parameter of this model")
        if known and value.dim() and value.shape != parameters[name].shape:
            expected, given = tuple(parameters[name].shape), tuple(value.shape)
            raise ArtifactError(f"the saved optimizer state {key} does not fit: expected {expected}, given {given}")
        named.setdefault(kind, set()).add(name)
        optimizer.state[parameters[name]][kind] = place(value, parameters[name])
    hidden = {name for name, p in parameters.items() if isinstance(optimizer, Muon) and p in optimizer.sizes}
    for kind, names in named.items() if known else ():
        having = hidden if hidden and kind == "momentum_buffer" else parameters.keys() - hidden
        if missing := sorted(having - names):
            raise ArtifactError(f"the saved optimizer state lacks {', '.join(f'{kind}/{name}' for name in missing)}")
