"""The trace: for every token of the prompt and the continuation, how probable it was and what stood beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from windtunnel.errors import ConfigError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Ids, Place, beliefs, decode
from windtunnel.generation.prompt import end_mark, prompt_ids, token_text
from windtunnel.generation.sampling import Floats, SamplingConfig, best, log_softmax
from windtunnel.generation.weights import Weights, weights_of
from windtunnel.text.corpora import truth_of
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

T = TypeVar("T")
Truth = Callable[[list[int]], np.ndarray]
"""The true distribution (V,) of the token after these ids; zeros where they cannot have come about."""


class Alternative(NamedTuple):
    """A token that could have stood in a place. The probabilities are as in `TokenTrace`."""

    id: int
    text: str
    probability: float | None
    probability_1: float
    true_probability: float | None = None


@dataclass(frozen=True)
class TokenTrace:
    """One token, in the light of all tokens before it.

    The first token of a running text has nothing before it: its probabilities, rank and surprise are None.
    """

    id: int
    text: str
    probability: float | None
    """As sampled: after temperature, top_k and top_p. None for a token of the prompt, which was not sampled."""
    probability_1: float | None
    """At temperature 1, of all tokens: what the model believes."""
    rank: int | None
    """1 is the most probable token; equals share a rank."""
    surprise_bits: float | None
    """-log2 of the probability at temperature 1."""
    alternatives: tuple[Alternative, ...]
    """The most probable tokens of this place, the token itself among them if it is one of them."""
    true_probability: float | None = None
    """Where the source is known: what the probability should be."""
    total_variation: float | None = None
    """Half the summed absolute difference between belief (at temperature 1) and truth: 0 agrees, 1 is disjoint."""


@dataclass(frozen=True)
class Total:
    """The surprise of several tokens together, at temperature 1; 2^-bits is the probability of the sequence."""

    n_tokens: int
    bits: float
    perplexity: float


@dataclass(frozen=True)
class Trace:
    """A text with all its numbers, and how it came about."""

    tokens: tuple[TokenTrace, ...]
    n_prompt: int
    """The first n_prompt tokens are the prompt, the others were generated."""
    text: str
    """Prompt and continuation, without end marks."""
    sampling: SamplingConfig
    seed: int
    run: str
    step: int
    vocab_size: int
    context_length: int
    note: str
    """How the text begins and whether the context limit was passed, in a sentence or two."""
    weights: Weights = "fp32"
    """How the weights were stored: fp32 is as they were trained."""

    def total(self, part: str = "all") -> Total:
        """Bits and perplexity of "all", the "prompt" or the "continuation", over tokens that have a probability."""
        first, last = {"prompt": (0, self.n_prompt), "continuation": (self.n_prompt, None)}.get(part, (0, None))
        bits = [t.surprise_bits for t in self.tokens[first:last] if t.surprise_bits is not None]
        return Total(len(bits), math.fsum(bits), 2 ** (math.fsum(bits) / len(bits)) if bits else math.nan)

    def sampled_bits(self) -> float:
        """-log2 of the probability of the continuation as it was sampled, given the prompt."""
        return math.fsum(-math.log2(t.probability) for t in self.tokens if t.probability is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; totals whose perplexity is undefined are null."""
        totals = {part: self.total(part) for part in ("prompt", "continuation", "all")}
        data = {**asdict(self), "sampling": self.sampling.model_dump(mode="json")}
        for token in data["tokens"]:
            token["alternatives"] = [alternative._asdict() for alternative in token["alternatives"]]
        return {
            **data,
            "totals": {part: asdict(total) if total.n_tokens else None for part, total in totals.items()},
            "sampled_bits": self.sampled_bits(),
        }


def generate(
    trained: TrainedModel,
    prompt: str,
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    alternatives: int = 6,
    truth: Truth | None = None,
    steps: Steps | None = None,
) -> Iterator[TokenTrace]:
    """The tokens of the prompt, then those of the continuation as they are made, an end mark included.

    Args:
        alternatives: how many of the most probable tokens are given for each place.
        truth: the source's own distribution, where it is known.
        steps: the compiled steps of this model; None looks for one on disk.

    Raises:
        ConfigError: for a negative number of tokens or alternatives.
        DataError: for an empty prompt without an end mark to begin from, or a character without a token.
    """
    if n_tokens < 0 or alternatives < 0:
        raise ConfigError(f"tokens and alternatives cannot be negative, given {n_tokens} and {alternatives}")
    unit = trained.run.config.text.unit
    ids = prompt_ids(trained.tokenizer, unit, prompt)
    return _generate(trained, ids, n_tokens, sampling, seed, alternatives, truth, steps)


