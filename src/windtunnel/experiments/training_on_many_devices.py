"""000-T3a to c: one run in one process, with DDP and with FSDP, on real processes with gloo between them."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.experiments.ranks import KINDS, given, held, on_ranks, run
from windtunnel.experiments.training import apart, losses_of, small_names
from windtunnel.files import discard
from windtunnel.report.charts import lines
from windtunnel.training.data import open_store
from windtunnel.training.distributed import ALONE
from windtunnel.training.run import create_run, resolve
from windtunnel.training.run_config import RunConfig

ONE, DDP, FSDP = Row("000-T3a"), Row("000-T3b"), Row("000-T3c")
ROW_OF = {"ddp": DDP, "fsdp": FSDP}
SIZE, TOLERANCE, PRINTED = 2, 1e-6, "2.2e-8"
RESUMABLE = 75
"""The exit code of a rank that lost another one."""


def training_on_many_devices(at: Setting) -> Findings:
    """One run on one, or on several devices.

    A small transformer was trained on names by one process, and by two with gloo between them: with DDP, where each
    holds the whole model, and with FSDP, where each holds a part. Runs were stopped and resumed, also by another number
    of processes, and one of two was killed.
    """
    config, runs = problem(at), at.out / "runs"
    steps, middle = config.train.steps, config.train.steps // 2
    yield Given({"corpus": "names", "model": "2 layers x 32", "steps": steps, "ranks": SIZE, "stopped at": middle})
    discard(runs / "killed")  # or it would be finished when the command is given again, and nothing left to kill
    for name in NAMES:
        begin(config, runs / name)
    yield Progress("one process", 0, 3)
    run(runs / "alone")
    for name in ("stopped", "ddp-moved", "fsdp-moved"):
        run(runs / name, stop_at=middle)
    run(runs / "stopped")
    yield from one_process(runs)
    yield Progress(f"{SIZE} processes", 1, 3)
    seen = given(on_ranks(SIZE, "train", runs))
    for mode in ROW_OF:
        yield from several(mode, runs, [rank[mode] for rank in seen])
    yield Progress("a killed process", 2, 3)
    codes = [ended.code for ended in on_ranks(SIZE, "die", runs / "killed", middle)]
    given(on_ranks(SIZE, "go-on", runs / "killed"))
    yield from killed(codes, runs)
    yield from memory(held(runs / "alone", ALONE), seen)
    yield draw("losses", lines({name: (range(1, steps + 1), losses_of(runs / name)) for name in DRAWN},
                               xlabel="step", ylabel="loss, nats per token"))  # fmt: skip


DRAWN = ("alone", "ddp", "fsdp")
NAMES = ("alone", "stopped", "ddp", "fsdp", "ddp-moved", "fsdp-moved", "killed")


def problem(at: Setting) -> RunConfig:
    """Names on 2 layers x 32 with AdamW, micro-batches and clipping.

    Without dropout, whose draws depend on the number of ranks, and without biases: the gradient of a key's bias is zero
    but for rounding, and Adam makes whole steps of such noise. With GELU, since at the kink of a ReLU the last bit of
    a sum decides which gradient a unit has.
    """
    base, steps = small_names(at), at.size(40, quick=8)
    every = {"steps": steps, "save_every": 2, "eval_every": steps, "eval_tokens": 400}
    train = base.train.replace(grad_accumulation=2, threads=1, compile=False, precision="fp32", **every)
    optimizer, schedule = base.optimizer.replace(lr=1e-3), base.schedule.replace(warmup=5)
    return base.replace(
        model=base.model.replace(n_layers=2, activation="gelu_tanh"),
        optimizer=optimizer,
        schedule=schedule,
        train=train,
    )


def begin(config: RunConfig, folder: Path) -> None:
    """Make a run folder, or find the one that is there."""
    store = open_store(config)
    create_run(folder, resolve(config, store), store)


# -------------------------------------------------------------------------------------------------------- the verdicts


def one_process(runs: Path) -> Findings:
    """000-T3a."""
    alone, stopped = (losses_of(runs / name) for name in ("alone", "stopped"))
    first, last = np.mean(alone[:5]), np.mean(alone[-5:])
    yield ONE.shows("the loss falls", last < first, f"{first:.3f} in the first 5 steps, {last:.3f} in the last 5",
                    first=float(first), last=float(last))  # fmt: skip
    gaps = [*differences(alone, stopped), apart(runs / "alone", runs / "stopped")]
    yield ONE.equal("stopped and resumed: the same losses, weights and optimizer state, bit for bit", gaps, 0)


def several(mode: str, runs: Path, ranks: Sequence[Mapping[str, Any]]) -> Findings:
    """000-T3b or c: both ways to share a run, against one process."""
    row, alone, shared, moved = ROW_OF[mode], runs / "alone", runs / mode, runs / f"{mode}-moved"
    for what, other in ((f"{SIZE} processes", shared), (f"one process, then {SIZE}", moved)):
        gaps = differences(losses_of(alone), losses_of(other))
        yield row.equal(f"{mode}: {what} have the losses of one process", gaps, TOLERANCE, PRINTED)
        yield row.equal(f"{mode}: {what} have its weights and optimizer state", apart(alone, other), TOLERANCE, PRINTED)
    statement = f"{mode}: what {SIZE} processes go on from is what one has saved, bit for bit"
    yield row.equal(statement, ranks[0]["resumed"], 0)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Step by step; infinite when there are not as many steps."""
    return [abs(a - b) for a, b in zip(ours, theirs, strict=True)] if len(ours) == len(theirs) else [math.inf]


def killed(codes: Sequence[int], runs: Path) -> Findings:
    """000-T3b: what the other rank does when one is killed, and what is lost."""
    shown = f"exit codes {', '.join(map(str, codes))}"
    statement = f"when one rank is killed the other ends with {RESUMABLE}: stopped, can be resumed"
    yield DDP.shows(statement, list(codes) == [RESUMABLE, -signal.SIGKILL], shown, codes=list(codes))
    gaps = [*differences(losses_of(runs / "ddp"), losses_of(runs / "killed")), apart(runs / "ddp", runs / "killed")]
    yield DDP.equal("resumed on 2 ranks it ends as the run that was not killed, bit for bit", gaps, 0)


def memory(alone: Mapping[str, Any], seen: Sequence[Mapping[str, Any]]) -> Findings:
    """000-T3b and c: what a rank holds."""
    held = {"one process": alone, **{mode: most(rank[mode] for rank in seen) for mode in ROW_OF}}
    rows = [(name, *(own[kind] for kind in KINDS), own["peak"]) for name, own in held.items()]
    yield table("Bytes that a rank holds, at most", ("", *KINDS, "peak of the process"), rows)
    shares = {mode: [held[mode][kind] / alone[kind] for kind in KINDS] for mode in ROW_OF}
    for mode, expected in (("ddp", 1), ("fsdp", 1 / SIZE)):
        shown = ", ".join(f"{kind} {share:.3f}" for kind, share in zip(KINDS, shares[mode], strict=True))
        close = all(abs(share - expected) < 0.1 for share in shares[mode])
        statement = f"{mode}: a rank holds {expected:g} of weights, gradients and optimizer state"
        yield ROW_OF[mode].shows(statement, close, shown, "(32,16) -> (16,16)" if mode == "fsdp" else "",
                                 **dict(zip(KINDS, shares[mode], strict=True)))  # fmt: skip


def most(ranks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The largest of each number."""
    each = list(ranks)
    return {kind: max(rank[kind] for rank in each) for kind in (*KINDS, "peak")}
