"""Texts, the answers that annotators gave, and how both are read from tables."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.text.corpora.corpus import Corpus
from windtunnel.text.corpora.tables import KINDS, cell, column_names, kind_of, require_columns, rows_of


@dataclass(frozen=True)
class Columns:
    """The columns of a table of texts.

    label: may be empty, or not there at all. id: where the column is not there, rows are numbered from 1.
    annotator: who gave the label; where the column is not there, all answers are those of one annotator.
    """

    text: str = "text"
    label: str = "label"
    id: str = "id"
    annotator: str = "annotator"


@dataclass(frozen=True)
class Example:
    """A text and its answers, the label by annotator."""

    id: str
    text: str
    answers: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The answer that more annotators gave than any other; None without answers, and for a draw."""
        counts = Counter(self.answers.values()).most_common(2)
        return None if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]) else counts[0][0]

    @property
    def disputed(self) -> bool:
        """Whether two annotators answered differently."""
        return len({*self.answers.values()}) > 1


def read_examples(path: Path, columns: Columns = Columns()) -> tuple[Example, ...]:
    """The texts of a .csv, .tsv or .jsonl table (or one of these as .gz), in their order.

    Rows with the same id are several annotators' answers to one text; then there is a column of annotators.

    Raises:
        DataError: not such a table, no column of texts, an empty text, an id that stands there twice.
    """
    _require(path, [columns.text])
    found: dict[str, Example] = {}
    for number, (where, row) in enumerate(_rows(path), start=1):
        text = cell(row, columns.text, where)
        if not text.strip():
            raise DataError(f"{where}: {columns.text} is empty, expected a text; fill it in or delete the line")
        id = cell(row, columns.id, where) if columns.id in row else str(number)
        before = found.get(id)
        if not id or (before and (before.text != text or columns.annotator not in row)):
            what = f"the id {id!r} stands there twice" if id else f"{columns.id} is empty"
            raise DataError(f"{where}: {what}; give every text an id of its own, or leave the column out")
        found[id] = replace(before or Example(id, text), answers={
            **(before.answers if before else {}), **_answer(row, columns, where)
        })  # fmt: skip
    if not found:
        raise DataError(f"{path} holds no texts; expected a row for each text below the header")
    return tuple(found.values())


def corpus_examples(corpus: Corpus) -> tuple[Example, ...]:
    """The documents of a corpus of texts and labels, numbered from 1.

    Raises:
        DataError: a corpus of anything else, or one that has not been fetched.
    """
    if corpus.fields != ("text", "label"):
        raise DataError(f"{corpus.name} has the fields {', '.join(corpus.fields)}, expected text and label; "
                        f"give a table, {', '.join(KINDS)}")  # fmt: skip
    found = (corpus.split(document) for document in corpus.read())
    return tuple(Example(str(n), text, {"": label}) for n, (text, label) in enumerate(found, start=1))


def add_answers(examples: Sequence[Example], path: Path, columns: Columns = Columns()) -> tuple[Example, ...]:
    """The same texts with the answers of a table of ids and labels; rows without a label are passed over.

    A later answer of the same annotator takes the place of an earlier one. Where the table has the texts, an answer
    must stand beside the text that has this id: ids that are row numbers move when rows do.

    Raises:
        DataError: not such a table, no column of ids or labels, an id that no text has, or that another text has.
    """
    _require(path, [columns.id, columns.label])
    found = {example.id: example for example in examples}
    for where, row in _rows(path):
        id = cell(row, columns.id, where)
        if id not in found:
            near = difflib.get_close_matches(id, found, n=1) if len(found) <= 10_000 else []
            hint = f"did you mean {near[0]!r}?" if near else f"ids look like {examples[0].id!r}"
            raise DataError(f"{where}: no text has the id {id!r}; {hint}")
        answer = _answer(row, columns, where)
        if answer and row.get(columns.text) is not None:
            _require_same(cell(row, columns.text, where), found[id], where)
        found[id] = replace(found[id], answers={**found[id].answers, **answer})
    return tuple(found.values())


def _require_same(text: str, example: Example, where: str) -> None:
    if text.split() != example.text.split():
        raise DataError(
            f"{where}: the id {example.id!r} is that of another text, {example.text[:40]!r}, here {text[:40]!r}; "
            "were rows added or moved? Give the table that the answers are for, and every text an id of its own"
        )


def _require(path: Path, wanted: list[str]) -> None:
    """Of JSONL, every row is asked for what it has; the first one does not speak for all."""
    if kind_of(path) not in KINDS:
        raise DataError(f"{path}: expected a table, {', '.join(KINDS)} or one of these as .gz")
    names = column_names(path)
    if kind_of(path) != ".jsonl" or not names:
        require_columns(path, names, wanted)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    return ((f"{path}, line {number}", row) for number, row in rows_of(path))


def _answer(row: Mapping[str, object], columns: Columns, where: str) -> dict[str, str]:
    label = cell(row, columns.label, where) if row.get(columns.label) is not None else ""
    who = cell(row, columns.annotator, where) if row.get(columns.annotator) is not None else ""
    return {who: label} if label else {}
