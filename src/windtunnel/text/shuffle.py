"""The order of an epoch: a permutation that is a function of a key, whole or place by place."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

LONGEST_ORDER = 1 << 18
"""Examples; up to this many the order of an epoch is kept: to compute it batch by batch takes longer than a step of a
model of 12 thousand parameters."""


@lru_cache(maxsize=32)
def order(n: int, key: int) -> np.ndarray:
    """All of `shuffled`, (n,) int64, kept for a few epochs of a few seeds."""
    return shuffled(np.arange(n), n, key)


def shuffled(places: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where the given places of 0 ... n-1 go in the permutation of this key, without storing the permutation.

    A Feistel network over the next power of four, walked until the result is below n (Black & Rogaway 2002).
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    result = places.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        left, right = result[outside] >> shift, result[outside] & mask
        for turn in range(6):
            left, right = (
                right,
                left ^ (scrambled(right + np.uint64((key + turn * 0x9E37) & 0xFFFFFFFFFFFF)) & mask),
            )
        result[outside] = (left << shift) | right
        outside = result >= n
    return result.astype(np.int64)


def scrambled(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit changes about half of the output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def epoch_key(seed: int, epoch: int) -> int:
    """What shuffles this epoch of this seed."""
    digest = hashlib.blake2b(f"{seed}/epoch/{epoch}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")
