"""Rows of Parquet files and of folders that Hugging Face's `datasets` has saved, by pyarrow (extra `data`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windtunnel.errors import DataError, MissingExtra

STATE = "state.json"
"""What `Dataset.save_to_disk` writes beside the .arrow files, whose names it lists."""
PLAIN = (str, int, float, bool, list, dict, type(None))


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
        return list(next(_sources(path)).schema.names)


def arrow_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows, numbered from 1; a value that JSON has not, such as a date, as text.

    Raises:
        DataError: when a file cannot be read.
    """
    number = 0
    with _opened(path):
        for source in _sources(path):
            for batch in source.iter_batches() if hasattr(source, "iter_batches") else source:
                for row in batch.to_pylist():
                    number += 1
                    yield (
                        number,
                        {name: value if isinstance(value, PLAIN) else str(value) for name, value in row.items()},
                    )


def _sources(path: Path) -> Iterator[Any]:
    """What has a schema and gives batches of rows: the Parquet file, or one stream for each file of a dataset."""
    import pyarrow
    from pyarrow import ipc, parquet

    if path.is_file():
        yield parquet.ParquetFile(path)
        return
    for file in _files(path):
        yield ipc.open_stream(pyarrow.memory_map(str(file)))


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
