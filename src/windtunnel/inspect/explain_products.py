"""Products of tensors whose sizes are partly unknown: torch says which sizes fit, and the shapes say why.

bmm (64,128,256) (64,256,512) (64,?,9)          a chain, from left to right
matmul (2,3,4) (4,?) = (2,3,5)                  with a known result
embedding (10,5) (5) | linear (8,6) (10,?) (10) | conv1d (2,3,9) (8,?,3)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_operations import Shape, cannot_multiply, show
from windtunnel.inspect.explain_shapes import ShapeStep, meta, parse_shape

MOST_UNKNOWNS = 3
MOST_TRIED = 20_000
"""Combinations of sizes that are tried; torch needs about 50 microseconds for one."""


@dataclass(frozen=True)
class Solved:
    """An unknown size: the tensor, from 1, and dimension, from 0, where its `?` stands, its value, and the reason."""

    tensor: int
    dimension: int
    size: int
    reason: str


@dataclass(frozen=True)
class Product:
    """A product with its unknowns filled in; the steps are the given tensors, multiplied one after the other."""

    operation: str
    shapes: tuple[Shape, ...]
    solved: tuple[Solved, ...]
    steps: tuple[ShapeStep, ...]

    @property
    def result(self) -> Shape:
        """The shape of the whole product."""
        return self.steps[-1].shape


class _Kind(NamedTuple):
    """A product: torch's function, whether it runs along a chain, how many tensors it takes, and in words."""

    run: Callable[..., Tensor]
    is_chain: bool
    n_tensors: tuple[int, int]
    takes: str
    roles: tuple[tuple[str, ...], ...] = ()
    """What each dimension of each tensor is, counted from the last."""


def _embedding(table: Tensor, ids: Tensor) -> Tensor:
    """torch's, with what its meta device leaves out: an id needs a row."""
    if ids.numel() and not len(table):
        raise RuntimeError(f"the table {show(table.shape)} has no rows, so no id has one")
    return F.embedding(ids, table)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch's, with what its meta device leaves out: the result keeps its shape when the bias is added.

    torch documents biases (out) and (); which of more dimensions it takes differs from device to device.
    """
    without = F.linear(x, weight)
    if bias is None:
        return without
    if bias.dim() > 1 or F.linear(x, weight, bias).shape != without.shape:
        out = weight.shape[0] if weight.dim() == 2 else 1
        raise RuntimeError(f"the bias is {show(bias.shape)}; expected one number for each `out`: ({out})")
    return without


def _conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch's, with what its meta device leaves out: there are kernels, and the bias has one number for each."""
    n_out, n_in, kernel = weight.shape if weight.dim() == 3 else (1, 1, 1)
    if n_out == 0 or (kernel == 0 and n_in > 0):
        raise RuntimeError(f"the weight {show(weight.shape)} has no numbers; `out` and `kernel` are 1 or more")
    if weight.dim() == 3 and bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(f"the bias is {show(bias.shape)}; expected one number for each `out`: ({n_out})")
    return F.conv1d(x, weight, bias)


