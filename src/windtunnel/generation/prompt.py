"""Where a text begins and ends for a model: the prompt as ids, and what each new id adds to the text.

corpus unit     the prompt is preceded by     generation stops at
line, file      the end mark                  the end mark, or a stop string of the request
text            nothing                       a stop string of the request

A model from elsewhere brings its own begin token and end ids; see opening.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate

from windtunnel.errors import DataError
from windtunnel.generation.decode import Finish
from windtunnel.text.tokenizers import Tokenizer


def prompt_ids(tokenizer: Tokenizer, unit: str, prompt: str) -> list[int]:
    """The ids that a model reads before it continues a prompt; documents begin with the end mark.

    Args:
        unit: that of the corpus the model was trained on: "line", "file" or "text".

    Raises:
        DataError: for a character without a token, or an empty prompt where no end mark can stand for it.
    """
    begin = [] if (end := end_mark(tokenizer, unit)) is None else [end]
    ids = begin + [int(i) for i in tokenizer.encode(prompt)]
    if not ids:
        raise DataError(
            "the prompt is empty, and a model of running text has no mark to begin from; give at least one character"
        )
    return ids


def end_mark(tokenizer: Tokenizer, unit: str) -> int | None:
    """The id that begins and ends a document; None for a model of running text."""
    return None if unit == "text" else tokenizer.end_id


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """How a token is shown to a person; a row of the model that no token uses is <unused 50300>."""
    return tokenizer.token(id) if id < tokenizer.vocab_size else f"<unused {id}>"


class Spelling:
    """Ids to text, one by one. Joined, what they add is what `decode` makes of all but marks and special tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.unshown = {*tokenizer.marks.values(), *tokenizer.specials.values()}
        self.ids: list[int] = []
        """Those that gave the last piece, since a tokenizer may space a token by the one before it, and those after."""
        self.n_spelled = 0
        """How many of `ids` have been turned into text."""
        self.spelled = ""
        """The text of those."""

    @property
    def is_inside_character(self) -> bool:
        """Whether the last ids are bytes of a character that may not be complete."""
        return len(self.ids) > self.n_spelled

    def add(self, id: int) -> str:
        """What a further id adds; a character whose bytes are spread over several ids comes with the last of them.

        Tokens that are bytes wait for the first that is none: one wrong byte makes U+FFFD of all of them.
        """
        if id in self.unshown:
            return ""
        self.ids.append(id)
        if id in self.tokenizer.byte_ids:
            return ""
        text = self.tokenizer.decode(self.ids)
        return "" if text.endswith("\ufffd") else self._piece(text)

    def rest(self) -> str:
        """The bytes that have not become a character, as U+FFFD."""
        return self._piece(self.tokenizer.decode(self.ids)) if self.is_inside_character else ""

    def _piece(self, text: str) -> str:
        piece = text[len(self.spelled) :]
        self.ids = self.ids[self.n_spelled :]
        self.n_spelled, self.spelled = len(self.ids), self.tokenizer.decode(self.ids)
        return piece


class Continuation:
    """The text that new tokens add to a prompt, up to its end: an end mark, a stop string, or the last token.

    Args:
        prompt_ids: what the model has read.
        ends: the ids of which any ends the text.
        n_tokens: how many tokens there are at most.
        stop: the text ends before the first of these that is completed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        ends: Collection[int],
        n_tokens: int,
        stop: Sequence[str] = (),
    ) -> None:
        self.spelling, self.ends, self.n_left, self.stop = Spelling(tokenizer), ends, n_tokens, stop
        self.prompt = [self.spelling.add(id) for id in prompt_ids]
        """What each token of the prompt adds to the text."""
        self.prompt[-1] += self.spelling.rest()
        self.finish: Finish | None = None if n_tokens else "length"
        """Why the text has ended; None while it goes on."""
        self.added = ""
        """The text after the prompt, as far as it is certain."""
        self.waiting: list[str] = []

    def add(self, id: int) -> list[str]:
        """Note a new token. Gives what tokens add to the text, in their order, each as soon as it is certain.

        A piece waits while it may be the beginning of a stop string, or its character lacks bytes.
        """
        self.n_left -= 1
        if id in self.ends:
            self._add_rest()
            self.waiting.append("")
            self.finish = "stop"
        else:
            self.waiting.append(self.spelling.add(id))
            if self.n_left == 0:
                self._add_rest()
                self.finish = "length"
        text = "".join(self.waiting)
        if (cut := first_stop(text, self.stop)) is not None:
            self.waiting, self.finish = list(cut_pieces(self.waiting, cut)), "stop"
        n_certain = len(self.waiting) if self.finish else self._n_certain(text)
        certain, self.waiting = self.waiting[:n_certain], self.waiting[n_certain:]
        self.added += "".join(certain)
        return certain

    def _add_rest(self) -> None:
        if rest := self.spelling.rest():
            self.waiting[-1] += rest

    def _n_certain(self, text: str) -> int:
        """How many of the waiting pieces end before anything that may be the beginning of a stop string."""
        certain = len(text) - longest_beginning(text, self.stop)
        ends = list(accumulate(len(piece) for piece in self.waiting))
        n_certain = sum(end <= certain for end in ends)
        return min(n_certain, len(ends) - self.spelling.is_inside_character)


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop string begins that is the first to be complete; of several that end there, the longest."""
    ends = [(begin + len(one), begin) for one in stop if (begin := text.find(one)) >= 0]
    return min(ends)[1] if ends else None


def longest_beginning(text: str, stop: Sequence[str]) -> int:
    """How many of the last characters of a text may be the beginning of a stop string, at most."""
    most = min(len(text), max(map(len, stop), default=1) - 1)
    return next((n for n in range(most, 0, -1) if any(one.startswith(text[-n:]) for one in stop)), 0)


def cut_pieces(pieces: Iterable[str], length: int) -> Iterator[str]:
    """The pieces without what is beyond the first `length` characters of all of them."""
    for piece in pieces:
        yield piece[: max(0, length)]
        length -= len(piece)
