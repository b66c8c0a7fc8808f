"""Claim: a large file becomes a token store in bounded memory, and a second start does not tokenize again.

    python -m benchmarks.store_memory [--megabytes 1000] [--tokenizer characters]

Writes a file of random words (50,000 different ones, as often as in Zipf's law) into a temporary folder, and
prepares it twice, each time in a new process. Prints JSON: resident memory before, at its peak and
added (peak less before), and seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

LIMIT_MB = 500


def write_text(path: Path, megabytes: int, seed: int = 0) -> None:
    """A file of words of 1 to 12 letters, in sentences and lines; fresh words all the way through."""
    random = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    share = 1 / np.arange(3, 29)
    words = ["".join(random.choice(letters, n, p=share / share.sum())) for n in random.integers(1, 13, 50_000)]
    endings = [" "] * 16 + [", ", ". ", ".\n", ";\n"]
    table = np.array([[word + ending for ending in endings] for word in words], dtype=object)
    cumulative = np.cumsum(1 / np.arange(1, len(words) + 1))
    with path.open("w", encoding="ascii") as file:
        size = 0
        while size < megabytes * 10**6:
            rows = np.searchsorted(cumulative / cumulative[-1], random.random(100_000))
            size += file.write("".join(table[rows, random.integers(0, len(endings), 100_000)].tolist()))


def memory_mb(field: str, process: int | str = "self") -> float:
    """Resident memory of a process, by default this one, in MB (10**6 bytes): now ("VmRSS") or at its peak ("VmHWM").

    Linux keeps both for each program. `getrusage` would not do there: a child's ru_maxrss starts at that of
    the parent that forked it, which hides what the child adds below it. Elsewhere it is all there is (bytes).
    """
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def start(path: Path, cache: Path, tokenizer: str) -> None:
    """What the child process does: prepare the store, print what it took."""
    from windtunnel.text.corpora import open_corpus
    from windtunnel.text.store import TextConfig, prepare

    before, begin = memory_mb("VmRSS"), time.perf_counter()
    store = prepare(open_corpus(str(path), "text"), TextConfig(tokenizer=tokenizer), cache)
    seconds, after = time.perf_counter() - begin, memory_mb("VmHWM")
    result = {"before_mb": before, "peak_mb": after, "added_mb": after - before, "seconds": seconds}
    result["n_ids"] = sum(len(split.ids) for split in store.splits.values())
    print(json.dumps({key: round(value, 2) for key, value in result.items()}))


def in_child(path: Path, cache: Path, tokenizer: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.store_memory", "--child", str(path), str(cache)]
    done = subprocess.run([*command, "--tokenizer", tokenizer], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def measure(megabytes: int, tokenizer: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        write_text(path, megabytes)
        first, second = (in_child(path, Path(folder) / "cache", tokenizer) for _ in range(2))
        size = path.stat().st_size
    return {
        "claim": f"adds less than {LIMIT_MB} MB of resident memory; a second start does not tokenize again",
        "tokenizer": tokenizer,
        "file_mb": size / 1e6,
        "first_start": first,
        "second_start": second,
        "first_mb_per_second": round(size / 1e6 / first["seconds"], 1),
        "holds": first["added_mb"] < LIMIT_MB and second["added_mb"] < LIMIT_MB,
        "repeats": 1,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "tokenizers")},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--tokenizer", default="characters", choices=["bytes", "characters", "bpe", "gpt2"])
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        start(*given.child, given.tokenizer)
    else:
        print(json.dumps(measure(given.megabytes, given.tokenizer), indent=2))


if __name__ == "__main__":
    main()
