"""What a corpus is: texts that can be read again and again, in one of three units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

Unit = Literal["text", "file", "line"]

Parts = Callable[[], Iterator[Iterable[str]]]
"""The texts (files) of a corpus, each as its consecutive chunks; a fresh pass each call."""


@dataclass(frozen=True)
class Corpus:
    """Where text comes from, how it is divided, and under which licence.

    unit: `text` is one running text, `read` gives consecutive chunks of it, at most 2**20 characters each;
        `file` is many documents, `read` gives one at a time;
        `line` is one document a line, `read` gives lines without their newline, empty ones left out.
    read: a fresh pass over the corpus each call. It raises DataError when the text cannot be read.
    """

    name: str
    unit: Unit
    description: str
    licence: str
    origin: str
    read: Callable[[], Iterator[str]]


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