def _generate(
    trained: TrainedModel,
    ids: list[int],
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    alternatives: int,
    truth: Truth | None,
    steps: Steps | None,
) -> Iterator[TokenTrace]:
    model, tokenizer = trained.model, trained.tokenizer
    end = end_mark(tokenizer, trained.run.config.text.unit)
    if end is None:
        yield TokenTrace(ids[0], token_text(tokenizer, ids[0]), None, None, None, None, ())

    def places() -> Iterator[Place]:
        if len(ids) > 1:
            for i, logits_V in enumerate(beliefs(model, ids[:-1]), start=1):
                yield Place(ids[i], logits_V, None, truth(ids[:i]) if truth else None)
        known = list(ids)
        for new in decode(model, ids, n_tokens, sampling, seed, end, tokenizer.vocab_size, steps or Steps(model)):
            yield replace(new, true_V=truth(list(known))) if truth else new
            known.append(new.id)

    for some in together(places()):
        yield from describe(tokenizer, some, alternatives)


def together(items: Iterable[T], seconds: float = 0.02, most: int = 64) -> Iterator[list[T]]:
    """The items in lists, a list at once and then one every so many seconds, where no person notices the wait.

    Args:
        most: the longest list; the places of a long prompt come at once, and each holds a vocabulary of numbers.
    """
    waiting: list[T] = []
    last = -math.inf
    for item in items:
        waiting.append(item)
        if len(waiting) == most or time.perf_counter() - last >= seconds:
            yield waiting
            waiting, last = [], time.perf_counter()
    if waiting:
        yield waiting


def describe(tokenizer: Tokenizer, places: Sequence[Place], n_alternatives: int) -> Iterator[TokenTrace]:
    """Each token in the light of its place."""
    log_NV = log_softmax([place.logits_V for place in places])
    id_N1 = np.array([[place.id] for place in places])
    shown_NA = np.hstack((best(log_NV, n_alternatives), id_N1))  # the token itself comes last
    log_NA = np.take_along_axis(log_NV, shown_NA, axis=1)
    rank_N = 1 + (log_NV > log_NA[:, -1:]).sum(axis=1)
    for place, rank, log_V, id_A, log_A, p_A in zip(
        places, rank_N.tolist(), log_NV, shown_NA, log_NA.tolist(), np.exp(log_NA).tolist(), strict=True
    ):
        shown_A = id_A.tolist()
        true_V = place.true_V
        if true_V is not None:
            true_V = np.pad(true_V, (0, len(log_V) - len(true_V))) if true_V.any() else None
        texts = [token_text(tokenizer, id) for id in shown_A]
        sampled_A, true_A = at(place.probabilities_V, id_A), at(true_V, id_A)
        yield TokenTrace(
            id=place.id,
            text=texts[-1],
            probability=sampled_A[-1],
            probability_1=p_A[-1],
            rank=rank,
            surprise_bits=max(0.0, -log_A[-1] / math.log(2)),
            alternatives=tuple(map(Alternative, shown_A[:-1], texts, sampled_A, p_A, true_A)),
            true_probability=true_A[-1],
            total_variation=None if true_V is None else float(np.abs(np.exp(log_V) - true_V).sum() / 2),
        )


def at(values_V: Floats | None, id_A: Ids) -> list[float] | list[None]:
    """The values of some ids, if there are any."""
    return [None] * len(id_A) if values_V is None else values_V[id_A].tolist()


def trace(
    trained: TrainedModel,
    prompt: str,
    n_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    alternatives: int = 6,
    truth: Truth | None = None,
    steps: Steps | None = None,
) -> Trace:
    """`generate`, collected."""
    tokens = list(generate(trained, prompt, n_tokens, sampling, seed, alternatives, truth, steps))
    return as_trace(trained, tokens, sampling, seed)


def as_trace(trained: TrainedModel, tokens: Sequence[TokenTrace], sampling: SamplingConfig, seed: int) -> Trace:
    """The record of tokens that came out of `generate`."""
    config, tokenizer, folder = trained.run.config, trained.tokenizer, trained.run.folder.absolute()
    end = end_mark(tokenizer, config.text.unit)
    context = config.model.context_length
    begin = (
        "The first token has no probability: nothing stands before it."
        if end is None
        else "The text begins after an end mark, which is not shown."
    )
    n_read = len(tokens) + (end is not None) - 1
    slid = f" Past {context} tokens the model sees only the last {context}." if n_read > context else ""
    return Trace(
        tokens=tuple(tokens),
        n_prompt=sum(t.probability is None for t in tokens),
        text=tokenizer.decode([t.id for t in tokens if t.id != tokenizer.end_id]),
        sampling=sampling,
        seed=seed,
        run=f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed-") else folder.name,
        step=trained.step,
        vocab_size=config.model.vocab_size,
        context_length=context,
        note=begin + slid,
        weights=weights_of(trained.model),
    )


def corpus_truth(trained: TrainedModel) -> Truth | None:
    """The true next-token distribution of the run's corpus, where the corpus is one that knows it."""
    known = truth_of(trained.run.config.corpus, trained.run.config.text.unit)
    return (lambda ids: known.next_token(ids, trained.tokenizer)) if known else None
