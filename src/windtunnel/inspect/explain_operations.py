"""The tensor operations that a chain of shapes may have: how torch runs each, what it changes, why it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
SIGNS = ("@", "+", "-", "*", "/")
REDUCING = ("sum", "mean")


@dataclass(frozen=True)
class Call:
    """An operation on a tensor of a shape: with arguments, or with another tensor of shape `other`."""

    name: str
    shape: Shape
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    other: Shape | None = None

    @property
    def numbers(self) -> list[int]:
        """The whole numbers among the arguments, in order, brackets undone; True is 1, as torch reads it."""
        switch = bool if self.name in REDUCING else ()  # keepdim
        named = [value for value in self.named.values() if not isinstance(value, bool)]
        flat = _flat((*self.arguments, *named))
        return [int(x) for x in flat if isinstance(x, int) and not isinstance(x, switch)]

    @property
    def dims(self) -> list[int]:
        """Those numbers as dimensions of the shape, counted from 0."""
        return [d % max(1, len(self.shape)) for d in self.numbers]


class Operation(NamedTuple):
    """How torch computes it, what it changed (given the shape after it), and why it fails, None when unknown."""

    run: Callable[..., Any]
    changed: Callable[[Call, Shape], str]
    wrong: Callable[[Call], str | None]


def _flat(values: Sequence[Any]) -> list[Any]:
    """The values, those in brackets without their brackets."""
    return [x for value in values for x in (value if isinstance(value, tuple | list) else [value])]


def softmax(tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
    """Tensor.softmax, on the meta device too with the dimension checked, which torch leaves out there."""
    torch.zeros((1,) * tensor.dim()).softmax(*arguments, **named)
    return tensor.softmax(*arguments, **named)


def no_whole_number(call: Call) -> str | None:
    """Which argument is a number or a word that no operation takes."""
    for value in _flat(call.arguments):
        if not isinstance(value, int | None):
            return f"{call.name} takes whole numbers, given {value!r}"
    return None


def show(shape: Sequence[int]) -> str:
    """A shape as it is written by hand: (3,4), and (3) with one dimension."""
    return "(" + ",".join(str(size) for size in shape) + ")"


def elements(shape: Sequence[int]) -> str:
    """How many numbers a tensor of that shape holds."""
    return _many(math.prod(shape), "element")


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def _squeezed(call: Call, after: Shape) -> str:
    gone = [d for d in call.dims or range(len(call.shape)) if call.shape and call.shape[d] == 1]
    if gone:
        return f"{_dimensions(gone)} of size 1 {'is' if len(gone) == 1 else 'are'} gone"
    kept = [f"dimension {d} has size {call.shape[d]}, not 1" for d in call.dims if call.shape]
    return f"{', '.join(kept) or 'no dimension has size 1'}: nothing changes"


def _unsqueezed(call: Call, after: Shape) -> str:
    return f"a dimension of size 1 is put in at place {call.numbers[0] % len(after)}"


def _transposed(call: Call, after: Shape) -> str:
    if not call.shape:
        return "a single number has nothing to exchange"
    a, b = call.dims
    return f"dimensions {a} and {b}, of sizes {call.shape[a]} and {call.shape[b]}, change places"


def _permuted(call: Call, after: Shape) -> str:
    return "; ".join(f"place {place} takes dimension {d}, size {call.shape[d]}" for place, d in enumerate(call.dims))


def _reshaped(call: Call, after: Shape) -> str:
    says = f"the same {elements(call.shape)} in the same order, cut anew"
    if -1 not in call.numbers:
        return says
    others = math.prod(size for size in call.numbers if size != -1)
    return f"{says}; -1 becomes {math.prod(call.shape)} / {others} = {after[call.numbers.index(-1)]}"


def _flattened(call: Call, after: Shape) -> str:
    if not call.shape:
        return "a single number becomes one dimension of size 1"
    given = {"start_dim": 0, "end_dim": -1, **dict(zip(("start_dim", "end_dim"), call.arguments, strict=False))}
    first, last = (d % len(call.shape) for d in (given | call.named).values())
    sizes = call.shape[first : last + 1]
    return f"dimensions {first} to {last} become one of size {' x '.join(map(str, sizes))} = {math.prod(sizes)}"


def _expanded(call: Call, after: Shape) -> str:
    new = len(after) - len(call.shape)
    repeated = [d for d in range(len(after)) if d < new or call.shape[d - new] != after[d]]
    return f"{_dimensions(repeated)} of the result: the same memory, repeated" if repeated else "nothing changes"


def _reduced(call: Call, after: Shape) -> str:
    verb = {"sum": "summed", "mean": "averaged"}[call.name]
    if not call.numbers or not call.shape:
        return f"{verb} over all {elements(call.shape)}"
    sizes = " x ".join(str(call.shape[d]) for d in call.dims)
    left = "stays, with size 1" if len(after) == len(call.shape) else "is gone"
    return f"{verb} over {_dimensions(call.dims)}, {sizes} numbers at a time, which {left}"


def _normalised(call: Call, after: Shape) -> str:
    if not call.shape or 0 in call.shape:
        return "a single number becomes 1" if not call.shape else "the shape stays; there are no numbers"
    return f"the shape stays; along {_dimensions(call.dims)} the numbers now sum to 1"


def _multiplied(call: Call, after: Shape) -> str:
    a, b = call.shape, call.other or ()
    row, column = ("the vector" if len(shape) == 1 else f"each {name}" for shape, name in ((a, "row"), (b, "column")))
    says = f"{row} of {a[-1]} meets {column} of {_rows(b)}: these sizes are equal and go"
    if a[:-2] == b[:-2] or 1 in (len(a), len(b)):
        return says
    return f"{says}; the batches {show(a[:-2])} and {show(b[:-2])} broadcast to {show(after[:-2])}"


def _rows(b: Shape) -> int:
    """The size of b that a @ b sums over."""
    return b[-2] if len(b) > 1 else b[0]


def _broadcast(call: Call, after: Shape) -> str:
    other = call.other or ()
    if call.shape == other:
        return "equal shapes, element by element"
    stretched = [show(shape) for shape in (call.shape, other) if shape != after]
    return f"{' and '.join(stretched)}, aligned at the right, repeated to {show(after)}"


def _no_dimension(call: Call) -> str | None:
    n = max(1, len(call.shape) + (call.name == "unsqueeze"))
    for d in call.numbers:
        if not -n <= d < n:
            return f"there is no dimension {d}; it can be 0 to {n - 1}, or -{n} to -1 counted from the end"
    return None


def _not_each_once(call: Call) -> str | None:
    if len(call.numbers) != len(call.shape):
        return f"permute names each of the {len(call.shape)} dimensions once, given {len(call.numbers)}"
    return _no_dimension(call) or f"a dimension is named twice in {show(call.numbers)}"


def _does_not_divide(call: Call) -> str | None:
    asked, count = call.numbers, math.prod(call.shape)
    others = math.prod(size for size in asked if size != -1)
    product = " x ".join(map(str, asked)) + f" = {others} elements" if len(asked) > 1 else _many(others, "element")
    if asked.count(-1) > 1:
        return f"{show(asked)} leaves {asked.count(-1)} sizes open; only one -1 can be worked out"
    if any(size < -1 for size in asked):
        return f"a size is 0 or more, or one -1 to be worked out, given {min(asked)}"
    if -1 in asked and others == count == 0:
        return f"the other sizes of {show(asked)} multiply to 0, so any size in place of -1 would do; write one"
    if -1 in asked and (others == 0 or count % others):
        return f"{_many(count, 'element')} cannot be cut into {show(asked)}, since {count} is no multiple of {others}"
    if -1 not in asked and count != others:
        return f"{show(asked)} takes {product}, and there {'is' if count == 1 else 'are'} {count}"
    if call.name == "view":
        return "a view needs its elements in order in memory, which an earlier step has changed; reshape copies them"
    return None


def _cannot_repeat(call: Call) -> str | None:
    asked, n = call.numbers, len(call.shape)
    if len(asked) < n:
        return f"{show(asked)} has {_many(len(asked), 'dimension')}, fewer than the {n} there are"
    for d, (size, wanted) in enumerate(zip(reversed(call.shape), reversed(asked), strict=False), start=1):
        if wanted not in (-1, size) and size != 1:
            return f"dimension {n - d} has size {size}, and only a size of 1 can be repeated, here to {wanted}"
    return None


def cannot_multiply(a: Shape, b: Shape) -> str | None:
    """Why a @ b fails, or None."""
    if not a or not b:
        return "a single number has no rows and columns; multiply it with * instead"
    if a[-1] != _rows(b):
        rows = "rows" if len(b) > 1 else "numbers"
        return f"the last dimension of {show(a)} is {a[-1]} and the {rows} of {show(b)} are {_rows(b)}; " + (
            "they must be equal"
        )
    return cannot_broadcast(a[:-2], b[:-2], "batch dimension")


def cannot_broadcast(a: Shape, b: Shape, name: str = "dimension") -> str | None:
    """Which two sizes, aligned at the right, are neither equal nor 1; None when all fit."""
    for d, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=False), start=1):
        if x != y and 1 not in (x, y):
            return f"{name} -{d} of {show(a)} is {x} and of {show(b)} is {y}; they must be equal, or one of them 1"
    return None


def _inner_sizes_differ(call: Call) -> str | None:
    return cannot_multiply(call.shape, call.other or ())


def _do_not_align(call: Call) -> str | None:
    return cannot_broadcast(call.shape, call.other or ())


def _dimensions(dims: Sequence[int]) -> str:
    return f"dimension {dims[0]}" if len(dims) == 1 else f"dimensions {', '.join(map(str, dims))}"


OPERATIONS = {
    "squeeze": Operation(Tensor.squeeze, _squeezed, _no_dimension),
    "unsqueeze": Operation(Tensor.unsqueeze, _unsqueezed, _no_dimension),
    "transpose": Operation(Tensor.transpose, _transposed, _no_dimension),
    "permute": Operation(Tensor.permute, _permuted, _not_each_once),
    "reshape": Operation(Tensor.reshape, _reshaped, _does_not_divide),
    "view": Operation(Tensor.view, _reshaped, _does_not_divide),
    "flatten": Operation(Tensor.flatten, _flattened, _no_dimension),
    "expand": Operation(Tensor.expand, _expanded, _cannot_repeat),
    "sum": Operation(Tensor.sum, _reduced, _no_dimension),
    "mean": Operation(Tensor.mean, _reduced, _no_dimension),
    "softmax": Operation(softmax, _normalised, _no_dimension),
    "matmul": Operation(Tensor.matmul, _multiplied, _inner_sizes_differ),
    "@": Operation(Tensor.matmul, _multiplied, _inner_sizes_differ),
    "+": Operation(Tensor.add, _broadcast, _do_not_align),
    "-": Operation(Tensor.sub, _broadcast, _do_not_align),
    "*": Operation(Tensor.mul, _broadcast, _do_not_align),
    "/": Operation(Tensor.div, _broadcast, _do_not_align),
}
