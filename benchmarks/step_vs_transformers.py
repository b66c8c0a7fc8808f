"""Claim: a training step is not slower than that of transformers' GPT-2, at the same shape, batch and precision.

    python -m benchmarks.step_vs_transformers [--quick] [--threads N] [--repeats N]

A step is forward, cross-entropy over all tokens, backward, clipping to norm 1 and AdamW, without dropout, uncompiled.
Both models have GPT-2's architecture with the same numbers and begin from the same weights; their losses are compared
before the clock starts. The optimizer is the same fused AdamW for both. They take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.timing import alternate, as_dict, ratio, report
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.train.optimizer import OptimizerConfig, build_optimizer

CLAIM = "a training step takes no longer than transformers' GPT-2 at the same shape, batch and precision"
OURS, THEIRS = "windtunnel", "transformers"


@dataclass(frozen=True)
class Case:
    """A shape of the model and of its batch."""

    n_layers: int
    d_model: int
    n_heads: int
    batch_size: int
    context_length: int
    vocab_size: int = 65

    def __str__(self) -> str:
        return f"{self.n_layers} x {self.d_model}, {self.batch_size} x {self.context_length}, vocab {self.vocab_size}"


CASES = [Case(4, 64, 4, 64, 12, 27), Case(4, 128, 4, 12, 64), Case(6, 384, 6, 16, 256)]


def our_model(case: Case) -> Transformer:
    return build(
        TransformerConfig(
            vocab_size=case.vocab_size,
            context_length=case.context_length,
            n_layers=case.n_layers,
            n_heads=case.n_heads,
            d_model=case.d_model,
            dropout=0.0,
        ),
        seed=0,
    )


def their_model(case: Case, ours: Transformer) -> GPT2LMHeadModel:
    """transformers' GPT-2 with our weights; its matrices are stored transposed."""
    config = GPT2Config(
        vocab_size=case.vocab_size,
        n_positions=case.context_length,
        n_embd=case.d_model,
        n_layer=case.n_layers,
        n_head=case.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config)
    pairs = [(model.transformer.wte, ours.embedding), (model.transformer.wpe, ours.position.embedding)]
    pairs += [(model.transformer.ln_f, ours.norm)]
    for theirs, block in zip(model.transformer.h, ours.blocks, strict=True):
        pairs += [
            (theirs.ln_1, block.norm_1),
            (theirs.attn.c_attn, block.attention.qkv),
            (theirs.attn.c_proj, block.attention.out),
            (theirs.ln_2, block.norm_2),
            (theirs.mlp.c_fc, block.feed_forward.widen),
            (theirs.mlp.c_proj, block.feed_forward.narrow),
        ]
    with torch.no_grad():
        for to, source in pairs:
            transposed = isinstance(source, nn.Linear)
            to.weight.copy_(source.weight.T if transposed else source.weight)
            if getattr(source, "bias", None) is not None:
                to.bias.copy_(source.bias)
    return model.train()


def training_step(
    model: nn.Module, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor, precision: str
) -> Callable[[], float]:
    """A function that does one step and returns its loss."""
    optimizer = build_optimizer(model, OptimizerConfig())

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits_BTV = logits(ids)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def compare(case: Case, precision: str, repeats: int) -> dict[str, object]:
    ours = our_model(case)
    theirs = their_model(case, ours)
    tokens = torch.randint(0, case.vocab_size, (case.batch_size, case.context_length + 1))
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    steps = {
        OURS: training_step(ours, ours, ids, targets, precision),
        THEIRS: training_step(theirs, lambda ids: theirs(ids).logits, ids, targets, precision),
    }
    losses = {name: step() for name, step in steps.items()}
    if abs(losses[OURS] - losses[THEIRS]) > (1e-4 if precision == "fp32" else 1e-2):
        raise RuntimeError(f"the two models do not compute the same: first losses {losses}")
    seconds = alternate(steps, repeats)
    measured = as_dict(seconds, ratio(seconds, OURS, THEIRS))
    return {"case": str(case), "precision": precision, "first_loss": losses, **measured}


def table(results: list[dict[str, object]]) -> Table:
    shown = Table(title="one training step, median ms; ratio below 1: windtunnel is faster")
    for column in ("model, batch x context", "precision", OURS, THEIRS, "ratio [95 %]"):
        shown.add_column(column, justify="left" if column.startswith("model") else "right")
    for result in results:
        milliseconds, (found,) = result["milliseconds"], result["ratios"]
        times = [f"{milliseconds[name]['median']:.1f}" for name in (OURS, THEIRS)]
        interval = f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        shown.add_row(result["case"], result["precision"], *times, interval)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small shape only, few repeats")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, help="turns a row; 30 and 8 unless told, 10 with --quick")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    results = []
    for case in CASES[:1] if given.quick else CASES:
        repeats = given.repeats or (10 if given.quick else 30 if case is CASES[0] else 8)
        results += [compare(case, precision, repeats) for precision in ("fp32", "bf16")]
    Console(file=sys.stderr).print(table(results))
    document = report(CLAIM, results, repeats)
    document["holds"] = all(result["ratios"][0]["high"] <= 1 for result in results)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
