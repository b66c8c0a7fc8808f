"""Claim: products that oneDNN gives to one core of two take less time in parts, which both cores compute.

    python -m benchmarks.products [--repeats N]

The products of GPT-2's blocks with 1,024 tokens in bfloat16 on two threads, forward (x @ weight.T) and backward
(gradient @ weight): whole, and as `windtunnel.nn.linear.product` computes them. How many cores are busy is the
process's time over the clock's. Only on a chip that multiplies tiles (AMX) do the two differ; of products that are left
whole nothing is claimed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.nn.linear import leaves_a_core_idle, product

CLAIM = "each product that would leave a core idle takes less time in parts than whole"
TOKENS = 1024
LAYERS = {
    "queries, keys, values": (768, 2304),
    "out of attention": (768, 768),
    "widen": (768, 3072),
    "narrow": (3072, 768),
}
IN_ONE_TURN = 20


def busy_cores(run: Callable[[], None]) -> float:
    shares = []
    for _ in range(5):
        clock, own = time.perf_counter(), time.process_time()
        run()
        shares.append((time.process_time() - own) / (time.perf_counter() - clock))
    return statistics.median(shares)


def compare(name: str, n_inputs: int, n_outputs: int, backward: bool, repeats: int) -> dict[str, Any]:
    a = torch.randn(TOKENS, n_inputs).bfloat16()
    weight = torch.randn(n_inputs, n_outputs).bfloat16() if backward else torch.randn(n_outputs, n_inputs).bfloat16().T

    def times(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(IN_ONE_TURN):
                multiply(a, weight)

        return run

    rivals = {"in parts": times(product), "whole": times(torch.mm)}
    seconds = {of: [s / IN_ONE_TURN for s in values] for of, values in alternate(rivals, repeats).items()}
    return {
        "what": f"{name}, {'backward' if backward else 'forward'}: {TOKENS} x {n_inputs} x {n_outputs}",
        "cut": leaves_a_core_idle(TOKENS, n_outputs),
        "busy_cores": {of: busy_cores(run) for of, run in rivals.items()},
        **as_dict(seconds, ratio(seconds, "in parts", "whole")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(2)
    results = []
    for name, (n_inputs, n_outputs) in LAYERS.items():
        results.append(compare(name, n_inputs, n_outputs, False, given.repeats))
        results.append(compare(name, n_outputs, n_inputs, True, given.repeats))
    shown = Table("product: tokens x inputs x outputs", "cut", "busy cores, whole", "in parts", "time in parts / whole")
    for found in results:
        cores, r = found["busy_cores"], found["ratios"][0]
        shares = f"{r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        cut = "yes" if found["cut"] else "no"
        shown.add_row(found["what"], cut, f"{cores['whole']:.1f}", f"{cores['in parts']:.1f}", shares)
    Console(file=sys.stderr, width=120).print(shown)
    document = report(CLAIM, results, given.repeats)
    cut = [found["ratios"][0] for found in results if found["cut"]]
    document["holds"] = bool(cut) and all(r["high"] < 1 for r in cut)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
