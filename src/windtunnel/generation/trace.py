"""The trace: for every token of the prompt and the continuation, how probable it was, and its alternatives."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any, NamedTuple, TypeVar

import numpy as np

from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Finish, Ids, Position, Reader, decode
from windtunnel.generation.opening import Opening, opening
from windtunnel.generation.prompt import Continuation, token_text
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import Floats, SamplingConfig, best, log_softmax
from windtunnel.generation.weights import Weights, weights_of
from windtunnel.text.corpora import truth_of
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

T = TypeVar("T")
Truth = Callable[[list[int]], np.ndarray]
"""The true distribution (V,) of the token after these ids; zeros where they cannot have come about."""


class Alternative(NamedTuple):
    """A token that could have stood at a position. The probabilities are as in `TokenTrace`."""

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
    """The most probable tokens of this position, the token itself among them if it is one of them."""
    true_probability: float | None = None
    """Where the source is known: what the probability should be."""
    total_variation: float | None = None
    """Half the summed absolute difference between belief (at temperature 1) and truth: 0 agrees, 1 is disjoint."""
    piece: str = ""
    """What the token adds to the text: joined, the pieces are the text. A character whose bytes are spread over several
    tokens comes with the last of them; an end mark adds nothing, nor does a stop string."""
    finish: Finish | None = None
    """Why the text ends with this token; None where it goes on."""


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
    """Prompt and continuation, without end marks and without the stop string."""
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
    finish: Finish = "length"
    """Why the text ends: "stop" at an end mark or a stop string, "length" after the tokens that were asked for."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        total = self.total("continuation" if len(self.tokens) > self.n_prompt else "prompt")
        what = f"{total.n_tokens} tokens of {total.bits:.2f} bits, perplexity {total.perplexity:.2f}"
        return f"Trace({self.text!r}: {what})"

    def _repr_html_(self) -> str:
        """In a notebook: each token on the colour of its surprise; pointed at, its numbers and alternatives."""
        top = math.log2(max(2, self.vocab_size))
        spans = "".join(_span(token, top, index < self.n_prompt) for index, token in enumerate(self.tokens))
        total = self.total()
        said = f"{self.run}, step {self.step}: {total.n_tokens} tokens of {total.bits:.2f} bits; underlined: the prompt"
        text = f'<div style="font-family:monospace;line-height:2;overflow-wrap:anywhere">{spans}</div>'
        return f"{text}<small>{escape(said)}</small>"

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
            del token["finish"]  # the trace has it
            token["alternatives"] = [alternative._asdict() for alternative in token["alternatives"]]
        return {
            **data,
            "totals": {part: asdict(total) if total.n_tokens else None for part, total in totals.items()},
            "sampled_bits": self.sampled_bits(),
        }


def _span(token: TokenTrace, top: float, is_prompt: bool) -> str:
    """A token as HTML; `top` bits are the whole colour."""
    share = min(1.0, (token.surprise_bits or 0.0) / top)
    style = f"background:rgba(240,160,32,{share:.2f});white-space:pre{';text-decoration:underline' * is_prompt}"
    facts = "nothing stands before it"
    if token.probability_1 is not None:
        others = ", ".join(f"{other.text} {other.probability_1:.4f}" for other in token.alternatives)
        facts = f"p = {token.probability_1:.4g} at T = 1, rank {token.rank}, {token.surprise_bits:.2f} bits; {others}"
    after = "<br>" if token.text.endswith("⏎") else "<wbr>"
    return f'<span style="{style}" title="{escape(facts)}">{escape(token.text)}</span>{after}'


def generate(
    trained: TrainedModel,
    request: Request,
    truth: Truth | None = None,
    steps: Steps | None = None,
    begin: Opening | None = None,
) -> Iterator[TokenTrace]:
    """The tokens of the prompt, then those of the continuation as they are made.

    An end mark and the tokens of a stop string are among them; what they add to the text is nothing.

    Args:
        truth: the source's own distribution, where it is known.
        steps: the compiled steps of this model; None looks for one on disk.
        begin: the ids that are read in place of the prompt.

    Raises:
        DataError: for an empty prompt without an end mark to begin from, or a character without a token.
    """
    return _generate(trained, request, begin or opening(trained, request), truth, steps or Steps(trained.model))


