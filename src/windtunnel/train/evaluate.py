"""The loss on a split: over all of it unless a sample is asked for."""

from __future__ import annotations

import math

import torch
from torch import nn

from windtunnel.text.batches import examples, sweep
from windtunnel.text.store import TokenStore
from windtunnel.train.events import Evaluation
from windtunnel.train.objective import loss_sum

EVALUATION_TOKENS = 8192
"""How many tokens are evaluated at once."""


def evaluate(
    model: nn.Module,
    store: TokenStore,
    split: str,
    context_length: int,
    step: int,
    max_tokens: int | None = None,
) -> Evaluation:
    """Mean cross-entropy of a split in nats a token, and in bits a byte of its text; in the weights' own precision.

    Every token of the split is predicted once, from at most context_length tokens before it.

    Args:
        max_tokens: read only about this many tokens, a random sample that is always the same; the result then
            has whole = False, and its bits a byte assume that its tokens are as long as those of the whole split.

    Raises:
        DataError: when the split holds nothing to predict.
    """
    total, n_targets = 0.0, 0
    if store.corpus.unit != "line":
        context_length = max(1, min(context_length, len(store.splits[split].ids) - 1))
    was_training, device = model.training, next(model.parameters()).device
    rows = max(1, EVALUATION_TOKENS // context_length)
    model.eval()
    with torch.no_grad():
        for batch in sweep(examples(store, split, context_length), rows, max_tokens):
            there = batch.to(device)
            total += loss_sum(model(there.ids), there.targets).item()
            n_targets += batch.n_targets
    model.train(was_training)
    n_all = sum_of_targets(store, split)
    n_bytes = store.splits[split].n_bytes * n_targets / n_all
    bits_per_byte = total / n_bytes / math.log(2)
    return Evaluation(step, split, total / n_targets, bits_per_byte, n_targets, whole=n_targets == n_all)


def sum_of_targets(store: TokenStore, split: str) -> int:
    """How many tokens of a split are predicted: of running text all but the first, of a document also its end mark."""
    part = store.splits[split]
    if store.corpus.unit == "line" and part.offsets is not None:
        return len(part.ids) + len(part.offsets) - 1
    return len(part.ids) - 1
