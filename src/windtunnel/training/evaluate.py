"""The loss on a split: over all of it unless a sample is asked for."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from windtunnel.text.batches import IGNORED, examples
from windtunnel.text.store import TokenStore
from windtunnel.training import machine
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.events import Evaluation
from windtunnel.training.objective import loss_sum

EVALUATION_TOKENS = 8192
"""How many tokens are evaluated at once."""

BLOCK, MOST_BLOCKS = 512, 400
"""Running text has no documents: blocks of at least this many tokens, and at most so many blocks, stand for them."""


def evaluate(
    model: nn.Module,
    store: TokenStore,
    split: str,
    context_length: int,
    step: int,
    max_tokens: int | None = None,
    last_only: bool = False,
    ranks: Ranks = ALONE,
    precision: str = "fp32",
) -> Evaluation:
    """Mean cross-entropy of a split in nats a token, and in bits a byte of its text.

    Every token of the split is predicted once, from at most context_length tokens before it.

    Args:
        max_tokens: read only about this many tokens, a random sample that is always the same; the result then
            has whole = False, and its bits a byte assume that its tokens are as long as those of the whole split.
        last_only: for a model that predicts the token after exactly context_length ones.
        precision: bf16 runs the matrix products in bfloat16, which no loss of a whole split has been seen to change by
            more than 1e-4 nats (benchmarks/rounded_weights.py).

    Raises:
        DataError: when the split holds nothing to predict.
    """
    total, n_read = 0.0, 0
    context_length = shortened(store, split, context_length, last_only)
    was_training, device = model.training, next(model.parameters()).device
    rows = max(1, EVALUATION_TOKENS // context_length)
    model.eval()
    with torch.no_grad(), machine.autocast(precision):
        for batch in ranks.deal(examples(store, split, context_length, last_only).sweep(rows, max_tokens)):
            there = batch.to(device)
            total += loss_sum(model(**there.inputs), there.targets).item()
            n_read += batch.n_targets
    model.train(was_training)
    total, n_targets = ranks.sum(total, n_read)
    n_all = sum_of_targets(store, split)
    n_bytes = store.splits[split].n_bytes * n_targets / n_all
    bits_per_byte = total / n_bytes / math.log(2)
    return Evaluation(step, split, total / n_targets, bits_per_byte, int(n_targets), whole=n_targets == n_all)


def document_losses(
    model: nn.Module, store: TokenStore, split: str, context_length: int, last_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss in nats (D,), float64, and number of predicted tokens (D,), int64, of each document of a split.

    The documents of running text are blocks of it, long enough to be nearly independent. The sums over all documents
    are those of `evaluate`.
    """
    context_length = shortened(store, split, context_length, last_only)
    rows = max(1, EVALUATION_TOKENS // context_length)
    device, losses = next(model.parameters()).device, []
    with torch.no_grad():
        for batch in examples(store, split, context_length, last_only).sweep(rows):
            there = batch.to(device)
            logits_NV = model(**there.inputs).flatten(0, 1).float()
            each = F.cross_entropy(logits_NV, there.targets.flatten(), reduction="none", ignore_index=IGNORED)
            losses.append(each[there.targets.flatten() != IGNORED].double().cpu().numpy())
    starts, order = _documents(store, split)
    up_to = np.concatenate([[0.0], np.cumsum(np.concatenate(losses))])
    ends = np.append(starts[1:], len(up_to) - 1)
    return (up_to[ends] - up_to[starts])[order], (ends - starts)[order]


def shortened(store: TokenStore, split: str, context_length: int, last_only: bool = False) -> int:
    """The context length, but for running text that is too short for one window of it that of its only window."""
    if store.corpus.unit == "line" or last_only:
        return context_length
    return max(1, min(context_length, len(store.splits[split].ids) - 1))


def _documents(store: TokenStore, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Where each document begins among the predicted tokens as `sweep` goes through them, and the documents' order."""
    part, n = store.splits[split], sum_of_targets(store, split)
    if part.offsets is None:
        n_blocks = int(np.clip(n // BLOCK, 1, MOST_BLOCKS))
        return np.arange(n_blocks) * n // n_blocks, np.arange(n_blocks)
    if store.corpus.unit != "line":  # the first token of the first file is not predicted
        starts = np.maximum(part.offsets[:-1].view(np.ndarray) - 1, 0)
        return starts, np.arange(len(starts))
    lengths = np.diff(part.offsets.view(np.ndarray)) + 1
    swept = np.argsort(lengths, kind="stable")
    return np.cumsum(lengths[swept]) - lengths[swept], np.argsort(swept)


def sum_of_targets(store: TokenStore, split: str) -> int:
    """How many tokens of a split are predicted: of running text all but the first, of a document also its end mark."""
    part = store.splits[split]
    if store.corpus.unit == "line" and part.offsets is not None:
        return len(part.ids) + len(part.offsets) - 1
    return len(part.ids) - 1
