"""The shape of every tensor between a model's input and its logits, without computing one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from windtunnel.models import Model, ModelConfig
from windtunnel.nn.attention import attend_reference


@dataclass(frozen=True)
class Intermediate:
    """One tensor: which module made it by which operation, and how large it is.

    A view shares the memory of an earlier tensor and has 0 bytes of its own. `layers` modules made the same one;
    `module` then names them all: "blocks.0-3.attention".
    """

    module: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    layers: int = 1


def intermediates(config: ModelConfig, batch_size: int, length: int) -> list[Intermediate]:
    """Every tensor of a forward pass over ids (batch_size, length), in order, equal neighbouring layers as one.

    Runs on the meta device, which has shapes and no memory, through `attend_reference`: so the attention scores
    and weights are listed too, which the fused kernel never writes to memory. Types are those of float32 weights.
    """
    with torch.device("meta"):
        model = config.create().eval()
        inputs = config.example(batch_size, length)
    with torch.no_grad(), _module_stack(model) as stack, _Recorder(stack) as recorder:
        in_the_open(model, inputs)
    return collapse(recorder.rows)


def in_the_open(model: Model, inputs: Mapping[str, Tensor]) -> Tensor:
    """The logits of a model, a transformer's attention as plain matrix products."""
    if not model.config.attends:
        return model(**inputs)
    return model(**inputs, attend=attend_reference)


class _Recorder(TorchFunctionMode):
    """Notes the tensors that torch functions return, as they are called in the source."""

    def __init__(self, stack: list[str]) -> None:
        super().__init__()
        self.stack = stack
        self.rows: list[Intermediate] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(x) for x in args if isinstance(x, Tensor)}
        for made in result if isinstance(result, tuple) else (result,):
            if isinstance(made, Tensor) and not any(made is x for x in args):
                own = 0 if _storage(made) in given else made.numel() * made.element_size()
                name = func.__name__.strip("_")
                dtype = str(made.dtype).removeprefix("torch.")
                self.rows.append(Intermediate(self.stack[-1], name, tuple(made.shape), dtype, own))
        return result


@contextmanager
def _module_stack(model: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running, innermost last; "" is the model itself."""
    stack = [""]
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, i, path=path: stack.append(path)))
        handles.append(module.register_forward_hook(lambda m, i, o: (stack.pop(), None)[1]))
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


def collapse(rows: list[Intermediate]) -> list[Intermediate]:
    """Join neighbouring layers that make the same tensors: 4 equal `blocks.N` become one `blocks.0-3`."""
    collapsed: list[Intermediate] = []
    layers = [(number, list(group)) for number, group in groupby(rows, key=lambda row: _layer(row.module))]
    for _, group in groupby(layers, key=lambda layer: (layer[0] is None, [_anonymous(row) for row in layer[1]])):
        equal = list(group)
        first, last = equal[0][0], equal[-1][0]
        for row in equal[0][1]:
            if first is not None and first != last:
                module = row.module.replace(f"blocks.{first}", f"blocks.{first}-{last}", 1)
                row = replace(row, module=module, layers=len(equal))
            collapsed.append(row)
    return collapsed


def _layer(module: str) -> int | None:
    found = re.match(r"blocks\.(\d+)", module)
    return int(found[1]) if found else None


def _anonymous(row: Intermediate) -> Intermediate:
    return replace(row, module=re.sub(r"^blocks\.\d+", "blocks", row.module))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
