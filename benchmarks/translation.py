"""How many held-out pairs a translator gets right, and what that costs: some seeds, each alone on one thread.

    python -m benchmarks.translation large
    python -m benchmarks.translation small --set model.family=rnn
    python -m benchmarks.translation pronunciations --seeds 1

`large` and `small` are the bundled lists of Pig Latin, a fifth of the words held out; what follows the name is given to
`windtunnel train`. CPU seconds are those of the whole command, evaluations included, by seed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from typing import Any

from windtunnel.training.machine import description

CORPORA = {
    "large": ["pig-latin", "--set", "text.dev_fraction=0.2"],
    "small": ["pig-latin-small", "--set", "text.dev_fraction=0.2", "--steps", "1200", "--set", "train.batch_size=64"],
    "pronunciations": [
        *("pronunciations", "--steps", "6000", "--set", "text.tokenizer=bpe", "--set", "text.vocab_size=300"),
        *("--set", "model.context_length=70", "--set", "model.d_model=128", "--set", "model.d_ff=256"),
        *("--set", "optimizer.lr=0.002"),
    ],
}
SEEDS = 3
ENOUGH = 200
"""Words; slices of fewer are left out of the worst."""


def main() -> None:
    """Train the seeds one after the other, judge each on its dev split by slice, and print what came out as JSON."""
    match sys.argv[1:]:
        case [name, "--seeds", n_seeds, *more] if name in CORPORA:
            wanted = int(n_seeds)
        case [name, *more] if name in CORPORA:
            wanted = SEEDS
        case _:
            sys.exit(__doc__)
    words = ["train", *CORPORA[name], "--recipe", "translate", "--set", "train.threads=1", *more]
    with tempfile.TemporaryDirectory() as folder:
        seeds = [one_seed(words, seed, f"{folder}/{seed}") for seed in range(wanted)]
    reached = {"command": " ".join(["windtunnel", *words]), "seeds": seeds, "machine": description()}
    print(json.dumps(reached, indent=2))


def one_seed(words: list[str], seed: int, out: str) -> dict[str, Any]:
    """Train one seed, and judge it."""
    before = cpu_seconds()
    windtunnel(*words, "--set", f"seed={seed}", "--out", out)
    spent = cpu_seconds() - before
    found = windtunnel("evaluate", f"{out}/seed-{seed}", "--slices")["held_out"]
    large = [one for one in found["slices"] if one["n"] >= ENOUGH]
    return {
        "seed": seed,
        "cpu_seconds": round(spent, 1),
        "scores": found["scores"],
        "baselines": found["baselines"],
        "worst_slice": min(large, key=lambda one: one["exact"]["estimate"], default=None),
        "slices": found["slices"],
    }


def cpu_seconds() -> float:
    """Of all processes that this one has started and waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def windtunnel(*words: str) -> dict[str, Any]:
    """What a command prints with --json."""
    command = [sys.executable, "-m", "windtunnel", *words, "--json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


if __name__ == "__main__":
    main()
