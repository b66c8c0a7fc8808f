"""The corpus `python`: the source of the running interpreter's standard library, without its tests."""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from windtunnel.text.corpora.corpus import Corpus, Unit, reader

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def python_corpus(unit: Unit = "file") -> Corpus:
    """The .py files of the standard library, sorted by path, each a document."""

    def parts() -> Iterator[tuple[str]]:
        return ((text,) for path in library_files() if (text := _utf8(path)))

    version = platform.python_version()
    return Corpus(
        name="python",
        unit=unit,
        description=f"the source of Python {version}'s standard library, without its tests",
        licence="PSF-2.0",
        origin=f"the running interpreter ({platform.python_implementation()} {version})",
        read=reader(parts, unit),
    )


def library_files() -> list[Path]:
    """The .py files of the running interpreter's library in sorted order: no tests, no installed packages."""
    files: list[Path] = []
    for root, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        # _sysconfigdata* is a record of how one machine built the interpreter, not source.
        files += [Path(root, name) for name in names if name.endswith(".py") and "_sysconfigdata" not in name]
    return sorted(files)


def _utf8(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
