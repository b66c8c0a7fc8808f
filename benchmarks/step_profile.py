"""Claim: most of a training step of GPT-2's size is matrix products, which every rival computes with the same library.

    python -m benchmarks.step_profile [--shapes 4x128 6x384 124M] [--batch-size N] [--precision fp32]
                                     [--threads N] [--repeats N]

torch's profiler over compiled steps of the shapes of `benchmarks.training_speed`: milliseconds by what was computed. It
makes each call some microseconds longer, so the rest, which is calls more than work, is less than shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing import report
from benchmarks.training_speed import CASES, Case, cases_of, our_rival, tokens_of
from windtunnel.training import machine
from windtunnel.training.machine import DTYPES

CLAIM = "of a step of 124M parameters, products with weights are more than half"
KINDS = {
    "products with weights": ("aten::mm", "aten::addmm"),
    "products of attention": ("aten::bmm", "aten::baddbmm"),
    "compiled element-wise": ("CompiledFxGraph",),
    "AdamW": ("aten::_fused_adamw_",),
    "norm of the gradient": ("aten::linalg_vector_norm", "aten::_foreach_norm"),
    "casts and copies": ("aten::copy_", "aten::_to_copy"),
}
"""How the profiler's names of a kind begin; `CompiledFxGraph` is followed by a hash."""


def kind_of(name: str) -> str:
    """The kind that an operation's time counts for."""
    bare = name.removeprefix("## Call ")
    return next((kind for kind, names in KINDS.items() if bare.startswith(names)), "rest")


def measure(case: Case, repeats: int) -> list[dict[str, Any]]:
    step = our_rival(case, True, *tokens_of(case))
    for _ in range(3):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(repeats):
            step()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / repeats
    return [
        {"case": str(case), "what": kind, "milliseconds": spent[kind], "share": spent[kind] / spent.total()}
        for kind in (*KINDS, "rest")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch-size", type=int, help="another than the shape's own")
    parser.add_argument("--precision", choices=list(DTYPES), help="another than train.precision=auto picks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    machine.keep_memory()
    results = [row for case in cases_of(given).values() for row in measure(case, given.repeats)]
    shown = Table("model, batch x context", "what", "ms", "share", title="a compiled training step")
    for row in results:
        shown.add_row(row["case"], row["what"], f"{row['milliseconds']:.1f}", f"{row['share']:.0%}")
    Console(file=sys.stderr).print(shown)
    document = report(CLAIM, results, given.repeats)
    products = [row["share"] for row in results if row["what"] == "products with weights"]
    document["holds"] = products[-1] > 0.5 if given.shapes[-1] == "124M" else None
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
