"""Weights of few bits, as GGUF stores them, made float32 again: blocks of numbers that share a scale.

Each function takes the blocks as bytes, (N, bytes of a block) uint8, and gives their numbers, (N, numbers of a block)
float32, bit for bit those of llama.cpp's ggml-quants.c (`dequantize_row_*`). In a name as Q4_1 the first digit is the
number of bits, 0 is scale alone, 1 is scale and minimum, K is blocks of 256 whose parts have scales of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
PIECE = 1 << 20
"""Numbers that are made at a time."""


@dataclass(frozen=True)
class Packing:
    """How a type of GGUF stores numbers: so many in a block of so many bytes."""

    numbers: int
    n_bytes: int
    unpack: Callable[[Array], Array]


def dequantise(packing: Packing, data: Array) -> Array:
    """The numbers, (n,) float32, in whole blocks of bytes, (n_bytes,) uint8."""
    blocks = data.reshape(-1, packing.n_bytes)
    numbers = np.empty((len(blocks), packing.numbers), np.float32)
    step = max(PIECE // packing.numbers, 1)
    with np.errstate(all="ignore"):  # what is not finite is refused later, by name
        for start in range(0, len(blocks), step):
            numbers[start : start + step] = packing.unpack(blocks[start : start + step])
    return numbers.reshape(-1)


def _f32(blocks: Array) -> Array:
    return blocks.view("<f4")


def _f16(blocks: Array) -> Array:
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: Array) -> Array:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _scale(blocks: Array, at: int) -> Array:
    """The half-precision number at a byte of each block, (N, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """The low halves of the bytes, then the high halves: (N, B) -> (N, 2 B)."""
    return np.concatenate((packed & 15, packed >> 4), axis=1)


def _fifth_bits(blocks: Array, at: int) -> Array:
    """32 bits at a byte of each block as what they add to a number of five: 16 or 0, (N, 32)."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << 4


def _q8_0(blocks: Array) -> Array:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _scale(blocks, 0)


def _q4_0(blocks: Array) -> Array:
    return _scale(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Array) -> Array:
    return _scale(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _scale(blocks, 2)


def _q5_0(blocks: Array) -> Array:
    return _scale(blocks, 0) * ((_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.float32) - 16)


def _q5_1(blocks: Array) -> Array:
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _scale(blocks, 0) * numbers.astype(np.float32) + _scale(blocks, 2)


def _q4_k(blocks: Array) -> Array:
    """Eight parts of 32, each with a scale and a minimum of 6 bits; the upper 2 bits of parts 4 to 7 lie apart."""
    n = len(blocks)
    low, high, both = (blocks[:, 4 + 4 * i : 8 + 4 * i] for i in range(3))
    scales = np.concatenate((low & 63, (both & 15) | (low >> 2 & 48)), axis=1).astype(np.float32)
    minima = np.concatenate((high & 63, (both >> 4) | (high >> 2 & 48)), axis=1).astype(np.float32)
    packed = blocks[:, 16:].reshape(n, 4, 32)
    numbers = np.stack((packed & 15, packed >> 4), axis=2).reshape(n, 8, 32).astype(np.float32)
    scaled = (_scale(blocks, 0) * scales)[:, :, None] * numbers
    return (scaled - (_scale(blocks, 2) * minima)[:, :, None]).reshape(n, 256)


def _q6_k(blocks: Array) -> Array:
    """Sixteen parts of 16, each with a scale of 8 bits; the upper 2 bits of the numbers lie apart."""
    n = len(blocks)
    low, high = blocks[:, :128].reshape(n, 2, 64), blocks[:, 128:192].reshape(n, 2, 32)
    low_bits = np.concatenate((low & 15, low >> 4), axis=2)
    high_bits = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    numbers = (low_bits | high_bits << 4).reshape(n, 16, 16).astype(np.float32) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _scale(blocks, 208)
    return (scales[:, :, None] * numbers).reshape(n, 256)


PACKINGS: dict[int, tuple[str, Packing]] = {
    0: ("F32", Packing(1, 4, _f32)),
    1: ("F16", Packing(1, 2, _f16)),
    2: ("Q4_0", Packing(32, 18, _q4_0)),
    3: ("Q4_1", Packing(32, 20, _q4_1)),
    6: ("Q5_0", Packing(32, 22, _q5_0)),
    7: ("Q5_1", Packing(32, 24, _q5_1)),
    8: ("Q8_0", Packing(32, 34, _q8_0)),
    12: ("Q4_K", Packing(256, 144, _q4_k)),
    14: ("Q6_K", Packing(256, 210, _q6_k)),
    30: ("BF16", Packing(1, 2, _bf16)),
}
"""By the number that stands for the type in a file (`ggml_type` of ggml.h)."""
