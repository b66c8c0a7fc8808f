"""Claim: a training step is faster than that of transformers' GPT-2 and of nanoGPT, each at its best setting.

    python -m benchmarks.training_speed [--shapes 4x128 6x384] [--batch-size N] [--precision fp32]
                                       [--settings eager] [--threads N] [--repeats N] [--minutes N]
                                       [--nanogpt PATH/TO/model.py]

A step is forward, cross-entropy over all tokens, backward, clipping to norm 1 and fused AdamW, without dropout, with
weights in float32 and products in the precision that `train.precision=auto` picks on this machine. All models have
GPT-2's architecture and numbers and begin from the same weights; the losses of their first steps must agree before the
clock counts. Each has a process of its own, and they take turns; which of compiled and eager is a rival's best, a few
steps of both show first. Ours is compiled as for a long run, in 4x128-short as for one of 2,000 steps. nanoGPT is timed
if the path of its model.py is given. A share of the machine's peak is FLOPs (6 a parameter and token, and attention)
over time over the rate of large products in the same turn, as some machines multiply three times as fast in one minute
as in the next. The peak memory is that of the process, with torch and the model in it. Within `--minutes` the turns are
as many as fit, at most `--repeats`; on a slow machine the batch of a large shape is halved until they do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.timing import FEWEST, Apart, alternate, as_dict, fewest_turns, ratio, report, serve, sharing
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.models.cost import training_flops_per_token
from windtunnel.tasks import Language
from windtunnel.text.batches import Batch
from windtunnel.text.store import TextConfig
from windtunnel.training import machine, speed
from windtunnel.training.compiling import SMALL_STEPS, loss_function, prepare_blocks
from windtunnel.training.machine import DTYPES, Precision
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.step import update

CLAIM = "a training step takes less time than transformers' GPT-2 and nanoGPT, each at its best setting"
OURS, THEIRS, NANO = "windtunnel", "transformers", "nanogpt"
SETTINGS = ["compiled", "eager"]
PRODUCTS, PRODUCT = 20, 8 * 1024**3
"""So many products of 1024 x 1024 x 4096 take part in every turn, each of so many FLOPs."""
TRIALS = 3
"""How many turns decide which setting is a rival's best."""
FIRST_STEPS = 3
"""So many losses of each rival must agree, to half a hundredth: bfloat16 rounds each implementation differently."""
STEPS_SHARE, PEAK_SHARE = 0.5, 0.5
"""Of a shape's time so much is for steps, the rest for compiling, and a step is thought to reach this part of the
machine's peak."""


