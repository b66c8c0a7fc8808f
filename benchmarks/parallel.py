"""Memory a rank and tokens/s of one run on 1, 2 and 4 processes, with DDP and FSDP; and what GPUs would need, on paper.

    python -m benchmarks.parallel
    python -m benchmarks.parallel --paper

The first trains a decoder of 6 layers x 384 (14.5M parameters) for a few steps in real processes with gloo, one thread
each, and counts the bytes of weights, gradients and optimizer state that a rank holds, beside the most memory that its
process ever held and what it held before it built the model. More ranks than cores say nothing about speed. The second
computes memory and communication for 124M, 1.5B and 70B parameters on 8 and 1,024 GPUs, from `windtunnel cost`'s own
functions and the assumptions that it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch

from windtunnel.inspect.cost import FLOAT32, activation_bytes, optimizer_bytes, parameter_shapes
from windtunnel.models import TransformerConfig, build
from windtunnel.models.cost import training_flops_per_token
from windtunnel.tasks import Language
from windtunnel.text.batches import Batch
from windtunnel.training import machine
from windtunnel.training.compiling import loss_function
from windtunnel.training.distributed import ALONE, open_ranks
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.step import gradients, update

WAYS = (("one process", 1), ("ddp", 2), ("ddp", 4), ("fsdp", 2), ("fsdp", 4))
MODEL = TransformerConfig(vocab_size=10000, context_length=64, n_layers=6, n_heads=6, d_model=384, dropout=0.0)
TRAIN = TrainConfig(batch_size=16, grad_accumulation=2, precision="fp32", compile=False)
STEPS = 3

PAPER = {
    "GPT-2, 124M": TransformerConfig(),
    "GPT-2 XL, 1.5B": TransformerConfig(n_layers=48, n_heads=25, d_model=1600),
    "Llama 2, 70B": TransformerConfig(
        vocab_size=32000, context_length=4096, n_layers=80, n_heads=64, n_kv_heads=8, d_model=8192, d_ff=28672,
        position="rope", norm="rms", activation="swiglu", bias=False, tie_embeddings=False, dropout=0.0,
    ),
}  # fmt: skip
MEMORY, LINKS, RATE = 80e9, {8: 450e9, 1024: 50e9}, 400e12
"""Assumed of a GPU: bytes of memory; bytes/s that it sends, to 8 in one box and to 1,024 in many; FLOP/s that it
reaches in bfloat16."""
BATCH = 4 * 2**20
"""Tokens of the global batch, as Llama 2 was trained with."""


def held(tensors: Iterable[Any]) -> int:
    """Bytes that this rank holds of tensors that may be shards."""
    return sum(getattr(tensor, "to_local", lambda tensor=tensor: tensor)().nbytes for tensor in tensors)


def rank(mode: str) -> dict[str, float]:
    """What one rank measures."""
    torch.set_num_threads(1)
    with open_ranks(mode) if mode in ("ddp", "fsdp") else nullcontext(ALONE) as ranks:
        before = machine.peak_memory()
        model = ranks.place(build(MODEL, 0))
        optimizer = build_optimizer(model, OptimizerConfig())
        loss = loss_function(
            ranks.forward(model), Language(None, MODEL), RunConfig(corpus="", model=MODEL, train=TRAIN)
        )
        ids = torch.randint(MODEL.vocab_size, (16, 65), generator=torch.Generator().manual_seed(0))
        rows, seconds = Batch({"ids": ids[:, :-1]}, ids[:, 1:]), []
        for step in range(STEPS):
            begin = time.perf_counter()
            gradients(loss, rows, TRAIN.grad_accumulation, 0, step, ranks)
            kept = held(p.grad for p in model.parameters())
            update(model, optimizer, 1e-3, 1.0, ranks)
            seconds.append(time.perf_counter() - begin)
        state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
        return {
            "weights": held(model.parameters()),
            "gradients": kept,
            "optimizer": held(state),
            "peak": machine.peak_memory(),
            "before": before,
            "tokens_per_second": rows.n_targets / statistics.median(seconds[1:]),
        }


def measure(mode: str, size: int) -> dict[str, Any]:
    """The ranks of one way: the most that any of them holds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for number in range(size):
        own = {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": size,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        command = [sys.executable, "-m", "benchmarks.parallel", "--rank", mode]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    found = [json.loads(process.communicate()[0]) for process in processes]
    return {"mode": mode, "ranks": size, **{name: max(each[name] for each in found) for name in found[0]}}


@cache
def activations_of(config: TransformerConfig) -> int:
    return activation_bytes(config, 1, config.context_length, "bf16", recompute=True)


def on_paper(name: str, config: TransformerConfig, mode: str, size: int) -> dict[str, Any]:
    """Bytes a rank, bytes that it sends in a step, and seconds of computing and sending if neither hides the other.

    Weights, gradients and optimizer state are in float32; blocks are recomputed, products are in bfloat16, a
    micro-batch is one sequence. DDP sends 2 (N-1)/N of the gradients a step (ring all-reduce). FSDP gathers the weights
    before the forward and before the backward pass of every micro-batch and scatters the gradients once a step, each
    (N-1)/N; while it computes, a rank holds besides its shards what is outside of the blocks and two blocks whole.
    """
    shapes = parameter_shapes(config)
    n = sum(shape.numel() for shape in shapes)
    block = (n - sum(shape.numel() for shape in parameter_shapes(config.replace(n_layers=1)))) // (config.n_layers - 1)
    micro_batches = max(1, BATCH // size // config.context_length)
    part = size if mode == "fsdp" else 1
    state = (2 * FLOAT32 * n + optimizer_bytes(OptimizerConfig(), shapes)) / part
    whole = FLOAT32 * (n - (config.n_layers - 2) * block) if mode == "fsdp" else 0
    activations = activations_of(config)
    passed = FLOAT32 * n * (size - 1) / size
    sent = passed * (2 * micro_batches + 1) if mode == "fsdp" else 2 * passed
    tokens = micro_batches * config.context_length
    flops = 4 / 3 * training_flops_per_token(config, config.context_length) * tokens
    total = state + whole + activations
    return {
        "model": name, "parameters": n, "mode": mode, "gpus": size, "state": state, "whole_blocks": whole,
        "activations": activations, "total": total, "fits": total < MEMORY, "sent": sent,
        "seconds_computing": flops / RATE, "seconds_sending": sent / LINKS[size],
    }  # fmt: skip


def show(rows: list[dict[str, Any]], columns: dict[str, tuple[str, float]]) -> None:
    """A Markdown table on stderr; each column has a title and a divisor, 0 for what is shown as it is."""
    print("| " + " | ".join(title for title, _ in columns.values()) + " |", file=sys.stderr)
    print("|" + " --- |" * len(columns), file=sys.stderr)
    for row in rows:
        cells = [f"{row[name] / by:,.3g}" if by else f"{row[name]}" for name, (_, by) in columns.items()]
        print("| " + " | ".join(cells) + " |", file=sys.stderr)


def main() -> None:
    """Measure or compute; a table on stderr, JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--paper", action="store_true", help="compute, do not measure")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank:
        print(json.dumps(rank(asked.rank)))
        return
    if asked.paper:
        rows = [on_paper(*item, mode, size) for item in PAPER.items() for size in LINKS for mode in ("ddp", "fsdp")]
        assumed = {"memory": MEMORY, "links": LINKS, "flops": RATE, "batch_tokens": BATCH}
        show(rows, {"model": ("model", 0), "gpus": ("GPUs", 0), "mode": ("mode", 0), "state": ("state, GB", 1e9),
                    "whole_blocks": ("whole blocks, GB", 1e9), "activations": ("activations, GB", 1e9),
                    "total": ("total, GB", 1e9), "fits": ("fits 80 GB", 0), "sent": ("sent a step, GB", 1e9),
                    "seconds_computing": ("computing, s", 1), "seconds_sending": ("sending, s", 1)})  # fmt: skip
        print(json.dumps({"assumed": assumed, "results": rows}, indent=2))
        return
    rows = [measure(*way) for way in WAYS]
    show(rows, {"mode": ("mode", 0), "ranks": ("ranks", 0), "weights": ("weights, MB", 1e6),
                "gradients": ("gradients, MB", 1e6), "optimizer": ("optimizer, MB", 1e6),
                "before": ("process before, MB", 1e6), "peak": ("peak, MB", 1e6),
                "tokens_per_second": ("tokens/s", 1)})  # fmt: skip
    print(json.dumps({"machine": machine.description(), "steps": STEPS, "results": rows}, indent=2))


if __name__ == "__main__":
    main()
