"""Tables as corpora of one or several fields: TSV and CSV with a header, JSONL with an object a line; `.gz` too.
Parquet, and folders of Hugging Face's `datasets`, where pyarrow is installed.

TSV knows no quotes: a TAB divides columns, a line break rows. CSV is that of Python's `csv` with doubled quotes. Other
columns than those that are wanted may be there, and empty lines are passed over.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os.path import isfile  # unlike Path.is_file it is False for a name that no disk takes
from pathlib import Path
from typing import Literal

from windtunnel.errors import DataError
from windtunnel.text.corpora.arrow import arrow_names, arrow_rows
from windtunnel.text.corpora.corpus import check_utf8, join_fields, lines
from windtunnel.text.corpora.files import read_chunks

KINDS = (".tsv", ".csv", ".jsonl", ".parquet")
PAIR = {"source": "source", "target": "target"}
LABELLED = {"text": "text", "label": "label"}
CAPTIONED = {"picture": "picture", "caption": "caption"}
"""The columns that make a file a corpus of pairs, of texts and labels, or of captions, without being asked for."""
FIELDS_OF_CAPTIONS = ("picture", "caption", "split", "group")
"""In this order; a table may have the last two: the split of a caption, or what pictures land in one split."""
TEXTS = ("text", "content", "document", "body", "story")
"""The column that makes a table a corpus of texts without being asked for, where it has one of these alone."""


@dataclass(frozen=True)
class Table:
    """Files whose rows are documents, one after another. columns: each field's column, in the order of the fields."""

    files: tuple[Path, ...]
    columns: Mapping[str, str]

    def documents(self) -> Iterator[str]:
        """The documents, each its fields with a TAB between them; a fresh pass each call.

        Of a table of texts alone each is as it stands in its row; empty ones are left out.

        Raises:
            DataError: names the line of the first row that is not as the header says or cannot be a document.
        """
        if self.unit == "file":
            yield from self._texts()
            return
        read = _labelled if "label" in self.columns or "caption" in self.columns else _values
        for where, row in self._rows():
            values = read(row, self.columns, where)
            if "picture" in values and not isfile(picture := self.files[0].parent / values["picture"]):  # noqa: PTH113
                raise DataError(f"{where}: there is no picture {picture}; put it there, or delete the line")
            yield join_fields(values, where)

    def _rows(self) -> Iterator[tuple[str, dict[str, object]]]:
        for path in self.files:
            for number, row in rows_of(path, self.columns.values()):
                yield f"{path}, line {number}", row

    def _texts(self) -> Iterator[str]:
        name = self.columns["text"]
        for where, row in self._rows():
            if row.get(name, "") is None:
                continue  # a table's word for an empty text
            text = _value(row, name, where)
            check_utf8(text, name, where)
            if text:
                yield text

    @property
    def unit(self) -> Literal["line", "file"]:
        """What its documents are like: lines, or texts of any lines."""
        return "file" if list(self.columns) == ["text"] else "line"


def find_table(files: tuple[Path, ...], columns: Mapping[str, str] | None) -> Table | None:
    """The table in `files`, or None where they are plain text. Several are one where all are of one of the `KINDS`.

    Args:
        columns: the column of each field; None means `source` and `target`, or `text` and `label`, if it has both, or
            one of `TEXTS`.

    Raises:
        DataError: columns are asked for that are not there, or that stand there twice; of several files the first one
            that lacks them is named.
    """
    path, kinds = files[0], {kind_of(path) for path in files}
    if not path.is_dir() and (len(kinds) > 1 or not kinds <= {*KINDS}):
        if columns is not None:
            other = next(path for path in files if kind_of(path) not in KINDS or kind_of(path) != kind_of(files[-1]))
            raise DataError(
                f"columns are those of files of one kind, {', '.join(KINDS)} or one of these as .gz; got {other}; of a "
                "folder with others say which, as 'data/*.jsonl' in quotes"
            )
        return None
    names = column_names(path)
    wanted = columns or guess_columns(names)
    if wanted is None and is_arrow(path):
        raise DataError(f"{path}: which column holds the texts? It has {', '.join(names)}; say --column text=NAME")
    if wanted is None:
        return None
    for shard in files:
        require_columns(shard, names if shard == path else column_names(shard), wanted.values())
    if {*wanted} >= {*CAPTIONED}:
        wanted = {field: wanted[field] for field in FIELDS_OF_CAPTIONS if field in wanted}
    return Table(files, dict(wanted))


def guess_columns(names: Sequence[str]) -> Mapping[str, str] | None:
    """The column of each field that a table means by its names; None where that is not plain."""
    texts = [name for name in names if name in TEXTS]
    known = next((known for known in (PAIR, LABELLED, CAPTIONED) if {*known.values()} <= {*names}), None)
    if known is CAPTIONED:
        known = known | {name: name for name in FIELDS_OF_CAPTIONS[2:] if name in names}
    return known or ({"text": texts[0]} if len(texts) == 1 else None)


