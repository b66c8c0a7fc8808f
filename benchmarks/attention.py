"""Claim: on a CPU plain attention trains faster than the fused kernel for as many keys as `attend` uses it for.

    python -m benchmarks.attention [--threads N] [--repeats N]

Times forward and backward of both ways at several context lengths, taking turns in one process; `attend` chooses
the plain way where `plain_is_faster` says so: in bfloat16 up to 256 keys, in float32 from 32 to 127.
Then a window in blocks against the same window by a mask over all scores; `attend` takes blocks from `BLOCKS_FROM` on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.nn.attention import BLOCKS_FROM, Mask, attend_in_blocks, attend_plain, plain_is_faster, score_bias
from windtunnel.training.machine import DTYPES

CLAIM = "where `attend` takes the plain way or blocks, it trains faster than by the fused kernel or a mask"
SHAPES = [(64, 4, 12, 16), (12, 4, 64, 32), (16, 6, 128, 64), (16, 6, 256, 64), (4, 6, 512, 64)]
"""batch, heads, tokens, width of a head."""
WINDOWED = [(4, 4, 256, 32), (2, 4, 512, 32), (1, 4, 2048, 32)]
WINDOWS = (8, 64, 256)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend_plain(q, k, v, Mask())


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_mask(window: int) -> Callable[..., Tensor]:
    """As `attend` computes a window that it does not cut into blocks."""

    def way(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = Mask(window=window)
        if plain_is_faster(q, k.shape[2]):
            return attend_plain(q, k, v, mask)
        bias = score_bias(q.shape[2], k.shape[2], mask, q)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    return way


def forward_and_backward(way: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], None]:
    """As in a model: queries, keys and values are views of one packed tensor."""
    batch, heads, tokens, width = shape
    packed = torch.randn(batch, tokens, 3 * heads * width).to(dtype).requires_grad_()
    gradient = torch.randn(batch, tokens, heads * width).to(dtype)

    def run() -> None:
        packed.grad = None
        parts = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in packed.split(heads * width, -1))
        way(*parts).transpose(1, 2).flatten(2).backward(gradient)

    return run


def compare(shape: tuple[int, ...], precision: str, repeats: int) -> dict[str, object]:
    rivals = {"plain": plain, "fused": fused}
    seconds = alternate(
        {name: forward_and_backward(way, shape, DTYPES[precision]) for name, way in rivals.items()}, repeats
    )
    chosen = plain_is_faster(torch.zeros(1, dtype=DTYPES[precision], requires_grad=True), shape[2])
    measured = as_dict(seconds, ratio(seconds, "plain", "fused"))
    return {"shape": shape, "precision": precision, "chosen": "plain" if chosen else "fused", **measured}


def compare_window(shape: tuple[int, ...], window: int, precision: str, repeats: int) -> dict[str, object]:
    rivals = {"blocks": partial(attend_in_blocks, mask=Mask(window=window)), "mask": by_mask(window)}
    seconds = alternate(
        {name: forward_and_backward(way, shape, DTYPES[precision]) for name, way in rivals.items()}, repeats
    )
    measured = as_dict(seconds, ratio(seconds, "blocks", "mask"))
    chosen = "blocks" if shape[2] >= max(BLOCKS_FROM, 4 * window) else "mask"
    return {"shape": shape, "window": window, "precision": precision, "chosen": chosen, **measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results = [compare(shape, precision, given.repeats) for precision in ("bf16", "fp32") for shape in SHAPES]
    results += [
        compare_window(shape, window, precision, given.repeats)
        for precision in ("bf16", "fp32")
        for shape in WINDOWED
        for window in WINDOWS
        if 2 * window <= shape[2]
    ]
    shown = Table("batch, heads, tokens, width", "window", "precision", "time of", "ratio [95 %]", "attend takes")
    for result in results:
        (found,) = result["ratios"]
        interval = f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        rivals = f"{found['of']} / {found['to']}"
        window = str(result.get("window", "-"))
        shown.add_row(str(result["shape"]), window, result["precision"], rivals, interval, result["chosen"])
    Console(file=sys.stderr).print(shown)
    document = report(CLAIM, results, given.repeats)
    document["holds"] = all(r["ratios"][0]["estimate"] < 1 for r in results if r["chosen"] in ("plain", "blocks"))
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