@dataclass(frozen=True)
class Case:
    """A shape of the model and of its batch."""

    n_layers: int
    d_model: int
    n_heads: int
    batch_size: int
    context_length: int
    vocab_size: int = 65
    in_one_turn: int = 1
    dropout: float = 0.0
    n_steps: int = SMALL_STEPS
    """Of the run for which ours is compiled."""
    precision: Precision = "bf16"

    @property
    def config(self) -> TransformerConfig:
        return TransformerConfig(
            vocab_size=self.vocab_size,
            context_length=self.context_length,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_model=self.d_model,
            dropout=self.dropout,
        )

    def __str__(self) -> str:
        run = "" if self.n_steps >= SMALL_STEPS else f", a run of {self.n_steps}"
        shape = f"{self.n_layers} x {self.d_model}, {self.batch_size} x {self.context_length}"
        return f"{shape}, vocab {self.vocab_size}{run}"

    @property
    def flops(self) -> float:
        """Of a step."""
        return training_flops_per_token(self.config, self.context_length) * self.batch_size * self.context_length

    def within(self, seconds: float, n_rivals: int) -> Case:
        """With the batch halved until the fewest steps that a comparison takes are made in this time."""
        steps = self.in_one_turn * n_rivals * (2 * (FIRST_STEPS + 1) + FEWEST)
        rate = PEAK_SHARE * machine.peak_flops(self.precision, torch.get_num_threads())
        if self.batch_size == 1 or steps * self.flops / rate < STEPS_SHARE * seconds:
            return self
        return replace(self, batch_size=self.batch_size // 2).within(seconds, n_rivals)


CASES = {
    "4x128": Case(4, 128, 4, 12, 64, in_one_turn=5),
    "4x128-short": Case(4, 128, 4, 12, 64, in_one_turn=5, n_steps=2000),
    "6x384": Case(6, 384, 6, 16, 256),
    "124M": Case(12, 768, 12, 4, 256, 50257),
}


def copy_weights(ours: Transformer, theirs: Any, transposed: bool) -> nn.Module:
    """Our weights in a model with GPT-2's names; transformers stores the matrices transposed."""
    pairs = [(theirs.transformer.wte, ours.embedding), (theirs.transformer.wpe, ours.position.embedding)]
    pairs += [(theirs.transformer.ln_f, ours.norm)]
    for its, block in zip(theirs.transformer.h, ours.blocks, strict=True):
        pairs += [
            (its.ln_1, block.norm_1),
            (its.attn.c_attn, block.attention.qkv),
            (its.attn.c_proj, block.attention.out),
            (its.ln_2, block.norm_2),
            (its.mlp.c_fc, block.feed_forward.widen),
            (its.mlp.c_proj, block.feed_forward.narrow),
        ]
    with torch.no_grad():
        for to, source in pairs:
            turned = transposed and isinstance(source, nn.Linear)
            to.weight.copy_(source.weight.T if turned else source.weight)
            if getattr(source, "bias", None) is not None:
                to.bias.copy_(source.bias)
    return theirs.train()


def our_rival(case: Case, compiled: bool, ids: Tensor, targets: Tensor) -> Callable[[], float]:
    """What `windtunnel train` runs."""
    train = TrainConfig(precision=case.precision, compile=compiled, steps=case.n_steps)
    config = RunConfig(corpus="", text=TextConfig(unit="text"), model=case.config, train=train)
    model = build(case.config, seed=0)
    prepare_blocks(model, config)
    optimizer = build_optimizer(model, OptimizerConfig())
    loss_of = loss_function(model, Language(None, case.config), config)  # its loss needs no corpus

    def step() -> float:
        loss = loss_of(Batch({"ids": ids}, targets)) / targets.numel()
        loss.backward()
        update(model, optimizer, lr=1e-3, clip=1.0)
        return loss.item()

    return step


def rival(
    model: nn.Module, logits: Callable[[Tensor], Tensor], case: Case, compiled: bool, ids: Tensor, targets: Tensor
) -> Callable[[], float]:
    """A rival's model in the same step as its own scripts write it."""
    optimizer = build_optimizer(model, OptimizerConfig())

    def loss_of(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.precision == "bf16"):
            logits_BTV = logits(ids)
            return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets.flatten())

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        loss = forward(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def transformers_model(case: Case) -> nn.Module:
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
    return copy_weights(build(case.config, seed=0), GPT2LMHeadModel(config), transposed=True)


def nanogpt_model(case: Case, path: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    sizes = {"block_size": case.context_length, "vocab_size": case.vocab_size, "n_layer": case.n_layers}
    config = module.GPTConfig(**sizes, n_head=case.n_heads, n_embd=case.d_model, dropout=0.0, bias=True)
    with redirect_stdout(sys.stderr):  # it prints its number of parameters, and here the JSON goes
        model = module.GPT(config)
    return copy_weights(build(case.config, seed=0), model, transposed=False)


def rivals(
    case: Case, nanogpt: Path | None, ids: Tensor, targets: Tensor
) -> dict[str, Callable[[], Callable[[], float]]]:
    """What makes each rival's model and returns its step."""

    def transformers(compiled: bool) -> Callable[[], float]:
        model = transformers_model(case)
        return rival(model, lambda ids: model(ids).logits, case, compiled, ids, targets)

    def nano(compiled: bool) -> Callable[[], float]:
        assert nanogpt
        model = nanogpt_model(case, nanogpt)  # it returns the logits of all tokens only when it is given targets
        return rival(model, lambda ids: model(ids, targets)[0], case, compiled, ids, targets)

    makers = {OURS: lambda compiled: our_rival(case, compiled, ids, targets), THEIRS: transformers, NANO: nano}
    names = [OURS, THEIRS, *([NANO] if nanogpt else [])]
    return {
        f"{name} {'compiled' if compiled else 'eager'}": partial(makers[name], compiled)
        for name in names
        for compiled in (True, False)
    }


def apart(shape: str, case: Case, name: str, nanogpt: Path | None) -> Apart:
    """A rival in its process, which gets ready meanwhile: its greeting are its first losses, then it steps as told."""
    words = ["--threads", str(torch.get_num_threads()), *(["--nanogpt", str(nanogpt)] if nanogpt else [])]
    words += ["--precision", case.precision, "--batch-size", str(case.batch_size)]
    return Apart("training_speed", *words, "--serve", shape, name, wait=False)


def serve_steps(case: Case, name: str, nanogpt: Path | None) -> None:
    """What the process of a rival does: the first losses, then a turn's steps, answered by the peak memory in MiB."""
    if name.startswith(OURS):
        machine.keep_memory()
    step = rivals(case, nanogpt, *tokens_of(case))[name]()

    def steps(wish: str) -> float:
        for _ in range(int(wish)):
            step()
        return machine.peak_memory() / 2**20

    serve([step() for _ in range(FIRST_STEPS)], steps)


def tokens_of(case: Case) -> tuple[Tensor, Tensor]:
    """Random ids and the targets after them, each (B, T), the same in every process."""
    shape = (case.batch_size, case.context_length + 1)
    drawn = torch.randint(0, case.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    return drawn[:, :-1].contiguous(), drawn[:, 1:].contiguous()


def better_setting(
    shape: str, case: Case, of: str, settings: Sequence[str], nanogpt: Path | None, running: ExitStack, until: float
) -> tuple[str, Apart, dict[str, list[float]]]:
    """The setting that makes the fastest of a few steps, in its process; and the first losses with each."""
    names = [f"{of} {setting}" for setting in settings]
    stacks = {name: running.enter_context(ExitStack()) for name in names}
    processes = {name: stacks[name].enter_context(apart(shape, case, name, nanogpt)) for name in names}
    losses = {name: process.greeting for name, process in processes.items()}  # all are ready, and stand still
    turns = {name: partial(process, str(case.in_one_turn)) for name, process in processes.items()}
    taken = alternate(turns, TRIALS, warmup=0, until=until, fewest=1)
    fastest = {name: min(seconds) for name, seconds in taken.items()}
    best, *others = sorted(fastest, key=lambda name: fastest[name])
    for other in others:
        stacks[other].close()
    return best, processes[best], losses


def products(precision: Precision) -> Callable[[], object]:
    """The products that the machine's peak is measured with."""
    a, b = (torch.randn(1024, columns).to(DTYPES[precision]) for columns in (1024, 4096))
    return lambda: [a @ b for _ in range(PRODUCTS)]


def compare(
    shape: str, case: Case, settings: Sequence[str], nanogpt: Path | None, repeats: int, seconds: float
) -> dict[str, Any]:
    begin, names = time.perf_counter(), (OURS, THEIRS, *([NANO] if nanogpt else []))
    print(f"{case}, {case.precision}: about {seconds:.0f} s", file=sys.stderr)
    with ExitStack() as running:
        settle = begin + seconds * (1 - STEPS_SHARE)
        found = {of: better_setting(shape, case, of, settings, nanogpt, running, settle) for of in names}
        losses = {name: given for _, _, both in found.values() for name, given in both.items()}
        check_losses(losses)
        steps = {name: partial(process, str(case.in_one_turn)) for name, process, _ in found.values()}
        rivals = {**steps, "products": products(case.precision)}
        taken = alternate(rivals, repeats, warmup=1, until=begin + seconds)
        memory = {name: process("0") for name, process, _ in found.values()}
    peaks = [PRODUCTS * PRODUCT / value for value in taken.pop("products")]
    taken = {name: [value / case.in_one_turn for value in values] for name, values in taken.items()}
    ours = found[OURS][0]
    return {
        "case": str(case),
        "precision": case.precision,
        "first_losses": losses,
        "peak_flops": statistics.median(peaks),
        "share_of_peak": statistics.median(case.flops / t / peak for t, peak in zip(taken[ours], peaks, strict=True)),
        "peak_mebibytes": memory,
        **as_dict(taken, *(ratio(taken, name, ours) for name in taken if name != ours)),
    }


def check_losses(losses: dict[str, list[float]]) -> None:
    """Raises RuntimeError when a rival does not compute what the others do."""
    reference = next(given for name, given in reversed(losses.items()) if name.startswith(THEIRS))
    for name, given in losses.items():
        if max(abs(a - b) for a, b in zip(given, reference, strict=True)) > 0.05:
            raise RuntimeError(f"{name} does not compute the same as {THEIRS}: first losses {given} and {reference}")


def cases_of(given: argparse.Namespace) -> dict[str, Case]:
    """The shapes that are asked for, in the precision that is, or that a run's own would be on this machine."""
    cases = {}
    for shape in given.shapes:
        case = CASES[shape]
        config = RunConfig(corpus="", model=case.config, train=TrainConfig(threads=given.threads))
        precision = given.precision or speed.decide(config).precision
        cases[shape] = replace(case, precision=precision, batch_size=given.batch_size or case.batch_size)
    return cases


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table(title="one training step: how many times as long the rival takes [95 %]")
    for column in ("model, batch x context", "ms", THEIRS, NANO, "share of peak", "MiB (rivals)"):
        shown.add_column(column, justify="left" if column.startswith("model") else "right")
    for result in results:
        ours, *theirs = result["milliseconds"]
        found = [f"{r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in result["ratios"]]
        found += ["-"] * (2 - len(found))
        memory = {name: f"{value:,.0f}" for name, value in result["peak_mebibytes"].items()}
        held = f"{memory[ours]} ({', '.join(memory[name] for name in theirs)})"
        median = result["milliseconds"][ours]["median"]
        shown.add_row(
            f"{result['case']}, {result['precision']}, {ours}",
            f"{median:.0f}",
            *found,
            f"{result['share_of_peak']:.0%}",
            held,
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch-size", type=int, help="instead of the shape's own, and never halved")
    parser.add_argument("--precision", choices=list(DTYPES), help="another than train.precision=auto picks")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="of which the best is timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all shapes together, about")
    parser.add_argument("--nanogpt", type=Path, help="nanoGPT's model.py, to be timed, too")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.serve:
        shape, name = given.serve
        given.shapes = [shape]
        serve_steps(cases_of(given)[shape], name, given.nanogpt)
        return
    results = []
    for (shape, case), seconds in sharing(list(cases_of(given).items()), given.minutes):
        if not given.batch_size:
            case = case.within(seconds, 3 if given.nanogpt else 2)
        results.append(compare(shape, case, given.settings, given.nanogpt, given.repeats, seconds))
    Console(file=sys.stderr).print(table(results))
    document = report(CLAIM, results, fewest_turns(results))
    document["holds"] = all(r["low"] >= 1 for result in results for r in result["ratios"])
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
