"""Initialisation as a pure function of (seed, parameter name): models that share a name and shape share the weights.

That is what makes two arms of an experiment start from the same point, whatever else differs between them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn


def stream(seed: int, *labels: str | int) -> int:
    """A 63-bit seed that depends on all of its labels: independent random streams from one seed."""
    text = "/".join(str(label) for label in (seed, *labels))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def initialise(model: nn.Module, seed: int, std: Callable[[str, Tensor], float | None]) -> None:
    """Fill each parameter from N(0, std(name, parameter)); a std of None leaves the parameter as it was built.

    Drawn on the CPU, so that the numbers do not depend on the device.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = std(name, parameter)
            if spread is not None:
                generator = torch.Generator().manual_seed(stream(seed, "weights", name))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def uniform_biases(model: nn.Module, seed: int) -> None:
    """Fill the bias of each linear layer as `nn.Linear` does: uniform up to 1 / sqrt(inputs) on either side of 0."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            generator = torch.Generator().manual_seed(stream(seed, "weights", f"{name}.bias"))
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
