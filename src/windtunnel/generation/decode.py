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
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from windtunnel.errors import ConfigError
from windtunnel.generation.compiled import Call, Steps
from windtunnel.generation.sampling import Floats, SamplingConfig, adjust, choose_each, uniform
from windtunnel.models import Model
from windtunnel.models.family import Selectable
from windtunnel.nn.cache import AnyCache, Cache

Ids = npt.NDArray[np.int64]
Finish = Literal["stop", "length"]
"""Why a text ends: at an end mark or a stop string, or because it has as many tokens as were asked for."""
TOKEN_BY_TOKEN = 2**24
"""Prompt tokens times weights. Up to it a compiled step reads the prompt token by token, beyond it one eager pass reads
it at once: faster arithmetic, but an overhead that dominates a short prompt of a small model. Measured with
benchmarks/decoding.py: 16 tokens at 4 x 128 take 1.1 ms by token and 1.7 ms at once."""


@dataclass(frozen=True)
class Position:
    """A token, and the next-token logits that were computed before it was chosen."""

    id: int
    logits_V: Floats
    """Of the token at this position, given all tokens before it, (V,)."""
    probabilities_V: Floats | None = None
    """What it was drawn from, (V,); None for a token of the prompt."""
    true_V: Floats | None = None
    """Where the source of the text is known: its own probabilities, (V,)."""
    piece: str = ""
    """What the token adds to the text."""
    finish: Finish | None = None
    """Why the text ends with this token; None where it goes on."""