def _generate(
    trained: TrainedModel, request: Request, begin: Opening, truth: Truth | None, steps: Steps
) -> Iterator[TokenTrace]:
    tokenizer, (ids, ends, is_marked) = trained.tokenizer, begin
    text = Continuation(tokenizer, ids, ends, request.n_tokens, request.stop)
    if not is_marked:
        yield TokenTrace(ids[0], token_text(tokenizer, ids[0]), None, None, None, None, (), piece=text.prompt[0])

    def positions() -> Iterator[Position]:
        if len(ids) > 1:
            for i, logits_V in enumerate(Reader(trained.model).next_logits(ids[:-1]), start=1):
                yield Position(ids[i], logits_V, None, truth(ids[:i]) if truth else None, text.prompt[i])
        known, waiting = list(ids), deque[Position]()
        for new in decode(
            trained.model, ids, request.n_tokens, request.sampling, request.seed, tokenizer.vocab_size, steps
        ):
            waiting.append(replace(new, true_V=truth(list(known))) if truth else new)
            known.append(new.id)
            for piece in text.add(new.id):
                position = waiting.popleft()
                yield replace(position, piece=piece, finish=None if waiting else text.finish)
            if text.finish:
                return

    for batch in chunked(positions()):
        yield from describe(tokenizer, batch, request.alternatives)


def chunked(items: Iterable[T], seconds: float = 0.02, most: int = 64) -> Iterator[list[T]]:
    """The items in lists: one at once, then one after every `seconds`, a wait that no person notices.

    Args:
        most: the longest list; the positions of a long prompt come at once, and each holds a vocabulary of numbers.
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


def describe(tokenizer: Tokenizer, positions: Sequence[Position], n_alternatives: int) -> Iterator[TokenTrace]:
    """Each token in the light of its position."""
    log_NV = log_softmax([position.logits_V for position in positions])
    id_N1 = np.array([[position.id] for position in positions])
    shown_NA = np.hstack((best(log_NV, n_alternatives), id_N1))  # the token itself comes last
    log_NA = np.take_along_axis(log_NV, shown_NA, axis=1)
    rank_N = 1 + (log_NV > log_NA[:, -1:]).sum(axis=1)
    for position, rank, log_V, id_A, log_A, p_A in zip(
        positions, rank_N.tolist(), log_NV, shown_NA, log_NA.tolist(), np.exp(log_NA).tolist(), strict=True
    ):
        shown_A = id_A.tolist()
        true_V = position.true_V
        if true_V is not None:
            true_V = np.pad(true_V, (0, len(log_V) - len(true_V))) if true_V.any() else None
        texts = [token_text(tokenizer, id) for id in shown_A]
        sampled_A, true_A = at(position.probabilities_V, id_A), at(true_V, id_A)
        yield TokenTrace(
            id=position.id,
            text=texts[-1],
            probability=sampled_A[-1],
            probability_1=p_A[-1],
            rank=rank,
            surprise_bits=max(0.0, -log_A[-1] / math.log(2)),
            alternatives=tuple(map(Alternative, shown_A[:-1], texts, sampled_A, p_A, true_A)),
            true_probability=true_A[-1],
            total_variation=None if true_V is None else float(np.abs(np.exp(log_V) - true_V).sum() / 2),
            piece=position.piece,
            finish=position.finish,
        )


def at(values_V: Floats | None, id_A: Ids) -> list[float] | list[None]:
    """The values at ids; None for each where there are no values."""
    return [None] * len(id_A) if values_V is None else values_V[id_A].tolist()


def trace(trained: TrainedModel, request: Request, truth: Truth | None = None, steps: Steps | None = None) -> Trace:
    """`generate`, collected."""
    return as_trace(trained, request, list(generate(trained, request, truth, steps)))


def as_trace(trained: TrainedModel, request: Request, tokens: Sequence[TokenTrace]) -> Trace:
    """The record of tokens that came out of `generate`."""
    config = trained.run.config
    marked = not tokens or tokens[0].surprise_bits is not None
    context = config.model.context_length
    begin = (
        "The text begins after an end mark, which is not shown."
        if marked
        else "The first token has no probability: nothing stands before it."
    )
    n_read = len(tokens) + marked - 1
    slid = f" Past {context} tokens the model sees only the last {context}." if n_read > context else ""
    return Trace(
        tokens=tuple(tokens),
        n_prompt=sum(t.probability is None for t in tokens),
        text="".join(t.piece for t in tokens),
        sampling=request.sampling,
        seed=request.seed,
        run=trained.run.name,
        step=trained.step,
        vocab_size=config.model.vocab_size,
        context_length=context,
        note=begin + slid,
        weights=weights_of(trained.model),
        finish=(tokens[-1].finish if tokens else None) or "length",
    )


def corpus_truth(trained: TrainedModel) -> Truth | None:
    """The true next-token distribution of the run's corpus, where the corpus is one that knows it."""
    known = truth_of(trained.run.config.corpus, trained.run.config.text.unit)
    return (lambda ids: known.next_token(ids, trained.tokenizer)) if known else None
