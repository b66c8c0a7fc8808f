"""What a corpus is: texts, or pairs of texts, that can be read again and again, in one of three units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from windtunnel.text.pictures import Pictures
    from windtunnel.text.tokenizers import Tokenizer

from windtunnel.errors import DataError

Unit = Literal["text", "file", "line"]

Parts = Callable[[], Iterator[Iterable[str]]]
"""The texts (files) of a corpus, each as its consecutive chunks; a fresh pass each call."""


@dataclass(frozen=True)
class Truth:
    """What is known of a corpus that was drawn from known probabilities.

    floor: the lowest loss that any model can reach on average, in nats per token.
    next_token: the true distribution (vocab_size,) of the token after these ids.
    """

    floor: Callable[[Tokenizer], float]
    next_token: Callable[[Sequence[int] | np.ndarray, Tokenizer], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Judging:
    """What is known of a corpus of pairs that helps to judge what a model writes.

    token: what stands between the spaces of a target, such as phoneme; "" where targets need no such count.
    slices: what may be hard about a source, by name: whether it is, for a source.
    rule: the right target of any source; None where there is no rule.
    shortcuts: simpler rules than the right one, by name. A model that learned the rule does better.
    coarse: what of a target counts in a less strict score, by the name of that score.
    made: made-up sources of a slice that are in no split, as many as are asked for; None where there are none.
    """

    token: str = ""
    slices: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    rule: Callable[[str], str] | None = None
    shortcuts: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    coarse: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    made: Callable[[str], Iterator[str]] | None = None


@dataclass(frozen=True)
class Corpus:
    """Where text comes from, how it is divided, and under which licence.

    unit: `text` is one running text, `read` gives consecutive chunks of it, at most 2**20 characters each;
        `file` is many documents, `read` gives one at a time;
        `line` is one document a line, `read` gives lines without their newline, empty ones left out.
    read: a fresh pass over the corpus each call. It raises DataError when the text cannot be read.
    truth: None where nobody knows it.
    fields: what a document consists of. A document of several fields, such as ("source", "target"), ("text", "label")
        or ("picture", "caption"), is a line with one TAB between them; documents whose first fields are equal land in
        one split, or those whose field `group` is, or in the one that a field `split` names.
    judging: of a corpus of pairs, what helps to judge the answers.
    pictures: of a corpus of captions, what draws the picture that a first field names. The first document of a picture
        holds its main caption.
    guessed: of a table in several files the columns that were guessed, for a run to record; else None.
    parts, weights: of a mix, its corpora, and what share of the training tokens each gives; none of another corpus.
    """

    name: str
    unit: Unit
    description: str
    licence: str
    origin: str
    read: Callable[[], Iterator[str]]
    fields: tuple[str, ...] = ("text",)
    truth: Truth | None = None
    judging: Judging = Judging()
    pictures: Pictures | None = None
    guessed: Mapping[str, str] | None = None
    parts: tuple[Corpus, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def to_record(self) -> dict[str, dict[str, str]]:
        """The settings of its text that a run records as if they had been given: the columns that were guessed."""
        return {} if self.guessed is None else {"columns": dict(self.guessed)}

    def split(self, document: str) -> tuple[str, ...]:
        """The fields of a document, as many as `fields`.

        Raises:
            DataError: when the document has another number of them.
        """
        values = tuple(document.split("\t")) if len(self.fields) > 1 else (document,)
        if len(values) != len(self.fields):
            raise DataError(
                f"{self.name}: {document[:80]!r} has {len(values)} fields, expected {', '.join(self.fields)} with one "
                "TAB between them"
            )
        return values


def right_answers(corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """All different targets of each source of a corpus of two fields, in their order: each of them is right.

    Raises:
        DataError: when the corpus has another number of fields, or its text cannot be read.
    """
    if len(corpus.fields) != 2:
        raise DataError(f"{corpus.name} has the fields {', '.join(corpus.fields)}; expected a source and a target")
    answers: dict[str, dict[str, None]] = {}
    for document in corpus.read():
        source, target = corpus.split(document)
        answers.setdefault(source, {})[target] = None
    return {source: tuple(targets) for source, targets in answers.items()}


def join_fields(values: Mapping[str, str], where: str) -> str:
    """One document of several fields: their values with a TAB between them.

    Args:
        where: the file and line of the values, for the error.

    Raises:
        DataError: a value holds a TAB, a line break or half of a surrogate pair; the first value is empty.
    """
    for name, value in values.items():
        for character, called in (("\t", "a TAB"), ("\n", "a line break")):
            if character in value:
                raise DataError(
                    f"{where}: {name} holds {called}, which divides fields or documents here; replace it by a space"
                )
        check_utf8(value, name, where)
    first = next(iter(values))
    if not values[first]:
        raise DataError(f"{where}: {first} is empty, expected at least one character; fill it in or delete the line")
    return "\t".join(values.values())


def check_utf8(value: str, name: str, where: str) -> None:
    """Raises DataError when a value holds half of a surrogate pair, which JSON can say and UTF-8 cannot."""
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{where}: {name} holds half of a surrogate pair (\\ud800 to \\udfff); write it as UTF-8")


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
