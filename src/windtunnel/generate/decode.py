"""Decoding: read the prompt once, then one token at a time.

The context limit. A model reads at most `context_length` tokens. Up to there the keys and values of earlier tokens
are kept in a cache, and a new token costs one position. Past it the window slides: the next token's distribution is
exactly a full forward pass on the last context_length tokens. No cache can serve there, since every token of the
window then stands at another position and above the first layer has seen other tokens; each new token costs a
whole window. An mlp has no cache at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from windtunnel.generate.sampling import Floats, SamplingConfig, adjust, choose, uniform
from windtunnel.models import Model
from windtunnel.nn.cache import Cache


@dataclass(frozen=True)
class Decoded:
    """One new token: its id, the logits (V,) of its position and the probabilities (V,) it was drawn from."""

    id: int
    logits_V: Floats
    probabilities_V: Floats


def decode(
    model: Model,
    ids: Sequence[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    stop_id: int | None = None,
    vocab_size: int | None = None,
) -> Iterator[Decoded]:
    """Continue `ids` (at least one) by up to n_tokens tokens; the model must be in evaluation mode.

    Args:
        stop_id: no further token after this one.
        vocab_size: ids from here on are never drawn: a model may have more rows than its tokenizer has tokens.
    """
    read = list(ids)
    cache = model.new_cache(1, min(model.config.context_length, len(read) + n_tokens))
    for index in range(n_tokens):
        logits_V = prefill(model, read, cache) if index == 0 else step(model, read, cache)
        probabilities_V = adjust(forbid(logits_V, vocab_size), sampling)
        new = choose(probabilities_V, uniform(seed, index))
        yield Decoded(new, logits_V, probabilities_V)
        if new == stop_id:
            return
        read.append(new)


def prefill(model: Model, ids: Sequence[int], cache: Cache | None) -> Floats:
    """Read the last context_length ids into an empty cache; the logits (V,) of the token after them."""
    return forward(model, ids, cache)[-1]


def step(model: Model, ids: Sequence[int], cache: Cache | None) -> Floats:
    """Read the last id after those in the cache, or without it when it is full; the logits (V,) of the next."""
    if cache is not None and cache.length < cache.capacity:
        return forward(model, ids[-1:], cache)[-1]
    return forward(model, ids)[-1]


def beliefs(model: Model, ids: Sequence[int]) -> Iterator[Floats]:
    """For each id, the logits (V,) of the token after it, as `decode` would see them: the window slides.

    A model without a causal mask is shown each prefix by itself; read at once, the text would give away its tokens.
    """
    at_once = model.config.causal and not model.config.last_only
    first = model.config.context_length if at_once else 1
    yield from forward(model, ids[:first])
    for end in range(first + 1, len(ids) + 1):
        yield forward(model, ids[:end])[-1]


def forward(model: Model, ids: Sequence[int], cache: Cache | None = None) -> Floats:
    """The logits (T, V) of a forward pass on the last context_length ids, in float64."""
    ids_1T = torch.tensor([ids[-model.config.context_length :]], device=device_of(model))
    with torch.no_grad():
        logits_1TV: Tensor = model(ids_1T) if cache is None else model(ids_1T, cache)
    return logits_1TV[0].double().cpu().numpy()


def forbid(logits_V: Floats, vocab_size: int | None) -> Floats:
    """The logits with those of all ids from vocab_size on at minus infinity."""
    if vocab_size is None or vocab_size >= len(logits_V):
        return logits_V
    return np.where(np.arange(len(logits_V)) < vocab_size, logits_V, -np.inf)


def device_of(model: Model) -> torch.device:
    """Where the weights are."""
    return model.embedding.weight.device
