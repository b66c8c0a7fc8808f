"""Which text is for training, which for development, which for the test.

Documents go by a hash of their content: it does not depend on order, on other documents or on the seed, and
identical documents land in one split. Of a document of several fields the first (the source) decides, so that no
model is asked in dev or test for what it was told in training. Running text goes by position: train first, then dev,
then test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator

SPLITS = ("train", "dev", "test")


def document_split(document: str, dev_fraction: float, test_fraction: float) -> str:
    """The split of a document: u in [0, 1) from 8 bytes of BLAKE2b; u < test -> test, < test + dev -> dev."""
    u = int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest()) / 2**64
    if u < test_fraction:
        return "test"
    return "dev" if u < test_fraction + dev_fraction else "train"


def split_key(document: str, fields: tuple[str, ...]) -> str:
    """What of a document decides its split: its first field."""
    return document.partition("\t")[0] if len(fields) > 1 else document


def text_cuts(n_bytes: int, dev_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Where dev and test begin in a running text, in bytes, before rounding to a character."""
    # The small term undoes binary rounding: 100 * (1 - 0.05 - 0.05) is to be 90, not 89.
    dev = math.floor(n_bytes * (1 - dev_fraction - test_fraction) + 1e-6)
    test = math.floor(n_bytes * (1 - test_fraction) + 1e-6)
    return dev, test


def split_text(chunks: Iterable[str], cuts: tuple[int, int]) -> Iterator[tuple[str, str, int]]:
    """Cut a running text that comes in chunks: (split, text, UTF-8 bytes), in order.

    A cut inside a character moves to its first byte. Where the cuts lie does not depend on the chunks.
    """
    position = 0
    for chunk in chunks:
        data = chunk.encode()
        ends = [_character_start(data, cut - position) for cut in cuts] + [len(data)]
        start = 0
        for name, end in zip(SPLITS, ends, strict=True):
            if end > start:
                yield name, data[start:end].decode(), end - start
                start = end
        position += len(data)


def _character_start(data: bytes, index: int) -> int:
    index = min(max(index, 0), len(data))
    while 0 < index < len(data) and data[index] & 0xC0 == 0x80:
        index -= 1
    return index
