"""Texts that a model writes for clients: rows of one shape are read together, a token a turn.

Each text is a function of its prompt and its seed alone. That it shares a pass with others changes its logits by
rounding only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from windtunnel.errors import ConfigError
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import Finish, Reader, as_floats, forbid
from windtunnel.generation.opening import Opening, ends_of, opening
from windtunnel.generation.prompt import Continuation, Spelling
from windtunnel.generation.request import Request
from windtunnel.generation.sampling import Floats, adjust, best, choose, log_softmax, uniform
from windtunnel.models import Model
from windtunnel.text.tokenizers import Tokenizer
from windtunnel.training.run import TrainedModel

CHUNK = 64
"""Positions of a prompt whose probabilities are computed in one turn: each holds a vocabulary of numbers."""
MOST_LOGITS = 1 << 26
"""Logits of one pass over prompts whose probabilities are asked for: 256 MB."""
TAIL = 64
"""Tokens of a prompt that can tell how the next one is spelled: it may be spaced by the one before, or go on with its
bytes."""
LONGEST_SCORED = 4096
"""Tokens of a prompt whose probabilities are asked for, where the model's context is shorter: beyond the context each
costs a pass of its own."""


@dataclass(frozen=True)
class Scored:
    """A token with what the model believed of it, at temperature 1."""

    text: str
    """Unlike any other of its position."""
    offset: int
    """Where its text begins in the answer, in characters."""
    logprob: float | None
    """Its natural logarithm; None of a first token, which has nothing before it, and of what overflowed."""
    top: dict[str, float | None] | None
    """The most probable tokens of the position, and this one."""


@dataclass(frozen=True)
class Piece:
    """What became certain of a text in one turn."""

    choice: int
    text: str
    tokens: tuple[Scored, ...]
    """Only where logarithms were asked for."""
    n_new: int
    """How many tokens the model has written for it."""
    finish: Finish | None


Put = Callable[[Piece | Exception | None], None]
"""Where pieces go, an error that ended them all, and None once all have come. It is called in the worker's thread."""


@dataclass(eq=False)
class Writing:
    """What one client asks for: texts from several prompts, and several texts of each.

    n: how many texts of each prompt; they have the request's seed and those after it.
    logprobs: how many most probable tokens come with each token; None gives no logarithms.
    """

    model: str
    prompts: Sequence[str | list[int] | Opening]
    request: Request
    n: int = 1
    echo: bool = False
    logprobs: int | None = None
    put: Put = field(default=lambda _: None)
    cancelled: bool = False
    n_prompt: int = 0
    """Tokens of all prompts, once the first piece has come."""
    waiting: deque[Text] = field(default_factory=deque)
    n_active: int = 0
    is_prepared: bool = False

    def prepare(self, trained: TrainedModel) -> None:
        """Make its texts wait for their turn.

        Raises:
            ConfigError: for a prompt that is too long to be scored.
            DataError: for a prompt that the model's tokenizer cannot encode, or an id that it has not.
        """
        self.is_prepared = True
        for place, prompt in enumerate(self.prompts):
            begin = _opening(trained, self.request, prompt)
            self.n_prompt += len(begin.ids) - begin.is_marked
            longest = max(LONGEST_SCORED, trained.run.config.model.context_length)
            if self.is_scored and len(begin.ids) > longest:
                raise ConfigError(f"echo with logprobs takes at most {longest:,} tokens, given {len(begin.ids):,}")
            self.waiting.extend(Text(self, trained, begin, place * self.n + i, i) for i in range(self.n))

    @property
    def is_scored(self) -> bool:
        """Whether the probabilities of the prompt are asked for."""
        return self.echo and self.logprobs is not None


def _opening(trained: TrainedModel, request: Request, prompt: str | list[int] | Opening) -> Opening:
    if isinstance(prompt, Opening):
        return prompt
    if isinstance(prompt, str):
        return opening(trained, Request(prompt, request.n_tokens))
    trained.tokenizer.decode(prompt)  # an id that there is not is an error
    return Opening(prompt, ends_of(trained), False)


