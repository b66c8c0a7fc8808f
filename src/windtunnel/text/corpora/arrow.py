"""Rows of Parquet files and of folders that Hugging Face's `datasets` has saved, by pyarrow (extra `data`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windtunnel.errors import DataError, MissingExtra

STATE = "state.json"
"""What `Dataset.save_to_disk` writes beside the .arrow files, whose names it lists."""
PLAIN = (str, int, float, bool, type(None))


def is_dataset(path: Path) -> bool:
    """Whether a folder is a `datasets.Dataset` on disk.

    Raises:
        DataError: for a folder of several splits, each of which is one.
    """
    if (path / "dataset_dict.json").is_file():
        splits = sorted(split.name for split in path.iterdir() if (split / STATE).is_file())
        raise DataError(
            f"{path} holds several splits; give one of them: {', '.join(f'{path}/{name}' for name in splits)}"
        )
    return (path / STATE).is_file() and (path / "dataset_info.json").is_file()


def arrow_names(path: Path) -> list[str]:
    """The names of the columns of a Parquet file or a dataset's folder."""
    with _opened(path):
        schema, _ = next(_sources(path))
        return list(schema.names)


def arrow_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows, numbered from 1; a value that JSON has not, such as a date, as text.

    Args:
        columns: those that are read; None is all. A vector beside each text would take longer than the texts.

    Raises:
        DataError: when a file cannot be read.
    """
    number = 0
    with _opened(path):
        for schema, batches in _sources(path):
            wanted = [i for i, name in enumerate(schema.names) if columns is None or name in columns]
            for batch in batches:
                for row in batch.select(wanted).to_pylist():
                    number += 1
                    yield number, _plain(row)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if isinstance(value, PLAIN) else str(value)


def _sources(path: Path) -> Iterator[tuple[Any, Iterable[Any]]]:
    """The schema and the batches of rows of the Parquet file, or of each file of a dataset."""
    import pyarrow
    from pyarrow import ipc, parquet

    if path.is_file():
        table = parquet.ParquetFile(path)
        yield table.schema_arrow, table.iter_batches()  # `schema` names what lies inside lists, too
        return
    for file in _files(path):
        stream = ipc.open_stream(pyarrow.memory_map(str(file)))
        yield stream.schema, stream


def _files(folder: Path) -> list[Path]:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if any(state[key] for key in state if "indices" in key):
        raise DataError(f"{folder} is a selection of rows; save it with flatten_indices() first")
    return [folder / Path(one["filename"]).name for one in state["_data_files"]]


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """Raises MissingExtra without pyarrow, and DataError for what pyarrow cannot read."""
    try:
        from pyarrow import ArrowException
    except ImportError:
        raise MissingExtra("pyarrow", f"reading {path}") from None
    try:
        yield
    except (ArrowException, OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise DataError(f"{path}: cannot be read as Parquet or a dataset ({error})") from None
