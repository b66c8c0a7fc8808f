"""What the data alone says: copies of held-out text in train, ids that never occur, the loss of token frequencies."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from windtunnel.text.batches import IGNORED, Batch
from windtunnel.text.store import Split, TokenStore

WINDOW = 50
"""Running text has no documents: its units are windows of this many tokens, as in Lee et al. 2022, arXiv 2107.06499."""


def copies(train: Split, held_out: Split) -> tuple[int, int]:
    """How many held-out documents (running text: windows of 50 tokens) are word for word in train: (copies, of)."""
    if train.offsets is not None and held_out.offsets is not None:
        known = set(_documents(train))
        found = [document in known for document in _documents(held_out)]
        return sum(found), len(found)
    ours, theirs = _window_hashes(held_out.ids)[::WINDOW], _window_hashes(train.ids)
    return int(np.isin(ours, theirs).sum()), len(ours)


def _documents(split: Split) -> Iterable[bytes]:
    assert split.offsets is not None
    ids = np.asarray(split.ids)
    return (ids[a:b].tobytes() for a, b in pairwise(split.offsets.tolist()))


def _window_hashes(ids: np.ndarray) -> np.ndarray:
    """A 64-bit polynomial hash of every window of WINDOW ids; chance collisions are about 1e-10."""
    n = len(ids) - WINDOW + 1
    if n <= 0:
        return np.zeros(0, np.uint64)
    x = (np.asarray(ids, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(29)
    result = np.zeros(n, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(WINDOW):
            result = result * np.uint64(0xBF58476D1CE4E5B9) + x[i : i + n]
    return result


def unused_ids(store: TokenStore, vocab_size: int) -> int:
    """How many of the model's ids never occur in train, neither as text nor as the end mark."""
    used = np.zeros(vocab_size, bool)
    used[np.unique(np.asarray(store.splits["train"].ids))] = True
    if store.tokenizer.end_id is not None:
        used[store.tokenizer.end_id] = True
    return int(vocab_size - used.sum())


def unigram(store: TokenStore) -> Tensor:
    """Log probability (V,) of each of the tokenizer's ids by frequency in train, each counted once more (Laplace)."""
    part = store.splits["train"]
    counts = np.bincount(np.asarray(part.ids, np.int64), minlength=store.tokenizer.vocab_size).astype(np.float64) + 1
    if store.corpus.unit == "line" and part.offsets is not None and store.tokenizer.end_id is not None:
        counts[store.tokenizer.end_id] += len(part.offsets) - 1
    return torch.from_numpy(np.log(counts / counts.sum()))


def label_frequencies(store: TokenStore) -> Tensor:
    """Log probability (n_labels,) of each label by frequency in train, each counted once more (Laplace)."""
    counts = np.bincount(store.splits["train"].labels, minlength=len(store.labels)) + 1.0  # type: ignore[arg-type]
    return torch.from_numpy(np.log(counts / counts.sum()))


def nats_by_frequency(log_probabilities: Tensor, batch: Batch) -> Tensor:
    """The loss (B, T) of every target by frequencies alone; 0 on padding."""
    losses_BT = -log_probabilities[batch.targets.clamp(min=0)]
    return losses_BT * (batch.targets != IGNORED)
