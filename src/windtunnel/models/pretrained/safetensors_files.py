"""Safetensors files of a folder, one or many: what they hold is checked before anything is read into memory.

The format (https://github.com/huggingface/safetensors): 8 bytes with the length of a JSON header, the header with
type, shape and place of each tensor, then the tensors one behind the other to the end of the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from windtunnel.errors import ArtifactError
from windtunnel.files import LFS, open_given, read_given, what_else
from windtunnel.models.pretrained.parts import Shape, listing

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
LONGEST_HEADER = 100_000_000
"""Bytes; what the safetensors library reads too."""
MOST_DIMENSIONS, LARGEST = 8, 2**62
READABLE = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    file: Path
    name: str
    dtype: str
    shape: Shape


def list_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor of `model.safetensors`, or of the shards that its index lists.

    Raises:
        ArtifactError: when there are no such files, or one is missing, incomplete or not what the index says.
    """
    if (folder / SINGLE).exists():
        return read_header(folder / SINGLE)
    if (folder / INDEX).exists():
        return _shards(folder)
    unsafe = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if unsafe:
        raise ArtifactError(
            f"{folder} has only pickled weights ({unsafe[0]}), and reading them can run any code; convert them where "
            f"you trust them: transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW)"
        )
    raise ArtifactError(f"{folder} has no weights; expected {SINGLE}, or {INDEX} and the shards that it lists")


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file by name; the file's size is checked against what its header declares.

    Raises:
        ArtifactError: when they differ, as in half a download, or the header is not one.
    """
    try:
        with os.fdopen(open_given(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if (begin := file.read(len(LFS))) == LFS:
                raise ArtifactError(f"{path}: {what_else(begin)}")
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, LONGEST_HEADER):
                raise ArtifactError(
                    f"{path} is incomplete or no safetensors file: it has {size:,} bytes, its header alone "
                    f"would take {length:,}, and at most {LONGEST_HEADER:,} are read; download it again"
                )
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = {name: _entry(path, name, stated) for name, stated in header.items()}
        end = max((stated["data_offsets"][1] for stated in header.values()), default=0)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ArtifactError(f"{path} is damaged: it has no readable safetensors header; download it again") from None
    if 8 + length + end != size:
        raise ArtifactError(
            f"{path} is incomplete or damaged: it has {size:,} bytes, its header declares {8 + length + end:,}; "
            "download it again"
        )
    return entries


def read_tensors(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The tensors in float32, whatever float type they are stored in; names as in the mapping.

    Raises:
        ArtifactError: when a file cannot be read, or listing the tensors of another type or with a NaN or infinity.
    """
    integers = [f"{name} ({entry.dtype})" for name, entry in entries.items() if entry.dtype not in READABLE]
    if integers:
        raise ArtifactError(
            f"these tensors are not stored as {', '.join(READABLE)}, quantised weights are not read: "
            f"{listing(integers)}; use the model's float weights"
        )
    tensors = {}
    for file in sorted({entry.file for entry in entries.values()}):
        try:
            with safe_open(file, framework="pt") as opened:
                for name, entry in entries.items():
                    if entry.file == file:
                        tensors[name] = opened.get_tensor(entry.name).to(torch.float32, copy=True)
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtifactError(f"{file} cannot be read as safetensors ({error}); download it again") from None
    broken = [name for name in entries if not bool(torch.isfinite(tensors[name]).all())]
    if broken:
        raise ArtifactError(f"NaN or infinity in the weights {listing(broken)}; the model is broken, use another copy")
    return tensors


def _entry(path: Path, name: str, stated: dict[str, Any]) -> Entry:
    """One line of the header; its shape and type must fill its place in the file exactly."""
    shape, (start, end) = tuple(stated["shape"]), stated["data_offsets"]
    numbers = (*shape, start, end)
    if len(shape) > MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < LARGEST for n in numbers):
        raise ValueError
    dtype = str(stated["dtype"])
    needed = math.prod(shape) * BITS.get(dtype, 0) // 8
    if dtype in BITS and needed != end - start:
        raise ArtifactError(
            f"{path} is damaged: {listing([name])} of type {dtype} and shape {shape} needs {needed:,} bytes, "
            f"its header gives it {end - start:,}; download it again"
        )
    return Entry(path, name, dtype, shape)


def _shards(folder: Path) -> dict[str, Entry]:
    """The tensors of all shards; the index and the shards must agree on which tensor is where."""
    index = folder / INDEX
    try:
        places = json.loads(read_given(index, 1 << 28))["weight_map"]
        shards = sorted(set(places.values()))
        plain = all(Path(shard).name == shard for shard in shards)
    except OSError as error:
        raise ArtifactError(f"{index} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ArtifactError(
            f"{index} is damaged: expected an object whose weight_map gives each tensor's file"
        ) from None
    if not plain:
        raise ArtifactError(f"{index} lists files outside its folder: {listing(shards)}; every shard must be beside it")
    present = {path.name for path in folder.iterdir()}
    missing = [shard for shard in shards if shard not in present]
    if missing:
        raise ArtifactError(f"{folder} lacks {len(missing)} of {len(shards)} shards: {listing(missing)}; download them")
    found = {}
    for shard in shards:
        entries = read_header(folder / shard)
        named = {name for name, place in places.items() if place == shard}
        if entries.keys() != named:
            wrong = listing(sorted(entries.keys() ^ named))
            raise ArtifactError(f"{folder / shard} and {index.name} differ in {wrong}; download both again")
        found.update(entries)
    return found
