"""The answers of the API in the form that OpenAI's clients read."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any
from uuid import uuid4

from windtunnel.serve.writing import Piece, Scored, Writing

Answer = dict[str, Any]


class Form:
    """One request's answer, whole or in parts.

    The subclasses say how a choice looks. `seed` is what the same texts can be had with again.
    """

    kind = ""
    prefix = ""
    part_kind = ""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.about = {"id": f"{self.prefix}-{uuid4().hex}", "created": int(time.time()), "model": writing.model}

    def whole(self, index: int, pieces: list[Piece]) -> Answer:
        """A choice, given all of it."""
        raise NotImplementedError

    def part(self, piece: Piece, is_first: bool) -> Answer:
        """What a piece adds to its choice."""
        raise NotImplementedError

    async def collected(self, pieces: AsyncIterator[Piece]) -> Answer:
        """All choices at once."""
        of_choice: dict[int, list[Piece]] = {}
        async for piece in pieces:
            of_choice.setdefault(piece.choice, []).append(piece)
        choices = [self.whole(index, some) for index, some in sorted(of_choice.items())]
        counts = self.usage([some[-1] for some in of_choice.values()])
        return {**self.about, "object": self.kind, "choices": choices, "usage": counts, "seed": self._seed}

    async def parts(self, pieces: AsyncIterator[Piece], wants_usage: bool) -> AsyncIterator[Answer]:
        """A stream's chunks, one a piece, the last one with how many tokens it took, where that is wanted."""
        base = {**self.about, "object": self.part_kind, "seed": self._seed}
        nothing = {"usage": None} if wants_usage else {}
        last: dict[int, Piece] = {}
        async for piece in pieces:
            yield {**base, "choices": [self.part(piece, piece.choice not in last)], **nothing}
            last[piece.choice] = piece
        if wants_usage:
            yield {**base, "choices": [], "usage": self.usage(last.values())}

    def usage(self, last: Iterable[Piece]) -> Answer:
        """How many tokens were read and written, given the last piece of each choice."""
        n_new = sum(piece.n_new for piece in last)
        n_prompt = self.writing.n_prompt
        return {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new}

    @property
    def _seed(self) -> int:
        return self.writing.request.seed


class CompletionForm(Form):
    """Of /v1/completions."""

    kind = part_kind = "text_completion"
    prefix = "cmpl"

    def whole(self, index: int, pieces: list[Piece]) -> Answer:
        tokens = [token for piece in pieces for token in piece.tokens]
        return self._choice(index, "".join(piece.text for piece in pieces), tokens, pieces[-1])

    def part(self, piece: Piece, is_first: bool) -> Answer:
        return self._choice(piece.choice, piece.text, piece.tokens, piece)

    def _choice(self, index: int, text: str, tokens: Iterable[Scored], last: Piece) -> Answer:
        logprobs = None if self.writing.logprobs is None else {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [token.top for token in tokens] if self.writing.logprobs else None,
            "text_offset": [token.offset for token in tokens],
        }  # fmt: skip
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": last.finish}


class ChatForm(Form):
    """Of /v1/chat/completions."""

    kind, part_kind = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def whole(self, index: int, pieces: list[Piece]) -> Answer:
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        tokens = [token for piece in pieces for token in piece.tokens]
        return {**self._choice(index, tokens, pieces[-1]), "message": message}

    def part(self, piece: Piece, is_first: bool) -> Answer:
        role = {"role": "assistant"} if is_first else {}
        return {**self._choice(piece.choice, piece.tokens, piece), "delta": {**role, "content": piece.text}}

    def _choice(self, index: int, tokens: Iterable[Scored], last: Piece) -> Answer:
        logprobs = None if self.writing.logprobs is None else {"content": list(map(_in_chat, tokens)), "refusal": None}
        return {"index": index, "logprobs": logprobs, "finish_reason": last.finish}


def _in_chat(token: Scored) -> Answer:
    top = sorted((token.top or {}).items(), key=lambda one: -math.inf if one[1] is None else one[1], reverse=True)
    return {**_named(token.text, token.logprob), "top_logprobs": [_named(*one) for one in top]}


def _named(text: str, logprob: float | None) -> Answer:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def models(names: Iterable[tuple[str, int]]) -> Answer:
    """The list of models, given their names and when they were made, in seconds since 1970."""
    return {"object": "list", "data": list(_models(names))}


def _models(names: Iterable[tuple[str, int]]) -> Iterator[Answer]:
    for name, created in names:
        yield {"id": name, "object": "model", "created": created, "owned_by": "windtunnel"}
