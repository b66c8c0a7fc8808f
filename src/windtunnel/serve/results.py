"""The comparisons and outcomes of experiments below a folder, and the files that belong to them and to runs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windtunnel.errors import ArtifactError
from windtunnel.files import read_file
from windtunnel.serve.index import Index, as_text, identity
from windtunnel.training.disk import read_manifest

SAVED = {"comparison.json": "comparison", "outcome.json": "outcome"}
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
}
LARGEST = 64 << 20
"""Bytes of a file that is shown."""


@dataclass(frozen=True)
class Result:
    """A folder with a comparison or an outcome, as its file was when it had this stamp."""

    folder: Path
    stamp: tuple[int, int]
    row: dict[str, Any]


class Results:
    """What was judged below a folder, by identity, the newest first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, Result] = {}

    def table(self) -> list[dict[str, Any]]:
        """A row a folder, with what its file says in short; of a damaged file what is wrong with it."""
        found: dict[str, Result] = {}
        for path, stamp in self._saved():
            folder = path.parent
            name = as_text(str(folder.relative_to(self.root)))
            id = identity(f"{SAVED[path.name]} {name}")
            known = self.known.get(id)
            found[id] = known if known and known.stamp == stamp else Result(folder, stamp, _row(id, name, path))
        self.known = found
        newest = sorted(found.values(), key=lambda one: -one.stamp[0])
        return [{**one.row, "files": entries(one.folder)} for one in newest]

    def _saved(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for depth in ("*", "*/*"):
            for name in SAVED:
                for path in self.root.glob(f"{depth}/{name}"):
                    try:
                        found = os.lstat(path)
                    except OSError:
                        continue
                    if stat.S_ISREG(found.st_mode):
                        yield path, (found.st_mtime_ns, found.st_size)

    def folder(self, id: str) -> Path | None:
        """The folder of an identity that the table gave."""
        if id not in self.known:
            self.table()
        return self.known[id].folder if id in self.known else None


def _row(id: str, name: str, path: Path) -> dict[str, Any]:
    kind = SAVED[path.name]
    row = {"id": id, "name": name, "kind": kind}
    try:
        data = json.loads(read_file(path, LARGEST))
        return {**row, **(_comparison(data) if kind == "comparison" else _outcome(data))}
    except (OSError, ArtifactError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {**row, "damaged": f"{path.name} cannot be read: {error}"[:500]}


def _comparison(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": str(data["corpus"]),
        "arms": [str(arm["name"]) for arm in data["arms"]],
        "verdicts": [{"word": str(j["verdict"]["word"]), "sentence": str(j["sentence"])} for j in data["judgements"]],
        "signature": str(data["signature"]),
    }


def _outcome(data: Mapping[str, Any]) -> dict[str, Any]:
    columns = ("id", "statement", "published", "measured", "verdict")
    return {
        "title": str(data["title"]),
        "what": str(data["what"]),
        "quick": bool(data["quick"]),
        "claims": [{name: str(claim[name]) for name in columns} for claim in data["claims"]],
        "signature": str(data["signature"]),
    }


def entries(folder: Path) -> list[str]:
    """The files of a result that may be shown: regular, of a known kind, and not those of anything below it."""
    try:
        with os.scandir(folder) as found:
            names = [one.name for one in found if one.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(name for name in names if Path(name).suffix in KINDS)


def artefact(index: Index, results: Results, id: str, entry: str) -> tuple[bytes, str]:
    """A file of a result, or one that a run's manifest lists, and its media type.

    Raises:
        ArtifactError: when the folder is not in the list, or does not have it.
    """
    folder = results.folder(id)
    if folder is not None:
        there = entries(folder)
    else:
        folder = index.run(id).folder
        there = sorted(read_manifest(folder)["files"])
    if entry not in there:
        raise ArtifactError(f"there is no file {entry[:80]!r} here; there are: {', '.join(there)}")
    kind = KINDS.get(Path(entry).suffix, "text/plain; charset=utf-8")
    try:
        return read_file(folder / entry, LARGEST), kind
    except OSError as error:
        raise ArtifactError(f"{entry} cannot be read ({error.strerror})") from None