PRODUCTS = {
    "bmm": _Kind(torch.bmm, True, (2, 99), "two or more shapes (batch, rows, columns)"),
    "matmul": _Kind(torch.matmul, True, (2, 99), "two or more shapes (..., rows, columns)"),
    "embedding": _Kind(
        _embedding, False, (2, 2), "the table's shape and that of the ids",
        (("width", "rows"), ()),
    ),
    "linear": _Kind(
        _linear, False, (2, 3), "an input (..., in), a weight (out, in) and perhaps a bias (out)",
        (("in",), ("in", "out"), ("out",)),
    ),
    "conv1d": _Kind(
        _conv1d, False, (2, 3), "an input (batch, in, length), a weight (out, in, kernel) and perhaps a bias (out)",
        (("length", "in", "batch"), ("kernel", "in", "out"), ("out",)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What was asked: None is an unknown size; with a result its shape stands last."""

    name: str
    shapes: tuple[tuple[int | None, ...], ...]
    has_result: bool

    @property
    def unknowns(self) -> list[tuple[int, int]]:
        """(tensor, dimension) of every unknown."""
        return [(t, d) for t, shape in enumerate(self.shapes) for d, size in enumerate(shape) if size is None]

    def filled(self, values: Sequence[int]) -> tuple[Shape, ...]:
        """The shapes, with values for the unknowns in order."""
        value = iter(values)
        return tuple(tuple(next(value) if size is None else size for size in shape) for shape in self.shapes)


def explain_product(text: str) -> Product:
    """Solve and run `NAME SHAPE SHAPE ... [= SHAPE]`; a `?` is a size to be found.

    Raises:
        ConfigError: for shapes that do not fit, unknowns with no solution, or with more than one.
    """
    asked = _parse(text)
    values = _solve(asked)
    shapes = asked.filled(values)
    solved = tuple(
        Solved(t + 1, d, size, _reason(asked, shapes, t, d))
        for (t, d), size in zip(asked.unknowns, values, strict=True)
    )
    tensors = shapes[:-1] if asked.has_result else shapes
    return Product(asked.name, tensors, solved, _steps(asked.name, tensors))


def _parse(text: str) -> _Asked:
    name, _, rest = text.strip().partition(" ")
    if name not in PRODUCTS:
        raise ConfigError(
            f'expected a chain such as "(3,1,4) -> squeeze(1)" or a product such as "bmm (2,3,4) (2,4,5)" '
            f"({', '.join(PRODUCTS)}), given {text[:60]!r}"
        )
    left, equals, right = rest.partition("=")
    shapes = [_sizes(shape) for shape in re.findall(r"\([^()]*\)|[^\s()]+", left)]
    fewest, most = PRODUCTS[name].n_tensors
    if not fewest <= len(shapes) <= most:
        raise ConfigError(f"{name} takes {PRODUCTS[name].takes}; given {len(shapes)} shape{'s' * (len(shapes) != 1)}")
    return _Asked(name, (*shapes, _sizes(right)) if equals else tuple(shapes), bool(equals))


def _sizes(text: str) -> tuple[int | None, ...]:
    unknown = [part.strip() == "?" for part in text.strip("() ").split(",")]
    known = parse_shape(text.replace("?", "0"))
    return tuple(None if is_unknown else size for size, is_unknown in zip(known, unknown, strict=False))


def _solve(asked: _Asked) -> tuple[int, ...]:
    """The only sizes for the unknowns with which torch accepts the product."""
    n = len(asked.unknowns)
    if n > MOST_UNKNOWNS:
        raise ConfigError(f"there are {n} unknown sizes; at most {MOST_UNKNOWNS} can be worked out at once")
    tried = _tried(asked)
    if len(tried) ** n > MOST_TRIED:
        raise ConfigError(f"{n} unknown sizes among {len(tried)} different ones are too many to try; give one of them")
    failures: list[tuple[int, str]] = []
    fits = []
    for values in itertools.product(tried, repeat=n):
        failure = _failure(asked, asked.filled(values))
        if failure is None:
            fits.append(values)
        else:
            failures.append(failure)
    if len(fits) > 1:
        unknowns, cure = ("the ? is", "it") if n == 1 else (f"the {n} unknown sizes are", "one of them")
        raise ConfigError(f"{unknowns} not determined: {_fitting(fits, tried[-1])} would fit; give {cure}{_or(asked)}")
    if not fits:
        _, reason = max(failures, key=lambda failure: failure[0])
        raise ConfigError(f"no size for the ? makes this work: {reason}" if n else reason)
    return fits[0]


def _tried(asked: _Asked) -> list[int]:
    """The sizes among which the only fitting one would be, and a last one larger than all that are given.

    A size fits because it equals another one, is 1 or, where any fits, anything. A convolution also reckons:
    length out = length - kernel + 1.
    """
    known = {size for shape in asked.shapes for size in shape if size is not None} | {0, 1}
    if asked.name == "conv1d":
        ends = {shape[-1] for shape in (asked.shapes[0], asked.shapes[1], asked.shapes[-1]) if shape}
        lengths = {size for size in ends if size is not None} | {1}
        known |= {size for a in lengths for b in lengths for size in (a + b - 1, a - b + 1, a + 1) if size >= 0}
    return [*sorted(known), 2 * max(known) + 3]


def _fitting(fits: Sequence[Sequence[int]], largest: int) -> str:
    """Two of several solutions, or for one unknown from where on all sizes are."""
    if len(fits[0]) == 1 and fits[-1][0] == largest:
        return f"any size from {fits[0][0]}" if fits[0][0] else "any size"
    near = [values for values in fits if largest not in values]
    two = (near if len(near) > 1 else fits)[-2:]
    return ", as well as ".join(" and ".join(map(str, values)) for values in two)


def _or(asked: _Asked) -> str:
    return "" if asked.has_result else ", or the result with = (...)"


def _failure(asked: _Asked, shapes: tuple[Shape, ...]) -> tuple[int, str] | None:
    """None when torch accepts the shapes; else how far it came, and what is wrong there."""
    tensors = shapes[:-1] if asked.has_result else shapes
    done: list[Tensor] = []
    try:
        for made in _multiplied(asked.name, tensors):
            done.append(made)
    except (RuntimeError, IndexError) as error:
        reason = _wrong(asked.name, tuple(done[-1].shape), tensors[len(done)]) if done else ""
        return len(done), reason or _roles_differ(asked.name, tensors) or str(error).splitlines()[0]
    result = tuple(done[-1].shape)
    if asked.has_result and result != shapes[-1]:
        agree = sum(a == b for a, b in zip(result, shapes[-1], strict=False))
        return len(tensors) + agree, f"the product has shape {show(result)}, not {show(shapes[-1])}"
    return None


def _multiplied(name: str, shapes: Sequence[Shape]) -> itertools.accumulate[Tensor] | list[Tensor]:
    """The running result of a chain after each tensor, or the one result of another product."""
    kind = PRODUCTS[name]
    dtypes = [torch.int64 if name == "embedding" and i == 1 else torch.float32 for i in range(len(shapes))]
    tensors = [meta(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    return itertools.accumulate(tensors, kind.run) if kind.is_chain else [kind.run(*tensors)]


def _wrong(name: str, left: Shape, right: Shape) -> str:
    """Why two neighbours of a chain cannot be multiplied."""
    if name == "bmm" and (len(left) != 3 or len(right) != 3):
        return f"bmm takes shapes of three dimensions, given {show(left)} and {show(right)}; matmul takes others"
    if name == "bmm" and left[0] != right[0]:
        return f"the batch of {show(left)} is {left[0]} and of {show(right)} is {right[0]}; bmm needs them equal"
    return cannot_multiply(left, right) or ""


def _roles_differ(name: str, shapes: Sequence[Shape]) -> str:
    """Which two sizes of a linear layer or a convolution should be the same and are not."""
    found: dict[str, int] = {}
    for shape, roles in zip(shapes, PRODUCTS[name].roles, strict=False):
        for size, role in zip(reversed(shape), roles, strict=False):
            if name == "linear" and roles == ("out",) and size == 1:
                continue  # a bias of one is repeated
            if found.setdefault(role, size) != size:
                return f"`{role}` is {found[role]} in one tensor and {size} in another; {name} takes " + (
                    PRODUCTS[name].takes
                )
    return ""


def _reason(asked: _Asked, shapes: tuple[Shape, ...], tensor: int, dimension: int) -> str:
    """Why the unknown there has the value it has."""
    kind, size = PRODUCTS[asked.name], shapes[tensor][dimension]
    last = len(shapes) - 1 - asked.has_result
    from_end = len(shapes[tensor]) - dimension
    if tensor > last:
        return f"the product has {size} there"
    if not kind.is_chain:
        roles = kind.roles[tensor]
        role = roles[from_end - 1] if from_end <= len(roles) else "batch"
        if role in ("length", "kernel"):
            length, kernel, out = shapes[0][-1], shapes[1][-1], shapes[-1][-1] if asked.has_result else None
            ends = f"{length} - {kernel} + 1" + (f" = {out}" if out is not None else ", which is 1 or more")
            return f"the result is as long as `length` - `kernel` + 1: {ends}"
        return f"it is `{role}`, {size} in the other tensors"
    if from_end == 1 and tensor == 0:
        return f"its columns meet the rows of tensor 2, {show(shapes[1])}: {size}"
    if min(map(len, shapes[: last + 1])) < 2:
        return f"with {size + 1} it fails: {_why_not(asked, shapes, tensor, dimension, size + 1)}"
    if from_end > 2:
        return f"the batch must fit those of the other tensors: {size}"
    if from_end == 2 and tensor > 0:
        return f"its rows meet the columns of tensor {tensor}, {show(shapes[tensor - 1])}: {size}"
    if from_end == 1 and tensor < last:
        return f"its columns meet the rows of tensor {tensor + 2}, {show(shapes[tensor + 1])}: {size}"
    return f"nothing is summed over it, so it is the result's: {size}"


def _why_not(asked: _Asked, shapes: tuple[Shape, ...], tensor: int, dimension: int, size: int) -> str:
    """What is wrong with another size there."""
    other = list(shapes)
    other[tensor] = (*shapes[tensor][:dimension], size, *shapes[tensor][dimension + 1 :])
    _, reason = _failure(asked, tuple(other)) or (0, "")
    return reason


def _steps(name: str, shapes: Sequence[Shape]) -> tuple[ShapeStep, ...]:
    made = [tuple(tensor.shape) for tensor in _multiplied(name, shapes)]
    if not PRODUCTS[name].is_chain:
        return (ShapeStep(f"{name} {' '.join(map(show, shapes))}", made[0], f"takes {PRODUCTS[name].takes}"),)
    steps = [ShapeStep(show(shapes[0]), made[0], "the first tensor")]
    for left, right, result in zip(made, shapes[1:], made[1:], strict=False):
        says = f"{left[-1]} columns on the left meet {left[-1]} rows on the right: summed over, and gone"
        steps.append(ShapeStep(f"{show(left)} @ {show(right)}", result, says))
    return tuple(steps)
