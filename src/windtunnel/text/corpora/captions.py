"""Folders of pictures with captions: those of a table, or else those that the names of the files are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.text.corpora.corpus import Corpus, check_utf8, join_fields
from windtunnel.text.corpora.picture_files import ENDINGS, PictureFiles
from windtunnel.text.corpora.tables import (
    CAPTIONED,
    KINDS,
    Table,
    column_names,
    find_table,
    guess_columns,
    kind_of,
)

NAMED = "captions"
"""The stem of the table that says the captions of a folder, where there are several tables."""


def is_picture(path: Path) -> bool:
    """Whether the ending of a file is that of a picture."""
    return path.suffix.lower() in ENDINGS


def caption_table(paths: Sequence[Path], folder: Path, columns: Mapping[str, str] | None) -> Table | None:
    """The table in a folder that says the captions of its pictures; None where there is none.

    It is `captions.csv` (.tsv, .jsonl, .parquet), or else the only table, where that has the columns.

    Args:
        paths: the files below the folder.
        columns: the column of each field, where they have other names.

    Raises:
        DataError: the table has other columns.
    """
    tables = [path for path in paths if path.parent == folder and kind_of(path) in KINDS]
    named = [path for path in tables if path.name.partition(".")[0] == NAMED]
    chosen = named or tables
    if len(chosen) != 1 or not any(map(is_picture, paths)):
        return None
    if columns is not None or is_captioned_table(chosen[0]):
        return find_table((chosen[0],), columns)
    if named:
        raise DataError(
            f"{chosen[0]}: expected the columns picture and caption, got {', '.join(column_names(chosen[0]))[:200]}; "
            "if they have other names: --column picture=NAME --column caption=NAME"
        )
    return None


def is_captioned_table(path: Path) -> bool:
    """Whether a file is a table with the columns picture and caption."""
    return kind_of(path) in KINDS and {*CAPTIONED} <= {*(guess_columns(column_names(path)) or ())}


def named_pictures(paths: Sequence[Path], folder: Path) -> Iterator[str]:
    """A document for each picture: its path below the folder, and the words of its name.

    Raises:
        DataError: a name holds a TAB or a line break, is no UTF-8, or has no words.
    """
    for path in paths:
        if is_picture(path):
            name, caption = path.relative_to(folder).as_posix(), words_of(path.stem)
            if not caption:
                raise DataError(f"{path}: its name says nothing, expected words; rename it, or write a {NAMED}.csv")
            try:
                check_utf8(name, "its name", str(path).encode(errors="replace").decode())
                yield join_fields({"picture": name, "caption": caption}, str(path))
            except DataError as error:
                raise DataError(f"{error}; rename the file") from None


def words_of(stem: str) -> str:
    """The words of a file's name without its ending: three fish coral for three_fish-coral."""
    return " ".join(re.sub(r"[_\-.\s]+", " ", stem).split())


def pictures_corpus(name: str, folder: Path, paths: Sequence[Path], table: Table | None, found: str) -> Corpus:
    """The captions of the pictures in a folder. paths: its files, for captions that are their names."""
    return Corpus(
        name=name,
        unit="line",
        description=f"{found}, with the captions of {table.files[0].name if table else 'their file names'}",
        licence="not stated (your own files)",
        origin=str((table.files[0] if table else folder).absolute()),
        read=table.documents if table else lambda: named_pictures(paths, folder),
        fields=tuple(table.columns) if table else ("picture", "caption"),
        pictures=PictureFiles(folder),
    )
