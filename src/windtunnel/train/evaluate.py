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
        max_tokens: read only about this many tokens from the beginning; the result then has whole = False.
    """
    total, n_targets, whole = 0.0, 0, True
    was_training, device = model.training, next(model.parameters()).device
    rows = max(1, EVALUATION_TOKENS // context_length)
    model.eval()
    with torch.no_grad():
        for batch in sweep(examples(store, split, context_length), rows):
            if max_tokens is not None and n_targets >= max_tokens:
                whole = False
                break
            there = batch.to(device)
            total += loss_sum(model(there.ids), there.targets).item()
            n_targets += batch.n_targets
    model.train(was_training)
    n_all = sum_of_targets(store, split)
    n_bytes = store.splits[split].n_bytes * n_targets / n_all
    return Evaluation(step, split, total / n_targets, total / n_bytes / math.log(2), n_targets, whole)


def sum_of_targets(store: TokenStore, split: str) -> int:
    """How many tokens of a split are predicted: of running text all but the first, of a document also its end mark."""
    part = store.splits[split]
    if store.corpus.unit == "line" and part.offsets is not None:
        return len(part.ids) + len(part.offsets) - 1
    return len(part.ids) - 1