def require_columns(path: Path, names: Sequence[str], wanted: Collection[str]) -> None:
    """Raises DataError, which offers the nearest name, unless each of the wanted columns stands once among `names`."""
    missing = [name for name in wanted if name not in names]
    if missing:
        close = difflib.get_close_matches(missing[0], names, n=1)
        raise DataError(
            f"{path}: no column {missing[0]!r}; "
            + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)[:200] or 'no header'}")
        )
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}, line 1: the column {twice[0]!r} stands there twice; rename one of them")


ONE_LABEL = (
    "a text has one label here; give each label a column of its own that says yes or no, and train a classifier for "
    "each: --column text=NAME --column label=NAME"
)
"""What to do where a text has several labels."""


def kind_of(path: Path) -> str:
    """The ending that says how a file is written; that of x.csv.gz is .csv."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def is_arrow(path: Path) -> bool:
    """Whether pyarrow reads it: a Parquet file, or the folder of a dataset."""
    return kind_of(path) == ".parquet" or path.is_dir()


def rows_of(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows of a table, each with the number of its first line; of TSV and CSV every value is a string.

    Args:
        columns: those that are needed; where others cost time, they are left out. None is all.

    Raises:
        DataError: names the line of the first row that is not as the header says, or no object.
    """
    kind = kind_of(path)
    if is_arrow(path):
        return arrow_rows(path, columns)
    return _objects(path) if kind == ".jsonl" else _rows(path, kind)


def column_names(path: Path) -> list[str]:
    """The names of the columns; none when the beginning of the file (1 MiB) is no such table."""
    if is_arrow(path):
        return arrow_names(path)
    kind, beginning = kind_of(path), lines(islice(read_chunks(path), 1))
    try:
        if kind != ".jsonl":
            return [name.strip() for name in next(_cells(beginning, kind), (1, []))[1]]
        first = json.loads(next((line for line in beginning if line.strip()), ""))
    except (ValueError, RecursionError, csv.Error):
        return []
    return list(first) if isinstance(first, dict) else []


def _cells(rows: Iterator[str], kind: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty: its first line's number and its cells. Raises csv.Error."""
    if kind == ".tsv":
        yield from ((number, line.split("\t")) for number, line in enumerate(rows, start=1) if line)
        return
    reader = csv.reader((f"{line}\n" for line in rows), strict=True)
    begun = 1
    for cells in reader:
        if cells:
            yield begun, cells
        begun = reader.line_num + 1


def _rows(path: Path, kind: str) -> Iterator[tuple[int, dict[str, object]]]:
    last = 0
    names: list[str] = []
    try:
        for number, cells in _cells(lines(read_chunks(path)), kind):
            last = number
            if not names:
                names = [name.strip() for name in cells]
                continue
            if len(cells) != len(names):
                cure = "replace a TAB in a field by a space" if kind == ".tsv" else "put a field with a comma in quotes"
                expected = f"expected {len(names)} columns, as in the header"
                raise DataError(f"{path}, line {number}: {expected}, got {len(cells)}; {cure}")
            yield number, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, after line {last}: not CSV ({error}); see to its quotes") from None


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(lines(read_chunks(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: {line[:80]!r} is no object; expected {{...}} on each line")
        yield number, row


def cell(row: Mapping[str, object], name: str, where: str) -> str:
    """A cell without spaces around it; a number or true of JSONL as JSON writes it.

    Raises:
        DataError: there is no value, or it is a list or an object.
    """
    value = row.get(name)
    if value is None:
        raise DataError(f"{where}: no value for {name!r}; add it, or delete the line")
    if isinstance(value, dict | list):
        raise DataError(f"{where}: {name} is {json.dumps(value)[:80]}, expected a text or a number")
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _labelled(row: Mapping[str, object], columns: Mapping[str, str], where: str) -> dict[str, str]:
    """The fields of a row of text and label or of a caption, none empty; white space in them becomes one space."""
    label = row.get(columns.get("label", ""))
    if isinstance(label, list):
        raise DataError(f"{where}: {columns['label']} lists labels, {json.dumps(label)[:80]}, and {ONE_LABEL}")
    found = {field: " ".join(cell(row, name, where).split()) for field, name in columns.items()}
    if "picture" in columns:
        found["picture"] = cell(row, columns["picture"], where)  # a file's name may hold any spaces
    empty = next((field for field, value in found.items() if not value), None)
    if empty is not None:
        raise DataError(f"{where}: {columns[empty]} is empty, expected a {empty}; fill it in or delete the line")
    return found


def _values(row: Mapping[str, object], columns: Mapping[str, str], where: str) -> dict[str, str]:
    return {field: _value(row, name, where) for field, name in columns.items()}


def _value(row: Mapping[str, object], name: str, where: str) -> str:
    if name not in row:
        raise DataError(f"{where}: no field {name!r}; add it, or delete the line")
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {json.dumps(value)[:80]}, expected a string in quotes")
    return value
