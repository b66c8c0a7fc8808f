"""Weights under two names: which foreign tensors each of ours is made of, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from windtunnel.errors import ArtifactError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One of our tensors and the foreign ones that make it, the rows of one below those of the other.

    Attributes:
        shapes: of the foreign tensors, as they are stored.
        transposed: they are stored as (inputs, outputs), as in GPT-2's Conv1D.
    """

    ours: str
    theirs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    transposed: bool = False

    @property
    def rows(self) -> list[int]:
        """How many of our rows each foreign tensor is."""
        return [shape[-1] if self.transposed else shape[0] for shape in self.shapes]


def single(ours: str, theirs: str, *shape: int) -> Part:
    """A tensor that is the same in both."""
    return Part(ours, (theirs,), (shape,))


def linear(
    ours: str, theirs: Sequence[str], d_in: int, d_out: Sequence[int], bias: bool, transposed: bool = False
) -> Iterator[Part]:
    """The weight of a linear layer, and its bias if it has one."""
    shapes = tuple((d_in, n) if transposed else (n, d_in) for n in d_out)
    yield Part(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), shapes, transposed)
    if bias:
        yield Part(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs), tuple((n,) for n in d_out))


def norm(ours: str, theirs: str, d_model: int, bias: bool) -> Iterator[Part]:
    """The weight of a norm, and its bias if it has one."""
    yield single(f"{ours}.weight", f"{theirs}.weight", d_model)
    if bias:
        yield single(f"{ours}.bias", f"{theirs}.bias", d_model)


def bare(parts: Iterable[Part], prefix: str) -> list[Part]:
    """The parts as transformers' model without a head names them, which has no prefix."""
    return [replace(part, theirs=tuple(name.removeprefix(prefix) for name in part.theirs)) for part in parts]


def gather(parts: Iterable[Part], read: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Our weights; `read` gives a foreign tensor by its name, each is asked for once."""
    weights = {}
    for part in parts:
        pieces = [read(name).T if part.transposed else read(name) for name in part.theirs]
        weights[part.ours] = torch.cat(pieces).contiguous() if len(pieces) > 1 else pieces[0].contiguous()
    return weights


def scatter(parts: Iterable[Part], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The foreign tensors; the inverse of `gather`."""
    tensors = {}
    for part in parts:
        for name, piece in zip(part.theirs, torch.split(weights[part.ours], part.rows), strict=True):
            tensors[name] = (piece.T if part.transposed else piece).contiguous()
    return tensors


def check_tensors(parts: Iterable[Part], found: Mapping[str, Shape], ignorable: re.Pattern[str], where: object) -> None:
    """Every tensor is used exactly once, except the buffers that `ignorable` names.

    Raises:
        ArtifactError: one, that lists what is missing, unexpected or of another shape.
    """
    expected = {name: shape for part in parts for name, shape in zip(part.theirs, part.shapes, strict=True)}
    extra = [name for name in found if name not in expected and not ignorable.fullmatch(name)]
    other = [
        f"{name} (expected {shape}, given {found[name]})"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    wrong = [
        f"{len(names)} {kind}: {listing(names)}"
        for kind, names in (
            ("missing", [name for name in expected if name not in found]),
            ("unexpected", extra),
            ("of another shape", other),
        )
        if names
    ]
    if wrong:
        raise ArtifactError(
            f"the weights in {where} do not fit its config.json; tensors {'; '.join(wrong)}; "
            "use the config.json and the weights of one and the same model"
        )


def listing(names: Sequence[str], most: int = 30) -> str:
    """The names, the first of them when there are very many; one that would not print in a line is quoted."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if name.isprintable() else repr(name) for name in names[:most]) + more
