"""What a corpus is: texts that can be read again and again, in one of three units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from windtunnel.text.tokenizers import Tokenizer

Unit = Literal["text", "file", "line"]

Parts = Callable[[], Iterator[Iterable[str]]]
"""The texts (files) of a corpus, each as its consecutive chunks; a fresh pass each call."""


@dataclass(frozen=True)
class Truth:
    """What is known of a corpus that was drawn from known probabilities.

    floor: the lowest loss that any model can reach on average, in nats a token.
    next_token: the true distribution (vocab_size,) of the token after these ids.
    """

    floor: Callable[[Tokenizer], float]
    next_token: Callable[[Sequence[int] | np.ndarray, Tokenizer], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Corpus:
    """Where text comes from, how it is divided, and under which licence.

    unit: `text` is one running text, `read` gives consecutive chunks of it, at most 2**20 characters each;
        `file` is many documents, `read` gives one at a time;
        `line` is one document a line, `read` gives lines without their newline, empty ones left out.
    read: a fresh pass over the corpus each call. It raises DataError when the text cannot be read.
    truth: None where nobody knows it.
    """

    name: str
    unit: Unit
    description: str
    licence: str
    origin: str
    read: Callable[[], Iterator[str]]
    truth: Truth | None = None


def reader(parts: Parts, unit: Unit) -> Callable[[], Iterator[str]]:
    """The `read` of a corpus made of `parts` in the given unit; empty documents are left out."""

    def read() -> Iterator[str]:
        if unit == "text":
            return chain.from_iterable(parts())
        if unit == "file":
            return (document for part in parts() if (document := "".join(part)))
        return (line for part in parts() for line in lines(part) if line)

    return read


def lines(chunks: Iterable[str]) -> Iterator[str]:
    r"""The lines of a text given in chunks, without `\n` or `\r\n`. Nothing else ends a line."""
    begun: list[str] = []  # parts of a line, joined once: a line may be longer than many chunks
    for chunk in chunks:
        first, *others = chunk.split("\n")
        begun.append(first)
        if others:
            yield "".join(begun).removesuffix("\r")
            *complete, last = others
            yield from (line.removesuffix("\r") for line in complete)
            begun = [last]
    yield "".join(begun).removesuffix("\r")
