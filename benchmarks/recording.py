"""Claim: to record one site costs less than 20 % of a forward pass, and nothing when it is not asked for.

    python -m benchmarks.recording [--threads N] [--repeats N]

A forward pass of 6 layers x 384 on 8 x 128 tokens alone, with one site recorded, and with attention patterns, which the
fast pass does not compute. They take turns in one process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext

import torch

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.inspect.sites import recorded
from windtunnel.models import build
from windtunnel.models.transformer import TransformerConfig

CLAIM = "recording one site costs less than 20 % of a forward pass"
SITES = {
    "one residual stream": ["blocks.3.resid"],
    "one layer's heads": ["blocks.3.attention.heads"],
    "one layer's patterns": ["blocks.3.attention.pattern"],
    "every residual stream": ["blocks.*.resid"],
    "every layer's patterns": ["blocks.*.attention.pattern"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    config = TransformerConfig(vocab_size=256, context_length=128, n_layers=6, n_heads=6, d_model=384)
    model, ids = build(config, 0).eval(), torch.randint(256, (8, 128))

    def forward(patterns: list[str]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad(), recorded(model, patterns) if patterns else nullcontext():
                model(ids)

        return run

    times = alternate({"alone": forward([])} | {name: forward(own) for name, own in SITES.items()}, asked.repeats)
    result = {"what": "6 x 384, 8 x 128 tokens", **as_dict(times, *(ratio(times, name, "alone") for name in SITES))}
    document = report(CLAIM, [result], asked.repeats)
    document["holds"] = next(r["high"] < 1.2 for r in result["ratios"] if r["of"] == "one residual stream")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
