"""gpt-nano, trained on sentences that are examples by themselves (rows 001-1.2 and 001-2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from windtunnel.experiments.sentences import Floats, Ids
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.nn.init import stream
from windtunnel.nn.mode import evaluating
from windtunnel.tasks.cross_entropy import losses, training_loss_sum
from windtunnel.text.batches import IGNORED, Batch, collate
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.schedule import ScheduleConfig, learning_rate
from windtunnel.training.step import gradients, update

SIZE = 16
"""Sentences of a minibatch."""
OPTIMIZER, SCHEDULE = OptimizerConfig(lr=5e-3), ScheduleConfig(warmup=50)


def gpt_nano(vocab_size: int, context_length: int, seed: int) -> Transformer:
    """minGPT's gpt-nano, with random weights: 3 layers x 48, 3 heads, a head of its own, no dropout."""
    shape = {"n_layers": 3, "n_heads": 3, "d_model": 48, "tie_embeddings": False, "dropout": 0.0}
    return build(TransformerConfig(vocab_size=vocab_size, context_length=context_length, **shape), seed)


def as_batch(sentences: Sequence[Ids]) -> Batch:
    """Of each sentence all tokens but the last are read, all but the first predicted; padding is left out."""
    return collate([np.array(ids) for ids in sentences])


def train_on(model: Transformer, sentences: Sequence[Ids], steps: int, seed: int) -> Iterator[float]:
    """The loss of every step; its minibatch is drawn with replacement, and is a function of (seed, step)."""
    optimizer = build_optimizer(model.train(), OPTIMIZER)
    for step in range(steps):
        drawn = np.random.default_rng(stream(seed, "sentences", step)).integers(len(sentences), size=SIZE)
        rows = as_batch([sentences[i] for i in drawn])
        loss = gradients(lambda batch: training_loss_sum(model(batch.ids), batch.targets), rows, 1, seed, step)
        update(model, optimizer, learning_rate(step, steps, OPTIMIZER.lr, SCHEDULE), 1.0)
        yield loss
    model.eval()


def example_losses(model: Transformer, sentences: Sequence[Ids]) -> list[Floats]:
    """Nats of each predicted token of each sentence."""
    rows, found = as_batch(sentences), list[Floats]()
    at_once = max(1, 512 // rows.ids.shape[1])  # the logits of a large vocabulary weigh much
    with evaluating(model), torch.no_grad():
        for part in rows.split(-(-len(sentences) // at_once)):
            each, kept = losses(model(part.ids), part.targets), part.targets != IGNORED
            found += [own[mask].double().numpy() for own, mask in zip(each, kept, strict=True)]
    return found


def next_logits(model: Transformer, ids: Sequence[int]) -> Floats:
    """The logits (V,) of the token after some ids, as many as the context has."""
    with evaluating(model), torch.no_grad():
        return np.asarray(model(torch.tensor([ids]))[0, -1].double().numpy())
