"""A text in a model: each token's probability and alternatives, where it looks, and what each layer would say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt

from windtunnel.config import Config, plain
from windtunnel.errors import DataError
from windtunnel.generation.decode import Reader
from windtunnel.generation.opening import Opening, opening
from windtunnel.generation.prompt import token_text
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import SamplingConfig, adjust
from windtunnel.generation.trace import Trace, as_trace, corpus_truth, generate
from windtunnel.generation.translate import translate
from windtunnel.inspect.attention import attention
from windtunnel.inspect.lens import lens
from windtunnel.inspect.translation_attention import translation_attention
from windtunnel.models import as_transformer
from windtunnel.report.page import attention_data
from windtunnel.report.tables import surprise_share, totals_line
from windtunnel.report.translation import heads_data
from windtunnel.training.run import TrainedModel

MOST_WEIGHTS = 4_000_000
"""Attention weights in an answer: 8 MB, as `packed` writes them 11."""
MOST_LOGITS = 100_000_000
"""Logits of a lens: 400 MB."""
Text = Annotated[str, Field(max_length=20_000)]
Ids = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(max_length=4096)]


class Asked(Config):
    """A text in a run's model."""

    run: Annotated[str, Field(max_length=64)]
    text: Text
    ids: Ids | None = None
    """The tokens that are shown, in place of the text's: those up to an alternative, and it."""

    def opening(self, trained: TrainedModel) -> Opening:
        """What the model reads."""
        begin = opening(trained, Request(self.text, 0))
        if self.ids is None:
            return begin
        n_rows = trained.run.config.model.vocab_size
        if max(self.ids, default=0) >= n_rows:
            raise DataError(f"the model has {n_rows:,} tokens, given the id {max(self.ids)}")
        ids = [*begin.ids[: int(begin.is_marked)], *self.ids]
        if not ids:
            raise DataError("there are no tokens to look at; give at least one")
        return begin._replace(ids=ids)


class Look(Asked):
    """What the page asks of a run's model."""

    tokens: Annotated[int, Field(ge=0, le=300)] = 0
    """The worker makes them at a stretch, and others wait."""
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    alternatives: Annotated[int, Field(ge=0, le=50)] = 8

    def sampling(self) -> SamplingConfig:
        """How a token is drawn."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


class Again(Asked):
    """What the page asks of tokens that it shows: how probable they are at another temperature."""

    ids: Ids
    shown: Annotated[tuple[Ids, ...], Field(max_length=4096)]
    """The alternatives of each of them."""
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


def traced(trained: TrainedModel, asked: Look) -> dict[str, Any]:
    """The trace of a text and what it goes on with; of a run that translates, the target of each source."""
    if trained.model.config.reads == "pair":
        return translated(trained, asked)
    request = Request(asked.text, asked.tokens, asked.sampling(), asked.seed, asked.alternatives)
    tokens = generate(trained, request, corpus_truth(trained), begin=asked.opening(trained))
    trace = as_trace(trained, request, list(tokens))
    return {"kind": "trace", "totals_line": totals_line(trace), "shares": _shares(trace), **plain(trace.to_dict())}


def _shares(trace: Trace) -> list[float | None]:
    return [surprise_share(token, trace.vocab_size) for token in trace.tokens]


def again(trained: TrainedModel, asked: Again) -> dict[str, Any]:
    """The probability of each token, and of each of its alternatives, at a temperature."""
    begin, sampling = asked.opening(trained), SamplingConfig(temperature=asked.temperature)
    logits = iter(Reader(trained.model).next_logits(begin.ids[:-1]) if len(begin.ids) > 1 else ())
    found: list[dict[str, Any]] = [] if begin.is_marked else [{"own": None, "shown": []}]
    for id, logits_V in zip(begin.ids[1:], logits, strict=True):
        shown = asked.shown[len(found)] if len(found) < len(asked.shown) else ()
        if max(shown, default=0) >= len(logits_V):
            raise DataError(f"the model has {len(logits_V):,} tokens, given the id {max(shown)}")
        p_V = adjust(logits_V, sampling)
        found.append({"own": float(p_V[id]), "shown": p_V[list(shown)].tolist()})
    return {"temperature": asked.temperature, "tokens": found}


def attended(trained: TrainedModel, asked: Asked) -> dict[str, Any]:
    """The attention of every layer and head over a text's tokens.

    Raises:
        ConfigError: for a model without attention.
        DataError: for a text that is longer than the context, or has too many weights to send.
    """
    config, ids = as_transformer(trained.model, "attention").config, asked.opening(trained).ids
    n = config.n_layers * config.n_heads * len(ids) ** 2
    if n > MOST_WEIGHTS:
        raise DataError(
            f"the attention on {len(ids)} tokens is {n:,} weights, and at most {MOST_WEIGHTS:,} are shown; "
            "give a shorter text"
        )
    return attention_data(attention(trained.model, ids), _labels(trained, ids))


def guessed(trained: TrainedModel, asked: Asked) -> dict[str, Any]:
    """What the model would say if it ended before its first block, and after each: the most probable tokens of each
    position, and the probability of the token that stands there.

    Raises:
        ConfigError: for a model without blocks.
        DataError: for a text that is longer than the context, or has too many logits.
    """
    config, ids = as_transformer(trained.model, "the lens").config, asked.opening(trained).ids
    n = (config.n_layers + 1) * len(ids) * config.vocab_size
    if len(ids) > (most := config.context_length):
        raise DataError(f"the text has {len(ids)} tokens, the lens shows up to {most} (the model's context); cut it")
    if n > MOST_LOGITS:
        raise DataError(f"{len(ids)} tokens have {n:,} logits, the lens shows up to {MOST_LOGITS:,}; cut the text")
    p_LTV = lens(trained.model, ids).float().softmax(-1)
    best = p_LTV.topk(min(3, p_LTV.shape[-1]), dim=-1)
    next_T = torch.tensor([*ids[1:], 0], device=p_LTV.device)
    own_LT = p_LTV[:, torch.arange(len(ids)), next_T]
    return {
        "labels": _labels(trained, ids),
        "layers": [
            [
                {
                    "best": [[token_text(trained.tokenizer, id), p] for id, p in zip(ids_A, p_A, strict=True)],
                    "own": own if place + 1 < len(ids) else None,
                }
                for place, (ids_A, p_A, own) in enumerate(zip(ids_TA, p_TA, own_T, strict=True))
            ]
            for ids_TA, p_TA, own_T in zip(best.indices.tolist(), best.values.tolist(), own_LT.tolist(), strict=True)
        ],
    }


def _labels(trained: TrainedModel, ids: Sequence[int]) -> list[str]:
    return [token_text(trained.tokenizer, id) for id in ids]


def translated(trained: TrainedModel, asked: Look) -> dict[str, Any]:
    """The target of each source of a text, and the attention under which it was written."""
    seen = translation_attention(trained, translate(trained, asked.text), asked.alternatives)
    return {
        "kind": "translation",
        "run": trained.run.name,
        "step": trained.step,
        "pairs": [
            {
                "source": one.translated.source,
                "target": one.translated.target,
                "probability": one.translated.probability,
                "kinds": [heads_data(heads) for heads in one.kinds],
            }
            for one in seen
        ],
    }
