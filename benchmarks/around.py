"""Claim: what stands around the training step costs little: tokenizing, data loading, evaluation, starting.

    python -m benchmarks.around PATH/TO/TEXT [--repeats N]

- Tokenizing: BPE over the text as the store does it, in a stream, against `encode_batch_fast` of the `tokenizers`
  library on the same pieces held in memory, on all cores, its ids read as lists.
- Data loading: the time of a batch as a share of the step of recipe `small` that it is for.
- Evaluation: tokens a second of an evaluation on the way, in the run's precision, and of the last one, in float32, over
  those of a training step as the recipe runs it.
- Start: seconds of `windtunnel generate` with one token, the whole process, and of `import torch` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.config import override
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, TokenStore, prepare
from windtunnel.text.tokenizers import train_bpe
from windtunnel.training import machine
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.recipes import recipe
from windtunnel.training.run import initial_model, resolve
from windtunnel.training.trainer import Trainer

CLAIM = "tokenizing, data loading, evaluation and starting cost little beside the training step"
EVALUATED = 65536


def tokenizing(path: Path, repeats: int) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    tokenizer = train_bpe([text], 2048)
    pieces = list(tokenizer.pieces([text]))
    chunks = [text[i : i + 65536] for i in range(0, len(text), 65536)]
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    rivals: dict[str, Callable[[], object]] = {
        "windtunnel": lambda: list(tokenizer.encode_stream(chunks)),
        "tokenizers": lambda: [e.ids for e in tokenizer._library.encode_batch_fast(pieces, add_special_tokens=False)],
    }  # fmt: skip
    seconds = alternate(rivals, repeats)
    found = as_dict(seconds, ratio(seconds, "tokenizers", "windtunnel"))
    rate = len(text.encode()) / found["milliseconds"]["windtunnel"]["median"] / 1e3
    return {"what": "tokenizing, speed over the library's", "megabytes_a_second": rate, **found}


def training(store: TokenStore, corpus: str, repeats: int) -> list[dict[str, Any]]:
    config = resolve(override(recipe("small", corpus), ["train.compile=true"]), store)
    task = open_task(config, store)
    trainer = Trainer.begin(config, task, initial_model(config))
    sweep = partial(evaluate, trainer.state.model, task, "train", step=0, max_targets=EVALUATED)
    machine.keep_memory()
    rivals: dict[str, Callable[[], object]] = {
        "step": trainer.step,
        "batch": lambda: trainer.batch_of(trainer.state.step),
        "evaluation": partial(sweep, precision=config.train.precision),
        "evaluation in float32": partial(sweep, precision="fp32"),
    }
    seconds = alternate(rivals, repeats)
    tokens = config.train.batch_size * config.model.context_length
    share = as_dict(seconds, ratio(seconds, "batch", "step"))
    speeds = [as_dict(seconds, ratio(seconds, "step", name)) for name in rivals if name.startswith("evaluation")]
    for speed in speeds:
        speed["ratios"][0] |= {key: speed["ratios"][0][key] * EVALUATED / tokens for key in ("estimate", "low", "high")}
    return [
        {"what": "data loading, share of a step", **share},
        *({"what": "evaluation, tokens/s over training's", **speed} for speed in speeds),
    ]


def starting(corpus: Path, repeats: int) -> dict[str, Any]:
    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        train = ["--steps", "2", "--set", "train.eval_every=2", "--out", f"{folder}/run"]
        run("-m", "windtunnel", "train", str(corpus), *train)
        rivals: dict[str, Callable[[], object]] = {
            "generate": lambda: run("-m", "windtunnel", "generate", f"{folder}/run", "the", "--tokens", "1"),
            "import torch": lambda: run("-c", "import torch"),
        }
        seconds = alternate(rivals, repeats, warmup=1)
    found = as_dict(seconds, ratio(seconds, "generate", "import torch"))
    return {"what": "start of generate, time over import torch's", **found}


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table(title="around the training step")
    for column in ("what", "ratio [95 %]", "median ms"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for result in results:
        (found,) = result["ratios"]
        times = ", ".join(f"{name} {found['median']:.4g}" for name, found in result["milliseconds"].items())
        shown.add_row(result["what"], f"{found['estimate']:.3g} [{found['low']:.3g}, {found['high']:.3g}]", times)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(torch.get_num_threads())
    store = prepare(open_corpus(str(given.text), "text"), TextConfig(unit="text"))
    results = [tokenizing(given.text, given.repeats), *training(store, str(given.text), given.repeats)]
    results.append(starting(given.text, given.repeats))
    Console(file=sys.stderr).print(table(results))
    print(json.dumps(report(CLAIM, results, given.repeats), indent=2))


if __name__ == "__main__":
    main()
