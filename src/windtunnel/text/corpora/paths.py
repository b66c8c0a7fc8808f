"""Corpora that are the user's own files: one file, a folder, or a glob of UTF-8 text, or a table, `.gz` too."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from windtunnel.errors import DataError
from windtunnel.text.corpora.arrow import is_dataset
from windtunnel.text.corpora.captions import caption_table, is_picture, pictures_corpus
from windtunnel.text.corpora.corpus import Corpus, Unit, reader
from windtunnel.text.corpora.files import read_chunks, skipped_as
from windtunnel.text.corpora.picture_files import ENDINGS
from windtunnel.text.corpora.tables import CAPTIONED, Table, find_table, is_arrow, kind_of

REASONS = (
    "binary", "UTF-16", "git-LFS pointer", "hidden", "empty", "dead link", "folder read already", "pipe or device",
)  # fmt: skip


Walked = tuple[list[Path], Counter[str]]
"""The files below a folder, and the number of entries that were passed over, by the reason."""


@dataclass(frozen=True)
class Found:
    """The text files of a folder or glob in sorted order, or the folder of a dataset, and how many entries were
    passed over, by the reason. passed_over: Parquet files among text; where there is no text they are the files."""

    files: tuple[Path, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    passed_over: tuple[Path, ...] = ()

    def __str__(self) -> str:
        skipped = ", ".join(f"{self.skipped[reason]} {reason}" for reason in REASONS if self.skipped.get(reason))
        files = f"{len(self.files)} text file{'' if len(self.files) == 1 else 's'}"
        return f"{files} ({skipped} skipped)" if skipped else files


def is_path(text: str) -> bool:
    """Whether `text` names a file or folder that exists, or is a glob pattern."""
    return glob.has_magic(text) or exists(text)


def exists(text: str) -> bool:
    """Whether `text` names a file or folder that exists."""
    try:
        return bool(text) and expand(text).exists()
    except OSError:  # longer than a path can be, or below a folder that may not be entered
        return False


def expand(text: str) -> Path:
    """The path with a leading ~ replaced by the home folder, where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def path_corpus(given: str, unit: Unit | Literal["auto"] = "auto", columns: Mapping[str, str] | None = None) -> Corpus:
    """A corpus of the file, folder or glob `given`. Several tables of one kind are the shards of one, whose columns are
    recorded when they are guessed: asked for by `file` without columns, each is a document, as it was before.

    `auto` is `line` for a table (see `find_table`), `file` for one of texts alone, `text` for one other file and
    `file` for several. What was skipped is in the description.

    Raises:
        DataError: when there is no text file in it, the unit does not fit the number of files, or the columns are not
            there.
    """
    folder = expand(given)
    walked = _walk(folder) if folder.is_dir() and not is_dataset(folder) else None
    pictures = find_pictures(given, walked, columns) if walked else None
    if pictures and unit not in ("auto", "line"):
        raise DataError(f"{given} is pictures with captions, which are read by line; leave unit={unit} out")
    if pictures:
        return pictures
    found = find(given, walked)
    _check_parquet(given, found, unit)
    table = find_table(found.files, columns) if _may_be_table(found.files, unit) or columns else None
    if table and unit == "auto":
        unit = table.unit
    if table and unit != table.unit:
        if columns or unit != "line" or is_arrow(table.files[0]):
            raise DataError(
                f"{given}: columns are read by {table.unit}, and unit={unit} was asked for; leave one of them out"
            )
        table = None  # lines of a table, as before it was one of texts
    if table and "picture" in table.columns:
        if {path.parent for path in table.files} != {table.files[0].parent}:
            raise DataError(f"{given}: tables of captions in several folders; move them to one, or give one of them")
        return pictures_corpus(expand(given).absolute().name, table.files[0].parent, [], table, "pictures")
    if unit == "auto":
        unit = "text" if len(found.files) == 1 else "file"
    if unit == "text" and len(found.files) > 1:
        raise DataError(
            f"{given} holds {len(found.files)} files, and the unit text is one running text; "
            "use unit=file (each file a document) or unit=line (each line a document)"
        )
    if unit == "file" and len(found.files) == 1 and not table:
        raise DataError(
            f"{given} is a single file, and one document cannot be split into train, dev and test; "
            "use unit=text (split by position) or unit=line (each line a document)"
        )

    def parts() -> Iterator[Iterable[str]]:
        return (read_chunks(path) for path in found.files)

    return Corpus(
        name=expand(given).absolute().name or given,
        unit=unit,
        description=_described(table) if table else str(found),
        licence="not stated (your own files)",
        origin=str(expand(given).absolute()),
        read=table.documents if table else reader(parts, unit),
        fields=tuple(table.columns) if table else ("text",),
        guessed=table.columns if table and len(table.files) > 1 and not columns else None,
    )


