"""Claim: dropout costs a CPU a fraction of what torch's own costs, compiled, and no more uncompiled.

    python -m benchmarks.dropout [--threads N] [--repeats N]

Forward and backward of `windtunnel.nn.dropout.dropout` and of `torch.nn.functional.dropout` on attention weights and on
a residual stream, both compiled and both not; then whole training steps of nanoGPT's recipe for a GPU (6 x 384, batch
16 x 256, dropout 0.2), compiled, with either, and without dropout. They take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.timing import alternate, as_dict, ratio, report
from benchmarks.training_speed import CASES, our_rival, tokens_of
from windtunnel.nn.dropout import dropout
from windtunnel.training import machine

CLAIM = "compiled, our dropout takes less than half of the time of torch's, and with it a training step does, too"
P = 0.2
SHAPES = {"attention weights": (96, 256, 256), "residual stream": (16, 256, 384)}
CASE = CASES["6x384"]
Drop = Callable[[Tensor, float], Tensor]
WAYS: dict[str, Drop] = {"windtunnel": dropout, "torch": F.dropout}


def passes(way: Drop, shape: tuple[int, ...]) -> Callable[[], None]:
    x, gradient = torch.randn(shape).bfloat16().requires_grad_(), torch.randn(shape).bfloat16()

    def run() -> None:
        x.grad = None
        way(x, P).backward(gradient)

    return run


def training_step(way: Drop, p: float) -> Callable[[], None]:
    """Steps of a model that drops in this way; the first one compiles it in."""
    step = our_rival(replace(CASE, dropout=p), True, *tokens_of(CASE))

    def run() -> None:
        with patch("windtunnel.nn.dropout.dropout", way), patch("windtunnel.nn.attention.drop", way):
            step()

    return run


def compare(what: str, rivals: dict[str, Callable[[], None]], repeats: int) -> dict[str, Any]:
    seconds = alternate(rivals, repeats)
    pairs = [(f"windtunnel{how}", f"torch{how}") for how in (" compiled", " eager") if f"torch{how}" in rivals]
    pairs += [("windtunnel compiled", "without")] if "without" in rivals else []
    return {"what": what, **as_dict(seconds, *(ratio(seconds, *pair) for pair in pairs))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine.keep_memory()
    results = []
    for what, shape in SHAPES.items():
        rivals = {f"{name} eager": passes(way, shape) for name, way in WAYS.items()}
        rivals |= {f"{name} compiled": passes(torch.compile(way), shape) for name, way in WAYS.items()}
        results.append(compare(f"{what} {shape}", rivals, given.repeats))
    rivals = {f"{name} compiled": training_step(way, P) for name, way in WAYS.items()}
    results.append(compare(f"training step, {CASE}", rivals | {"without": training_step(dropout, 0.0)}, given.repeats))
    shown = Table("what", "of", "to", "ratio [95 %]")
    for result in results:
        for r in result["ratios"]:
            shown.add_row(result["what"], r["of"], r["to"], f"{r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]")
    Console(file=sys.stderr).print(shown)
    document = report(CLAIM, results, given.repeats)
    compiled = [r for result in results for r in result["ratios"] if r["to"] == "torch compiled"]
    document["holds"] = all(r["high"] < 0.5 for r in compiled)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
