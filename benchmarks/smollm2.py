"""Claim: decoding SmolLM2-135M is faster than transformers, and reads its weights nearly as fast as memory gives them.

    python -m benchmarks.smollm2 RUN [--weights fp32 int8] [--tokens N] [--threads N] [--repeats N]

RUN is `windtunnel import smollm2-135m`. Greedy, one sequence, its first token included, compiled before the clock
starts. transformers has the same weights in float32 and must write the same tokens. The bound is the bytes of the
weights that a token needs over the rate at which the same process reads 512 MB in the same turn.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.decoding import GREEDY, TRANSFORMERS, Ways, transformers_write
from benchmarks.timing import Apart, alternate, as_dict, ratio, report, serve
from windtunnel.generation.compiled import Steps
from windtunnel.generation.decode import decode
from windtunnel.generation.weights import read_as
from windtunnel.models import as_transformer
from windtunnel.training import machine
from windtunnel.training.exports import export_run
from windtunnel.training.run import load

CLAIM = "decoding SmolLM2-135M takes less time than transformers, at 80 % or more of the memory's bound"
PROMPT = "The capital of France is Paris. The capital of Italy is"
LEAST = 0.8
READ = 2**27
"""Float32 numbers that are summed up to measure the memory."""


def ours(run: Path, kind: str, n_tokens: int) -> tuple[Ways, int]:
    """Ours with one kind of weights, and the bytes of them that a token needs."""
    machine.keep_memory()
    trained = read_as(load(run), kind)
    decoder, ids = as_transformer(trained.model, "decoding"), trained.tokenizer.encode(PROMPT).tolist()
    steps = Steps(decoder, compile=True)

    def write() -> list[int]:
        return [new.id for new in decode(decoder, ids, n_tokens, GREEDY, 0, steps=steps)]

    # Of the embedding a token reads one row, unless it is the head, too.
    whole = [t for name, t in decoder.state_dict().items() if name != "embedding.weight" or decoder.head is None]
    n_bytes = sum({t.data_ptr(): t.nbytes for t in whole}.values())
    return {kind: write}, n_bytes


def theirs(folder: Path, ids: list[int], n_tokens: int) -> Ways:
    """transformers', with its cache, in float32."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return {TRANSFORMERS: partial(transformers_write, model, ids, n_tokens)}


def serve_ways(run: Path, exported: Path, engine: str, n_tokens: int) -> None:
    """What the process of an engine does: it tells its bytes and what it writes, then writes, or reads memory."""
    if engine == TRANSFORMERS:
        ways, n_bytes = theirs(exported, load(run).tokenizer.encode(PROMPT).tolist(), n_tokens), 0
    else:
        ways, n_bytes = ours(run, engine, n_tokens)
    numbers = torch.ones(READ)
    ways["read"] = lambda: numbers.sum()
    for way in ways.values():  # compiled, and in memory
        way()

    def answer(way: str) -> None:
        ways[way]()

    serve({"bytes": n_bytes, "writes": ways[engine]()}, answer)


def compare(run: Path, exported: Path, kinds: list[str], n_tokens: int, repeats: int) -> dict[str, Any]:
    words = ["--threads", str(torch.get_num_threads()), "--tokens", str(n_tokens), "--exported", str(exported)]
    with ExitStack() as running:
        processes = {
            engine: running.enter_context(Apart("smollm2", str(run), *words, "--serve", engine))
            for engine in (*kinds, TRANSFORMERS)
        }
        if "fp32" in kinds and processes["fp32"].greeting["writes"] != processes[TRANSFORMERS].greeting["writes"]:
            raise RuntimeError("the two models do not write the same tokens")
        ways: Ways = {engine: partial(process, engine) for engine, process in processes.items()}
        ways |= {f"read, beside {kind}": partial(processes[kind], "read") for kind in kinds}
        seconds = alternate(ways, repeats, warmup=1)
        n_bytes = {kind: processes[kind].greeting["bytes"] for kind in kinds}
    return {
        "what": f"{n_tokens} tokens",
        "tokens_per_second": {engine: n_tokens / float(np.median(seconds[engine])) for engine in processes},
        "bytes_a_token": n_bytes,
        "share_of_bound": {kind: share(seconds, kind, n_bytes[kind] * n_tokens) for kind in kinds},
        "load_average": os.getloadavg()[0],
        **as_dict(seconds, *(ratio(seconds, kind, TRANSFORMERS) for kind in kinds)),
    }


def share(seconds: Mapping[str, list[float]], kind: str, n_bytes: int) -> float:
    """The median over the turns of the rate at which weights are read over that of plain reading."""
    read, wrote = (np.array(seconds[name]) for name in (f"read, beside {kind}", kind))
    return float(np.median((n_bytes / wrote) / (4 * READ / read)))


def table(result: Mapping[str, Any]) -> Table:
    shown = Table("how", "tokens/s", "share of the memory's bound", title=result["what"])
    for way, tokens in result["tokens_per_second"].items():
        found = result["share_of_bound"].get(way)
        shown.add_row(way, f"{tokens:,.1f}", "" if found is None else f"{found:.0%}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--weights", nargs="+", choices=["fp32", "bf16", "int8"], default=["fp32", "int8"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--exported", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.serve:
        serve_ways(given.run, given.exported, given.serve, given.tokens)
        return
    with tempfile.TemporaryDirectory() as folder:
        export_run(given.run, Path(folder) / "hf", "hf")
        result = compare(given.run, Path(folder) / "hf", given.weights, given.tokens, given.repeats)
    Console(file=sys.stderr).print(table(result))
    document = report(CLAIM, [result], given.repeats)
    faster = all(found["high"] < 1 for found in result["ratios"])
    document["holds"] = faster and all(found >= LEAST for found in result["share_of_bound"].values())
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
