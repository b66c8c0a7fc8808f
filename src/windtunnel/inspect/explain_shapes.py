"""Shapes through a chain of tensor operations, each step computed by torch and said in words.

    (3,1,4,1) -> squeeze(1) -> unsqueeze(0) -> unsqueeze(-1)

A chain runs on the meta device, which has shapes and strides and no memory. torch decides whether a step works;
`explain_operations` only says what it changed, or why it fails, from the same shapes.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_operations import OPERATIONS, SIGNS, Call, Shape, elements, no_whole_number, show

LONGEST_STEP = 200
"""Characters of one step; Python's parser is given no more."""


@dataclass(frozen=True)
class ShapeStep:
    """One step: the shape after it, what changed, and whether the result is a view, which copies nothing."""

    operation: str
    shape: Shape
    says: str
    is_view: bool = False


def explain_chain(text: str) -> tuple[ShapeStep, ...]:
    """Every step of `SHAPE -> operation -> operation ...`.

    Raises:
        ConfigError: for a text that is no chain, an unknown operation, or a step that does not fit its shape.
    """
    start, *operations = [part.strip() for part in text.split("->")]
    tensor = meta(parse_shape(start))
    steps = [ShapeStep(start, tuple(tensor.shape), elements(tensor.shape))]
    for number, operation in enumerate(operations, start=1):
        call = parse_operation(operation, tuple(tensor.shape))
        known = OPERATIONS[call.name]
        given = () if call.other is None else (meta(call.other),)
        where = f"step {number}, {operation}, on {show(tensor.shape)}"
        try:
            after = known.run(tensor, *given, *call.arguments, **call.named)
        except TypeError as error:  # torch could not read the arguments, whatever their values
            raise ConfigError(f"{where}: {no_whole_number(call) or _first_line(error)}") from None
        except (RuntimeError, IndexError, ValueError) as error:
            raise ConfigError(f"{where}: {known.wrong(call) or _first_line(error)}") from None
        if not isinstance(after, Tensor):
            raise ConfigError(f"{where}: the result is not one tensor; give the dimension alone")
        is_view = after.untyped_storage()._cdata == tensor.untyped_storage()._cdata
        steps.append(ShapeStep(operation, tuple(after.shape), known.changed(call, tuple(after.shape)), is_view))
        tensor = after
    return tuple(steps)


def meta(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of that shape without memory."""
    try:
        return torch.empty(shape, dtype=dtype, device="meta")
    except (RuntimeError, OverflowError, TypeError):
        raise ConfigError(f"the shape {show(shape)} has more elements than torch can count") from None


def parse_shape(text: str) -> Shape:
    """(3, 1, 4) as a tuple of sizes; (3) is one dimension, () a single number."""
    text = text.strip()
    body = text.removeprefix("(").removesuffix(")").strip().removesuffix(",")
    sizes = [part.strip() for part in body.split(",")] if body else []
    bracketed = text.startswith("(") and text.endswith(")")
    if not bracketed or not all(size.isascii() and size.isdigit() and len(size) < 19 for size in sizes):
        raise ConfigError(f"expected a shape such as (3,1,4), whole sizes from 0 in brackets, given {text[:60]!r}")
    return tuple(int(size) for size in sizes)


def parse_operation(text: str, shape: Shape) -> Call:
    """`squeeze(1)`, `sum(dim=0, keepdim=True)`, `@ (4,5)` or `+ (10)`, to be applied to a shape."""
    if text[:1] in SIGNS:
        return Call(text[:1], shape, other=parse_shape(text[1:]))
    expected = f"expected an operation such as squeeze(1) or @ (4,5), given {text[:60]!r}"
    if len(text) > LONGEST_STEP:
        raise ConfigError(expected)
    try:
        node = ast.parse(text.removeprefix("."), mode="eval").body
        name, given = (node.func, node) if isinstance(node, ast.Call) else (node, None)
        if not isinstance(name, ast.Name):
            raise ConfigError(expected)
        arguments = tuple(ast.literal_eval(argument) for argument in given.args) if given else ()
        named = {str(word.arg): ast.literal_eval(word.value) for word in given.keywords} if given else {}
    except (SyntaxError, ValueError, TypeError):
        raise ConfigError(expected) from None
    if name.id not in OPERATIONS or name.id in SIGNS:
        raise ConfigError(f"there is no operation {name.id!r} here; known are {', '.join(OPERATIONS)}")
    if name.id == "matmul":
        sizes = ",".join(text.partition("(")[2].rstrip(") ").lstrip("( ").split(","))
        return Call("matmul", shape, other=parse_shape(f"({sizes})"))
    return Call(name.id, shape, arguments, named)


def _first_line(error: Exception) -> str:
    """torch's own words, for what the sentences here do not know."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.removesuffix(", but expected one of:")[:200]