def decode(
    model: Model,
    ids: Sequence[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    vocab_size: int | None = None,
    steps: Steps | None = None,
) -> Iterator[Position]:
    """Continue `ids` (at least one) by n_tokens tokens; the model must be in evaluation mode.

    Args:
        vocab_size: ids from here on are never drawn: a model may have more rows than its tokenizer has tokens.
        steps: the model's compiled steps; None computes every step eagerly.

    Raises:
        ConfigError: for a model without a causal mask, which cannot write.
    """
    for new_B, logits_BV, probabilities_BV in decode_many(model, ids, n_tokens, sampling, [seed], vocab_size, steps):
        yield Position(int(new_B[0]), logits_BV[0], probabilities_BV[0])


def decode_many(
    model: Model,
    ids: Sequence[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seeds: Sequence[int],
    vocab_size: int | None = None,
    steps: Steps | None = None,
) -> Iterator[tuple[Ids, Floats, Floats]]:
    """`decode` for several seeds at once: the new ids (B,), their logits and probabilities (B, V), token by token."""
    reader = Reader(model, len(ids) + n_tokens, steps)
    unread_BT = np.tile(np.array(ids, dtype=np.int64), (len(seeds), 1))
    for index in range(n_tokens):
        logits_BV = reader.read(unread_BT)
        probabilities_BV = adjust(forbid(logits_BV, vocab_size), sampling)
        if sampling.temperature:
            new_B = choose_each(probabilities_BV, np.array([uniform(seed, index) for seed in seeds]))
        else:
            new_B = probabilities_BV.argmax(axis=-1)
        yield new_B, logits_BV, probabilities_BV
        unread_BT = new_B[:, None]


class Reader:
    """Reads B rows of ids as they grow, and gives the logits of the token after each.

    It owns what makes that fast: the cache of keys and values, the compiled step (taken from disk at the start, or
    made once it will earn itself back), and one pass for rows that begin alike.

    Args:
        n_tokens: the most tokens that a row will have, with the last one, which is not read. A reader of longer rows
            is right but slow, as past the context limit. None is the model's context length.
        steps: the model's compiled steps; None computes every step eagerly.
        memory: what the model made of each row's source, if it reads pairs.

    Raises:
        ConfigError: for a model that reads pairs, without a memory, and for one that reads whole texts.
    """

    def __init__(
        self,
        model: Model,
        n_tokens: int | None = None,
        steps: Steps | None = None,
        memory: Selectable | None = None,
    ) -> None:
        if model.config.reads == "pair" and memory is None:
            raise ConfigError(
                f"this {model.config.family} writes the target of a source and continues no text; "
                'give it a source: windtunnel translate RUN "..."'
            )
        if model.config.reads == "text":
            raise ConfigError(
                f"this {model.config.family} reads whole texts and writes none; for the label of a text, where "
                'it was trained on labels: windtunnel classify RUN "..."'
            )
        if model.config.reads == "captioned":
            raise ConfigError(
                f"this {model.config.family} finds pictures by their captions and writes no text; give it a caption: "
                'windtunnel search RUN "..."'
            )
        self.model, self.steps, self.memory = model, steps or Steps(model, compile=False), memory
        self.n_tokens = model.config.context_length if n_tokens is None else n_tokens
        self.read_BT: Ids | None = None
        """The last context_length ids of each row; None before the first are read."""
        self.cache: AnyCache | None = None
        self.compiled: Call | None = None

    def read(self, ids_BT: Ids) -> Floats:
        """Read the ids that follow in each row; the logits (B, V) of the token after them, in float64.

        Raises:
            ConfigError: for a model without a causal mask, which cannot write.
        """
        context, length = self.model.config.context_length, ids_BT.shape[1]
        if self.read_BT is None:
            return self._begin(ids_BT)
        self.read_BT = np.concatenate([self.read_BT, ids_BT], axis=1)[:, -context:]
        if self.cache is not None and self.cache.length + length > min(self.n_tokens, context):
            self.cache = None
        if self.cache is None:
            return self._last(self.read_BT)
        if self.compiled is not None and (length == 1 or length <= self._longest_by_token()):
            return self._token_by_token(self.compiled, ids_BT, self.cache)
        begin = time.perf_counter()
        logits_BV = self._last(ids_BT, self.cache)
        if self.compiled is None:
            self._take_compiled((time.perf_counter() - begin) / length)
        return logits_BV

    def keep(self, rows_B: Sequence[int] | Ids) -> None:
        """Row i goes on as row rows_B[i] was, as a beam search needs it; there may be fewer rows or more."""
        if self.read_BT is None:
            raise ValueError("a reader has no rows to keep before the first read")
        n_rows, rows_B = len(self.read_BT), np.asarray(rows_B)
        self.read_BT = self.read_BT[rows_B]
        rows = torch.from_numpy(rows_B).to(self._device)
        if self.memory is not None:
            self.memory = self.memory.select(rows)
        if self.cache is not None:
            self.cache = self.cache.select(rows)
        if len(rows_B) != n_rows:
            self.compiled = None
            self._take_compiled(0.0)

    def next_logits(self, ids: Sequence[int]) -> Iterator[Floats]:
        """For each id of a text, the logits (V,) of the token after it, as `read` gives them: the window slides.

        It uses nothing that was read and changes nothing. A model without a causal mask is shown each prefix by
        itself; read at once, the text would give away its tokens.
        """
        config, ids_1T = self.model.config, np.array([ids])
        first = config.context_length if config.is_causal and config.reads != "context" else 1
        yield from as_floats(self._logits(ids_1T[:, :first])[0])
        for end in range(first + 1, len(ids) + 1):
            yield self._last(ids_1T[:, :end])[0]

    def _begin(self, ids_BT: Ids) -> Floats:
        """Read what the rows begin with: once, if it is the same in all of them."""
        n_rows, length = ids_BT.shape
        if self.memory is None and (ids_BT == ids_BT[:1]).all():
            ids_BT = ids_BT[:1]
        self.n_tokens = max(self.n_tokens, length)
        cache = self.cache = self.model.new_cache(len(ids_BT), self.steps.capacity(self.n_tokens))
        self.read_BT = ids_BT[:, -self.model.config.context_length :]
        if len(ids_BT) == n_rows and self.n_tokens - length > 1:
            self.compiled = self.steps.get(cache, 0.0)
        if self.compiled is None or cache is None or length > self._longest_by_token():
            logits_BV = self._last(ids_BT, cache)
        else:
            logits_BV = self._token_by_token(self.compiled, ids_BT, cache)
        if len(ids_BT) == n_rows:
            return logits_BV
        self.keep(np.zeros(n_rows, dtype=np.int64))
        return logits_BV.repeat(n_rows, axis=0)

    def _take_compiled(self, eager_seconds: float) -> None:
        """Take the compiled step of this cache if it is on disk, or if the steps to come, at `eager_seconds` each, are
        worth compiling one."""
        if self.cache is not None:
            to_come = min(self.n_tokens - 1, self.model.config.context_length) - self.cache.length
            self.compiled = self.steps.get(self.cache, to_come * eager_seconds) if to_come > 0 else None

    def _longest_by_token(self) -> int:
        """Up to how many tokens a compiled step reads one by one sooner than an eager pass reads them at once."""
        n_weights = sum(tensor.numel() for tensor in self.model.state_dict().values())
        return min(self.model.config.context_length, TOKEN_BY_TOKEN // n_weights)

    def _token_by_token(self, compiled: Call, ids_BT: Ids, cache: AnyCache) -> Floats:
        assert isinstance(cache, Cache)  # there is a compiled step for no other
        for ids_B in ids_BT.T:
            logits_BV = compiled(torch.from_numpy(ids_B[:, None].copy()), cache)
        return as_floats(logits_BV)

    def _last(self, ids_BT: Ids, cache: AnyCache | None = None) -> Floats:
        """The logits (B, V) of the last token of a forward pass on the last context_length ids of each row."""
        return as_floats(self._logits(ids_BT, cache)[:, -1])

    def _logits(self, ids_BT: Ids, cache: AnyCache | None = None) -> Tensor:
        ids = torch.tensor(ids_BT[:, -self.model.config.context_length :], device=self._device)
        given: dict[str, object] = {} if cache is None else {"cache": cache}
        if self.memory is not None:
            given["memory"] = self.memory
        with torch.no_grad():
            logits: Tensor = self.model(ids, **given)
        return logits

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def as_floats(logits: Tensor) -> Floats:
    """Logits as numpy has them, in float64."""
    return np.asarray(logits.cpu().double().numpy())


def forbid(logits_BV: Floats, vocab_size: int | None) -> Floats:
    """The logits (B, V) with those of all ids from vocab_size on at minus infinity."""
    if vocab_size is None or vocab_size >= logits_BV.shape[-1]:
        return logits_BV
    return np.where(np.arange(logits_BV.shape[-1]) < vocab_size, logits_BV, -np.inf)
