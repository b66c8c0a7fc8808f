"""What every layer puts out: its scale, units that never fire, units that are saturated, its histogram."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.nn.dropout import Dropout
from windtunnel.nn.mode import evaluating

SATURATED = 0.97
"""A tanh beyond this passes on less than 6 % of its gradient, 1 - .97^2; Karpathy's makemore counts from there, too."""
BINS = 41


@dataclass(frozen=True)
class Activations:
    """The values at one place of a model over all tokens looked at.

    place: a module's name for what it puts out; `NAME (input)` for what goes in where no module put it out, such as
        the result of a function like relu.
    depth: the place in a stack of equal blocks, from 0; None outside a stack.
    dead: the share of units that are exactly 0 for every token. zero: the share of values that are.
    saturated: the share of values beyond .97, where no value lies outside of a tanh's or a sigmoid's range, else 0.
    extreme: the share of values more than 6 standard deviations from the mean (normal: 2e-9).
    counts, edges: the histogram, (BINS,) and (BINS + 1,), over mean +- 4 standard deviations.
    """

    place: str
    depth: int | None
    n_units: int
    mean: float
    std: float
    zero: float
    dead: float
    saturated: float
    extreme: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]


def activations(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Activations, ...]:
    """What a model computes on the inputs of a batch, in order: leaf modules, blocks, and functions between.

    Embeddings, norms, linear maps and activation modules are leaves; the children of a ModuleList are blocks.
    """
    found: list[Activations] = []
    seen: list[Tensor] = []  # kept, so that no two tensors have the same id while it matters
    depths = {child: i for stack in model.modules() if isinstance(stack, nn.ModuleList)
              for i, child in enumerate(stack)}  # fmt: skip

    def add(place: str, value: Any, depth: int | None) -> None:
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            seen.append(value)
            found.append(summarise(place, value, depth))

    def before(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, given: Any) -> None:
            if given and isinstance(given[0], Tensor) and not any(given[0] is value for value in seen):
                add(f"{name} (input)", given[0], None)

        return hook

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, value: Any) -> None:
            shown = value[0] if isinstance(module, nn.RNNBase) else value  # the state after the last token left out
            add(name, shown, depths.get(module))

        return hook

    handles = []
    for name, module in model.named_modules():
        leaf = next(module.children(), None) is None
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(before(name)))
        if (leaf and not isinstance(module, Dropout)) or module in depths:
            handles.append(module.register_forward_hook(after(name)))
    try:
        with torch.no_grad(), evaluating(model):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(found)


def summarise(place: str, value: Tensor, depth: int | None = None) -> Activations:
    """The summary of values (..., units)."""
    x = value.detach().double().flatten(0, -2) if value.dim() > 1 else value.detach().double()[None]
    mean, std = x.mean().item(), x.std(correction=0).item()
    low, high = x.min().item(), x.max().item()
    bounded = low >= -1 and high <= 1 and (low < -0.5 or low > 0)  # a tanh's range, or strictly a sigmoid's
    outer = (x > SATURATED) | (x < (-SATURATED if low < 0 else 1 - SATURATED))
    width = 4 * std or 1.0
    counts, edges = np.histogram(x.flatten().numpy(), BINS, (mean - width, mean + width))
    return Activations(
        place=place,
        depth=depth,
        n_units=x.shape[-1],
        mean=mean,
        std=std,
        zero=(x == 0).double().mean().item(),
        dead=(x == 0).all(dim=0).double().mean().item(),
        saturated=outer.double().mean().item() if bounded else 0.0,
        extreme=((x - mean).abs() > 6 * std).double().mean().item() if std else 0.0,
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
    )


def with_batch_statistics(model: nn.Module, inputs: Mapping[str, Tensor]) -> nn.Module:
    """A copy whose running statistics are those of one batch; the model itself where it keeps none.

    Before training, and for long after with a small momentum, they are not those of any data.
    """
    keeping = [name for name, m in model.named_modules() if "running_mean" in dict(m.named_buffers(recurse=False))]
    if not keeping:
        return model
    trial = copy.deepcopy(model).eval()
    momenta = {}
    for norm in map(trial.get_submodule, keeping):
        momenta[norm], norm.momentum = norm.momentum, 1.0  # type: ignore[assignment]
        norm.train()
    with torch.no_grad():
        trial(**inputs)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    return trial.train(model.training)