class Text:
    """One text: the prompt's ids, and what is drawn after them.

    Args:
        choice: its number in the answer.
        place: its number among the texts of the same prompt.
    """

    def __init__(self, writing: Writing, trained: TrainedModel, begin: Opening, choice: int, place: int) -> None:
        self.writing, self.trained, self.choice = writing, trained, choice
        self.ids, request = begin.ids, writing.request
        self.n_hidden = int(begin.is_marked)
        self.seed, self.sampling = request.seed + place, request.sampling
        tokenizer, tail = trained.tokenizer, begin.ids[-TAIL:]
        self.continuation = Continuation(tokenizer, tail, begin.ends, request.n_tokens, request.stop)
        self.spelling = Spelling(tokenizer)
        self.n_new, self.length, self.is_begun = 0, 0, False
        self.tokens: deque[Scored] = deque()
        self.echoed: list[str] = []
        config = trained.run.config.model
        n_tokens = min(len(begin.ids) + request.n_tokens, config.context_length)
        self.n_bytes = 4 * (n_tokens * config.cache_elements_per_token() + config.vocab_size)
        """What its keys and values take, and its logits."""

    @property
    def key(self) -> tuple[int, int, bool]:
        """Texts of equal keys can be read together."""
        return id(self.trained), len(self.ids), self.writing.is_scored

    @property
    def is_alive(self) -> bool:
        """Whether it is to have more tokens."""
        return not (self.continuation.finish or self.writing.cancelled)

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be handed on."""
        return self.writing.cancelled or (self.is_begun and not self.is_alive)

    def score(self, first: int, logits_NV: Floats) -> None:
        """Note the prompt's tokens from number `first` on, given the logits before each."""
        for place, (id, log_V) in enumerate(zip(self.ids[first:], log_softmax(logits_NV), strict=False), start=first):
            self._note(id, log_V)
            self._echo(place)

    def note_first(self) -> None:
        """A prompt that begins without a mark: its first token has no probability."""
        if not self.n_hidden:
            self._note(self.ids[0], None)
        self._echo(0)

    def _echo(self, place: int) -> None:
        piece = self.spelling.add(self.ids[place])
        if place == len(self.ids) - 1:
            piece += self.spelling.rest()
        self.echoed.append(piece)
        self.length += len(piece)

    def begin(self) -> None:
        """Hand on the prompt, where the client wants it back; a text of no tokens ends here."""
        self.is_begun = True
        if self.writing.echo and not self.writing.is_scored:
            shown = [id for id in self.ids if id not in self.spelling.unshown]
            self.echoed.append(self.trained.tokenizer.decode(shown))
            self.length += len(self.echoed[0])
        tokens, echoed = tuple(self.tokens), "".join(self.echoed)
        self.tokens.clear()
        if echoed or tokens or not self.is_alive:
            self._put(echoed, tokens)

    def take(self, logits_V: Floats) -> int:
        """Draw the next token, given the logits before it, and hand on what became certain of the text."""
        p_V = adjust(forbid(logits_V, self.trained.tokenizer.vocab_size), self.sampling)
        id = choose(p_V, uniform(self.seed, self.n_new)) if self.sampling.temperature else int(p_V.argmax())
        self.n_new += 1
        if self.writing.logprobs is not None:
            self._note(id, log_softmax(logits_V))
        pieces = self.continuation.add(id)
        if pieces:
            self._put("".join(pieces), tuple(self._placed(pieces)))
        return id

    def _note(self, id: int, log_V: Floats | None) -> None:
        names, k = Names(self.trained.tokenizer), self.writing.logprobs or 0
        if log_V is None:
            self.tokens.append(Scored(names.of(id), self.length, None, None))
        else:
            shown = best(log_V, k).tolist() if k else []
            top = {names.of(one): finite(log_V[one]) for one in [*shown, *([] if id in shown else [id])]}
            self.tokens.append(Scored(names.of(id), self.length, top[names.of(id)], top if k else None))

    def _placed(self, pieces: Sequence[str]) -> Iterator[Scored]:
        """The tokens of these pieces, each where its piece begins."""
        for piece in pieces:
            if self.writing.logprobs is not None:
                token = self.tokens.popleft()
                yield Scored(token.text, self.length, token.logprob, token.top)
            self.length += len(piece)

    def _put(self, text: str, tokens: tuple[Scored, ...]) -> None:
        self.writing.put(Piece(self.choice, text, tokens, self.n_new, self.continuation.finish))


