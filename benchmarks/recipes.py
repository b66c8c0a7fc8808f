"""What the recipes reach: dev loss over seeds with its interval, and the wall time of the whole command.

    python -m benchmarks.recipes names
    python -m benchmarks.recipes tinyshakespeare PATH/TO/tinyshakespeare.txt
    python -m benchmarks.recipes nanogpt PATH/TO/tinyshakespeare.txt

`nanogpt` is nanoGPT's recipe for a CPU, on its own split (90 % train, 10 % dev); `tinyshakespeare` is the same with
rotary positions, our recipe `small`. The dev loss is of the whole split; nanoGPT's README gives 1.88, estimated on 20
random batches.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

from windtunnel.training.machine import description


def command(words: list[str]) -> list[str]:
    """The windtunnel command of a claim."""
    match words:
        case ["names"]:
            return ["train", "names", "--seeds", "4"]
        case ["tinyshakespeare" | "nanogpt" as name, path]:
            settings = ["text.dev_fraction=0.1", "text.test_fraction=0"]
            settings += ["model.position=learned"] if name == "nanogpt" else []
            assignments = [word for setting in settings for word in ("--set", setting)]
            return ["train", path, "--recipe", "small", "--seeds", "4", *assignments]
        case _:
            sys.exit(__doc__)


def main() -> None:
    """Run the command in an empty folder with live progress, and print what it reached as JSON."""
    words = command(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "windtunnel", *words, "--out", f"{folder}/out", "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - begin
    summary = json.loads(result.stdout)
    reached = {
        "command": " ".join(["windtunnel", *words]),
        "dev_loss": summary["scores"]["loss"],
        "bits_per_byte": summary["scores"]["bits_per_byte"],
        "seeds": [seed["dev"] for seed in summary["seeds"]],
        "wall_seconds": round(seconds, 1),
        "machine": description(),
    }
    print(json.dumps(reached, indent=2))


if __name__ == "__main__":
    main()
