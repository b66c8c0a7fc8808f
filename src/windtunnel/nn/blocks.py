"""Markers for what is stacked in a model, so that training finds it at any depth and under any name."""

from __future__ import annotations

from torch import nn


class Layers(nn.ModuleList):
    """What lies between an embedding and a head. Muon moves the matrices inside, AdamW all others."""


class Blocks(Layers):
    """Layers that are also compiled, recomputed and sharded one by one; blocks of one kind share a compiled graph."""


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The members of every `Layers` in a model, in the order in which they were made."""
    return [layer for stack in model.modules() if isinstance(stack, Layers) for layer in stack]


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The members of every `Blocks` in a model, in the order in which they were made."""
    return [block for stack in model.modules() if isinstance(stack, Blocks) for block in stack]
