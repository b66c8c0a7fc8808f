"""Decoding: read the prompt once, then one token at a time.

The context limit. A model reads at most `context_length` tokens. Up to there the keys and values of earlier tokens
are kept in a cache, and a new token costs one position. Past it the window slides: the next token's distribution is
exactly a full forward pass on the last context_length tokens. No cache can serve there, since every token of the
window then stands at another position and above the first layer has seen other tokens; each new token costs a
whole window. An mlp has no cache at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.generation.compiled import Call, Steps
from windtunnel.generation.sampling import Floats, SamplingConfig, adjust, choose_each, uniform
from windtunnel.models import Model
from windtunnel.nn.cache import Cache

Ids = npt.NDArray[np.int64]
SOON = 2**24
"""Tokens times weights up to which a prompt is read token by token: the eager pass is then mostly overhead."""


@dataclass(frozen=True)
class Place:
    """A token in a text and what stood behind it."""

    id: int
    logits_V: Floats
    """What the model made of the tokens before it, (V,)."""
    probabilities_V: Floats | None = None
    """What it was drawn from, (V,); None for a token of the prompt."""
    true_V: Floats | None = None
    """Where the source of the text is known: its own probabilities, (V,)."""


def decode(
    model: Model,
    ids: Sequence[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    stop_id: int | None = None,
    vocab_size: int | None = None,
    steps: Steps | None = None,
) -> Iterator[Place]:
    """Continue `ids` (at least one) by up to n_tokens tokens; the model must be in evaluation mode.

    Args:
        stop_id: no further token after this one.
        vocab_size: ids from here on are never drawn: a model may have more rows than its tokenizer has tokens.
        steps: the model's compiled steps; None computes every step eagerly.
    """
    for new_B, logits_BV, probabilities_BV in decode_many(
        model, ids, n_tokens, sampling, [seed], stop_id, vocab_size, steps
    ):
        yield Place(int(new_B[0]), logits_BV[0], probabilities_BV[0])


def decode_many(
    model: Model,
    ids: Sequence[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seeds: Sequence[int],
    stop_id: int | None = None,
    vocab_size: int | None = None,
    steps: Steps | None = None,
) -> Iterator[tuple[Ids, Floats, Floats]]:
    """`decode` for several seeds at once: the new ids (B,), their logits and probabilities (B, V), token by token.

    What follows a row's stop_id is to be thrown away; the last step is that in which the last row meets its own.
    """
    steps, n_prompt = steps or Steps(model, compile=False), len(ids)
    read_BT = np.empty((len(seeds), n_prompt + n_tokens), dtype=np.int64)
    read_BT[:, :n_prompt] = ids
    going_B = np.ones(len(seeds), dtype=bool)
    cache = model.new_cache(len(seeds), steps.capacity(n_prompt + n_tokens))
    pace = Pace(steps, cache, n_tokens)
    for index in range(n_tokens):
        end = n_prompt + index
        logits_BV = (pace.first if index == 0 else pace.next)(model, read_BT[:, :end])
        logits_BV = logits_BV if len(logits_BV) == len(seeds) else logits_BV.repeat(len(seeds), axis=0)
        probabilities_BV = adjust(forbid(logits_BV, vocab_size), sampling)
        if sampling.temperature:
            read_BT[:, end] = choose_each(probabilities_BV, np.array([uniform(seed, index) for seed in seeds]))
        else:
            read_BT[:, end] = probabilities_BV.argmax(axis=-1)
        yield read_BT[:, end], logits_BV, probabilities_BV
        if stop_id is not None:
            going_B &= read_BT[:, end] != stop_id
            if not going_B.any():
                return


class Pace:
    """Eager steps, until a compiled one is there: on disk from the start, or made once it will earn itself back."""

    def __init__(self, steps: Steps, cache: Cache | None, n_tokens: int) -> None:
        self.steps, self.cache = steps, cache
        self.to_come = n_tokens - 1
        self.call: Call | None = steps.get(cache, 0.0) if n_tokens > 1 else None

    def first(self, model: Model, read_BT: Ids) -> Floats:
        """The logits (1, V) of the token after the prompt, which is the same in all rows."""
        call, cache = self.call, self.cache
        if call is None or cache is None or len(read_BT) > 1 or read_BT.shape[1] > longest_soon(model):
            return read_once(model, read_BT[:1], cache)
        for id in read_BT[0].tolist():
            logits_1V = call(torch.tensor([[id]]), cache)
        return as_floats(logits_1V)

    def next(self, model: Model, read_BT: Ids) -> Floats:
        """The logits (B, V) of the token after those read."""
        cache = self.cache
        if cache is None or cache.length >= model.config.context_length:
            return rows(model, read_BT)
        if self.call is None:
            begin = time.perf_counter()
            logits_BV = rows(model, read_BT[:, -1:], cache)
            self.to_come -= 1
            coming = min(self.to_come, model.config.context_length - cache.length)
            self.call = self.steps.get(cache, coming * (time.perf_counter() - begin))
            return logits_BV
        return as_floats(self.call(torch.from_numpy(read_BT[:, -1:].copy()), cache))


def longest_soon(model: Model) -> int:
    """How many tokens of a prompt a compiled step reads one by one sooner than an eager pass reads them at once."""
    n_weights = sum(tensor.numel() for tensor in model.state_dict().values())
    return min(model.config.context_length, SOON // n_weights)


def read_once(model: Model, read_1T: Ids, cache: Cache | None) -> Floats:
    """Read what all rows begin with, once; the logits (1, V) of the token after it."""
    if cache is None or cache.keys.shape[1] == 1:
        return rows(model, read_1T, cache)
    one = model.new_cache(1, cache.capacity)
    assert one is not None
    logits_1V = rows(model, read_1T, one)
    cache.keys.copy_(one.keys.expand_as(cache.keys))
    cache.values.copy_(one.values.expand_as(cache.values))
    cache.advance(one.length)
    return logits_1V


def beliefs(model: Model, ids: Sequence[int]) -> Iterator[Floats]:
    """For each id, the logits (V,) of the token after it, as `decode` would see them: the window slides.

    A model without a causal mask is shown each prefix by itself; read at once, the text would give away its tokens.
    """
    at_once = model.config.is_causal and not model.config.last_only
    first = model.config.context_length if at_once else 1
    yield from forward(model, ids[:first])
    for end in range(first + 1, len(ids) + 1):
        yield forward(model, ids[:end])[-1]


def forward(model: Model, ids: Sequence[int], cache: Cache | None = None) -> Floats:
    """The logits (T, V) of a forward pass on the last context_length ids, in float64."""
    return as_floats(_logits(model, np.array([ids]), cache)[0])


def rows(model: Model, read_BT: Ids, cache: Cache | None = None) -> Floats:
    """The logits (B, V) of the last token of a forward pass on the last context_length ids of each row, in float64."""
    return as_floats(_logits(model, read_BT, cache)[:, -1])


def _logits(model: Model, read_BT: Ids, cache: Cache | None) -> Tensor:
    ids_BT = torch.tensor(read_BT[:, -model.config.context_length :], device=device_of(model))
    with torch.no_grad():
        return model(ids_BT) if cache is None else model(ids_BT, cache)


def as_floats(logits: Tensor) -> Floats:
    """Logits as numpy has them, in float64."""
    return logits.float().cpu().numpy().astype(np.float64)


def forbid(logits_BV: Floats, vocab_size: int | None) -> Floats:
    """The logits (B, V) with those of all ids from vocab_size on at minus infinity."""
    if vocab_size is None or vocab_size >= logits_BV.shape[-1]:
        return logits_BV
    return np.where(np.arange(logits_BV.shape[-1]) < vocab_size, logits_BV, -np.inf)


def device_of(model: Model) -> torch.device:
    """Where the weights are."""
    return model.embedding.weight.device
