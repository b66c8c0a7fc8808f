"""Read GGUF: what the file declares is checked against its size before any of it is kept.

The format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, two counts, settings by name,
a line for each tensor, then the tensors, each at a multiple of the alignment. Sizes of a tensor are listed from the
fastest one, which is the last of ours.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from windtunnel.errors import ArtifactError
from windtunnel.files import LFS, open_given, what_else
from windtunnel.models.pretrained.gguf_blocks import PACKINGS, Packing, dequantise
from windtunnel.models.pretrained.parts import Shape, listing

LONGEST_HEADER = 1 << 26
"""Bytes; the largest vocabularies take an eighth of it."""
LONGEST_STRING, MOST_ITEMS, MOST_SETTINGS, MOST_TENSORS, MOST_DIMENSIONS = 1 << 22, 1 << 21, 4096, 1 << 16, 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32


@dataclass(frozen=True)
class Stored:
    """A tensor in a file; start: its first byte, counted from the beginning of the file."""

    shape: Shape
    kind: str
    packing: Packing
    start: int
    n_bytes: int


@dataclass(frozen=True)
class GGUF:
    """A file whose header has been read. Arrays among the settings are lists of text or numpy arrays."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, Stored]

    def read(self, name: str) -> Tensor:
        """A tensor in float32, whatever it is stored as.

        Raises:
            ArtifactError: when the file cannot be read any more, or the tensor holds a NaN or infinity.
        """
        stored = self.tensors[name]
        with _opened(self.path) as file:
            file.seek(stored.start)
            data = np.frombuffer(file.read(stored.n_bytes), np.uint8)
        if len(data) != stored.n_bytes:
            raise ArtifactError(f"{self.path} became shorter while it was read")
        numbers = torch.from_numpy(dequantise(stored.packing, data)).reshape(stored.shape)
        if not bool(torch.isfinite(numbers).all()):
            raise ArtifactError(f"NaN or infinity in the weights {listing([name])}; the model is broken, use another")
        return numbers


def read_gguf(path: Path) -> GGUF:
    """The settings of a file and the places of its tensors, all within the file.

    Raises:
        ArtifactError: when it cannot be read, is none, is incomplete, or declares what no model has.
    """
    with _opened(path) as file:
        header = _Header(path, file, os.fstat(file.fileno()).st_size)
        try:
            return header.read()
        except (UnicodeDecodeError, struct.error):
            raise header.damaged("a text in it is not UTF-8") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with os.fdopen(open_given(path), "rb") as file:
            yield file
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})") from None


class _Header:
    """Reads from the beginning of a file on, and never more than the file has left or a header may be long."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size, self.place = path, file, size, 0

    def damaged(self, why: str) -> ArtifactError:
        return ArtifactError(f"{self.path} is damaged or incomplete: {why}; download it again")

    def read(self) -> GGUF:
        if (begin := self.take(4)) == LFS[:4]:
            raise ArtifactError(f"{self.path}: {what_else(LFS)}")
        if begin != b"GGUF":
            raise ArtifactError(f"{self.path} is no GGUF file: it does not begin with the letters GGUF")
        version = self.number("I")
        if version not in (2, 3):
            raise ArtifactError(
                f"{self.path} is GGUF of version {version}; versions 2 and 3 of this byte order are read"
            )
        n_tensors, n_settings = self.number("Q"), self.number("Q")
        self.check("tensors", n_tensors, MOST_TENSORS, 24)
        self.check("settings", n_settings, MOST_SETTINGS, 13)
        settings: dict[str, Any] = {}
        for _ in range(n_settings):
            name = self.string()
            if name in settings:
                raise self.damaged(f"it has the setting {listing([name])} twice")
            settings[name] = self.value(self.number("I"))
        tensors = self.tensors(n_tensors, settings.get("general.alignment", _ALIGNMENT))
        return GGUF(self.path, settings, tensors)

    def take(self, n: int) -> bytes:
        if n > min(self.size, LONGEST_HEADER) - self.place:
            raise self.damaged(f"at byte {self.place:,} its header needs {n:,} more, and the file has {self.size:,}")
        self.place += n
        return self.file.read(n)

    def number(self, kind: str) -> Any:
        kind = "<" + kind
        value = struct.unpack(kind, self.take(struct.calcsize(kind)))[0]
        return float(str(np.float32(value))) if kind == "<f" else value  # 1e-5 and not 9.999999747378752e-06

    def check(self, what: str, n: int, most: int, smallest: int) -> None:
        """Refuse a count that is larger than any model's, or than what is left has room for."""
        if n > most or n * smallest > self.size - self.place:
            raise self.damaged(
                f"it declares {n:,} {what} in {self.size - self.place:,} bytes, and at most {most:,} are read"
            )

    def string(self) -> str:
        n = self.number("Q")
        self.check("bytes of text", n, LONGEST_STRING, 1)
        return self.take(n).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.damaged(f"a setting is of the unknown type {kind}")
        inner, n = self.number("I"), self.number("Q")
        if inner == _STRING:
            self.check("texts", n, MOST_ITEMS, 8)
            return [self.string() for _ in range(n)]
        if inner not in _SCALARS:
            raise self.damaged(f"a list among the settings is of the unknown type {inner}")
        item = np.dtype("<" + _SCALARS[inner])
        self.check("numbers", n, MOST_ITEMS, item.itemsize)
        return np.frombuffer(self.take(n * item.itemsize), item)

    def tensors(self, n: int, alignment: Any) -> dict[str, Stored]:
        if type(alignment) is not int or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
            raise self.damaged(f"general.alignment is {str(alignment)[:40]}, and no power of two from 8 to 65,536")
        lines = [self.line(alignment) for _ in range(n)]
        data = -(-self.place // alignment) * alignment
        tensors: dict[str, Stored] = {}
        for name, shape, kind, packing, offset in lines:
            n_bytes = math.prod(shape) // packing.numbers * packing.n_bytes
            if name in tensors or data + offset + n_bytes > self.size:
                why = "is there twice" if name in tensors else f"ends at byte {data + offset + n_bytes:,}"
                raise self.damaged(f"the tensor {listing([name])} {why}, and the file has {self.size:,} bytes")
            tensors[name] = Stored(shape, kind, packing, data + offset, n_bytes)
        if sum(stored.n_bytes for stored in tensors.values()) > self.size:
            raise self.damaged("its tensors lie over one another")
        return tensors

    def line(self, alignment: int) -> tuple[str, Shape, str, Packing, int]:
        """A tensor's name, shape, type and place behind the header."""
        name, n = self.string(), self.number("I")
        if not 1 <= n <= MOST_DIMENSIONS:
            raise self.damaged(f"the tensor {listing([name])} has {n} dimensions")
        shape = tuple(self.number("Q") for _ in range(n))[::-1]
        number, offset = self.number("I"), self.number("Q")
        if number not in PACKINGS:
            known = ", ".join(name for name, _ in PACKINGS.values())
            raise ArtifactError(
                f"{self.path}: {listing([name])} is stored as type {number} of ggml, which is not read; known are "
                f"{known}; use a file of one of these"
            )
        kind, packing = PACKINGS[number]
        if min(shape) < 1 or shape[-1] % packing.numbers or offset % alignment:
            raise self.damaged(f"{listing([name])} of type {kind} has the shape {shape} at byte {offset:,}")
        return name, shape, kind, packing, offset