class Names:
    """How the tokens of one position are named to a client: by their text, as far as that tells them apart."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: dict[str, int] = {}

    def of(self, id: int) -> str:
        """The text; bytes that are no character by themselves as `bytes:\\xe2`, what has no text of its own by id."""
        tokenizer = self.tokenizer
        text = tokenizer.decode([id]) if id < tokenizer.vocab_size else ""
        if "\ufffd" in text:
            text = f"bytes:{tokenizer.token(id)}"
        return text if text and self.ids.setdefault(text, id) == id else f"token_id:{id}"


def finite(value: float) -> float | None:
    """A number as JSON has it, which knows neither infinity nor NaN."""
    return float(value) if math.isfinite(value) else None


def written(trained: TrainedModel, texts: Sequence[Text]) -> Iterator[None]:
    """Write texts of equal keys together; each turn is a token of each, or a part of the prompts' probabilities.

    Raises:
        ConfigError: for a model that cannot write.
    """
    ids_BT = np.array([text.ids for text in texts], dtype=np.int64)
    most = max(text.continuation.n_left for text in texts)
    reader = Reader(trained.model, ids_BT.shape[1] + most, Steps(trained.model, compile=False))
    logits_BV = (yield from scored(reader, texts)) if texts[0].writing.is_scored else None
    for text in texts:
        text.begin()
    if not any(text.is_alive for text in texts):
        return
    if logits_BV is None or most > 1:
        logits_BV = reader.read(ids_BT)
    alive = list(texts)
    while True:
        drawn = [text.take(logits_V) if text.is_alive else 0 for text, logits_V in zip(alive, logits_BV, strict=True)]
        kept = [row for row, text in enumerate(alive) if text.is_alive]
        yield
        if not kept:
            return
        if len(kept) < len(alive):
            reader.keep(kept)
        alive, unread_BT = [alive[row] for row in kept], np.array([[drawn[row]] for row in kept], dtype=np.int64)
        logits_BV = reader.read(unread_BT)


def scored(reader: Reader, texts: Sequence[Text]) -> Generator[None, None, Floats]:
    """Note the probabilities of the prompts' tokens, in turns; gives the logits (B, V) after the prompts."""
    model, length = reader.model, len(texts[0].ids)
    for text in texts:
        text.note_first()
    if model.config.is_causal and model.config.reads != "context" and length <= model.config.context_length:
        return (yield from _scored_together(model, texts))
    last = []
    for text in texts:
        for place, logits_V in enumerate(reader.next_logits(text.ids), start=1):
            if text.writing.cancelled:
                break
            text.score(place, logits_V[None])
            yield
        last.append(logits_V)
    return np.stack(last)


def _scored_together(model: Model, texts: Sequence[Text]) -> Generator[None, None, Floats]:
    """`scored` for prompts within the context: in one pass, or several where their logits would take much memory."""
    ids_BT = torch.tensor([text.ids for text in texts], device=next(model.parameters()).device)
    n_rows, length = ids_BT.shape
    size = max(1, MOST_LOGITS // (n_rows * model.config.vocab_size))
    given = {} if length <= size else {"cache": model.new_cache(n_rows, length)}
    for first in range(0, length, size):
        with torch.no_grad():
            logits_BTV = model(ids_BT[:, first : first + size], **given)
        for text, logits_TV in zip(texts, logits_BTV, strict=True):
            for begin in range(0, len(logits_TV), CHUNK):
                if text.is_done:
                    break
                text.score(first + begin + 1, as_floats(logits_TV[begin : begin + CHUNK]))
                yield
    return as_floats(logits_BTV[:, -1])