def find_pictures(given: str, walked: Walked, columns: Mapping[str, str] | None) -> Corpus | None:
    """The corpus of a folder that holds pictures and captions, or pictures and no text.

    Args:
        walked: what `_walk` found below it.

    Raises:
        DataError: a table named captions has other columns.
    """
    path = expand(given)
    name = path.absolute().name or given
    if columns is not None and not {*CAPTIONED} <= {*columns}:
        return None
    paths, skipped = walked
    n_pictures = sum(map(is_picture, paths))
    table = caption_table(paths, path, columns)
    if not table and not (n_pictures and all(is_picture(one) or _skipped_as(one) for one in paths)):
        return None
    hidden = f" ({skipped['hidden']} hidden skipped)" if skipped["hidden"] else ""
    return pictures_corpus(name, path, paths, table, f"{n_pictures} picture{'' if n_pictures == 1 else 's'}{hidden}")


def pictures_in(folder: Path) -> list[str]:
    """The pictures below a folder, by their names' endings, as paths that begin there, in order.

    Raises:
        DataError: when there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with pictures ({', '.join(ENDINGS)})")
    paths, _ = _walk(folder)
    if not (found := [path.relative_to(folder).as_posix() for path in paths if is_picture(path)]):
        raise DataError(f"{folder} holds no pictures; expected files that end in {', '.join(ENDINGS)}")
    return found


def _described(table: Table) -> str:
    files = f" in {len(table.files)} files" if len(table.files) > 1 else ""
    return f"a table of {', '.join(_named(*one) for one in table.columns.items())}{files}"


def _check_parquet(given: str, found: Found, unit: str) -> None:
    """Raises DataError for a folder whose Parquet files would be passed over, such as that of a data set with a README;
    a run that recorded its unit read it so."""
    if found.passed_over and unit == "auto":
        raise DataError(
            f"{given} holds {len(found.passed_over)} Parquet files and {len(found.files)} text files such as "
            f"{found.files[0].name}; say which are the corpus, in quotes: '{found.passed_over[0].parent}/*.parquet'"
        )


def _named(field: str, column: str) -> str:
    return field if field == column else f"{field} (column {column})"


def _may_be_table(files: tuple[Path, ...], unit: str) -> bool:
    """One file of running text is none, where it is asked for; several are documents, where their unit is."""
    return is_arrow(files[0]) or (unit != "text" if len(files) == 1 else unit == "auto")


def find(given: str, walked: Walked | None) -> Found:
    """The text files that `given` stands for.

    Args:
        walked: what `_walk` found below it, where it is a folder and no dataset.

    Raises:
        DataError: when there are none.
    """
    path = expand(given)
    if walked:
        found = _sort_out(*walked)
    elif path.is_file() or path.is_dir():
        return Found((path,))
    elif path.exists():
        raise DataError(f"{given} is neither a file nor a folder, and it must be readable more than once")
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207, the pattern may be absolute
        found = _sort_out([match for text in matches if not (match := Path(text)).is_dir()], Counter())
    if not found.files:
        raise DataError(f"{given}: {found}; expected at least one file of UTF-8 text")
    return found


def _walk(folder: Path) -> Walked:
    """All files below a folder that are not hidden, linked folders with them, and the number of what was left out."""
    paths: list[Path] = []
    skipped: Counter[str] = Counter()
    read = {folder.resolve()}

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None

    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        skipped["hidden"] += sum(name.startswith(".") for name in [*folders, *names])
        shown = [Path(root, name) for name in sorted(folders) if not name.startswith(".")]
        folders.clear()
        for path in shown:
            if path.resolve() in read:
                skipped["folder read already"] += 1
            else:
                folders.append(path.name)
                read.add(path.resolve())
        paths += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(paths), skipped


def _sort_out(paths: Iterable[Path], skipped: Counter[str]) -> Found:
    files, parquet = [], []
    for path in paths:
        reason = _skipped_as(path)
        if reason == "binary" and kind_of(path) == ".parquet":
            parquet.append(path)
        elif reason:
            skipped[reason] += 1
        else:
            files.append(path)
    if not files:
        return Found(tuple(parquet), skipped)
    skipped["binary"] += len(parquet)
    return Found(tuple(files), skipped, tuple(parquet))


def _skipped_as(path: Path) -> str | None:
    if not path.is_file():
        return "dead link" if path.is_symlink() and not path.exists() else "pipe or device"
    return "empty" if path.stat().st_size == 0 else skipped_as(path)
