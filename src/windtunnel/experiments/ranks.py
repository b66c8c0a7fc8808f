"""Ranks of an experiment: real processes with gloo between them, as torchrun starts them.

    python -m windtunnel.experiments.ranks TASK FOLDER [STEP]

is one of them; it prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from windtunnel.errors import WindtunnelError
from windtunnel.training import machine
from windtunnel.training.checkpoint import load_weights, newest_checkpoint
from windtunnel.training.compiling import loss_function
from windtunnel.training.data import batches, open_task
from windtunnel.training.distributed import Ranks, Sharded, open_ranks
from windtunnel.training.events import Step
from windtunnel.training.loop import resume
from windtunnel.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from windtunnel.training.run import open_run
from windtunnel.training.step import gradients

KINDS = ("weights", "gradients", "optimizer")
PATIENCE = 300.0
"""Seconds after which a rank that has not ended is ended."""


# ---------------------------------------------------------------------------------------------- who starts the ranks


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code, minus the signal that killed it, and what it wrote to stdout and stderr."""

    code: int
    gave: str
    said: str


def on_ranks(size: int, task: str, folder: Path, *words: object) -> list[Ended]:
    """Start `size` ranks of a task on this machine, and wait until all have ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "windtunnel.experiments.ranks", task, str(folder), *map(str, words)]
    processes = []
    for rank in range(size):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    return [_ended(process) for process in processes]


def _ended(process: subprocess.Popen[str]) -> Ended:
    try:
        gave, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        gave, said = process.communicate()
    return Ended(process.returncode, gave, said)


def given(ends: Sequence[Ended]) -> list[Any]:
    """What ranks gave, all of which must have ended well.

    Raises:
        WindtunnelError: when one did not, with its last words.
    """
    for rank, ended in enumerate(ends):
        if ended.code:
            last = (ended.said.strip().splitlines() or ["nothing"])[-1]
            raise WindtunnelError(f"rank {rank} of {len(ends)} ended with {ended.code}; it said: {last}")
    return [json.loads(ended.gave) for ended in ends]


# --------------------------------------------------------------------------------------------------- what a rank does


def train(runs: Path) -> dict[str, dict[str, Any]]:
    """Both modes: a run from its beginning, one that a process alone began, and what this rank holds."""
    seen = {}
    with open_ranks("ddp") as ddp:
        assert hasattr(ddp, "control")
        for ranks in (ddp, Sharded(ddp.control)):
            run(runs / str(ranks.mode), ranks)
            moved = runs / f"{ranks.mode}-moved"
            resumed = changed(moved, ranks)
            run(moved, ranks)
            seen[str(ranks.mode)] = {"resumed": resumed, **held(moved, ranks)}
    return seen


def die(folder: Path, step: str) -> None:
    """Train with DDP; rank 1 is killed once so many steps are done."""
    with open_ranks("ddp") as ranks:
        for event in resume(folder, ranks=ranks):
            if ranks.rank == 1 and isinstance(event, Step) and event.step == int(step):
                os.kill(os.getpid(), signal.SIGKILL)


def go_on(folder: Path) -> None:
    """Train with DDP to the end."""
    with open_ranks("ddp") as ranks:
        run(folder, ranks)


def run(folder: Path, ranks: Ranks | None = None, stop_at: int | None = None) -> None:
    """Train a run to its end, or ask it to stop once so many steps are done."""
    done = [0]
    for event in resume(folder, lambda: stop_at is not None and done[0] >= stop_at, ranks=ranks):
        done[0] = event.step


def restored(folder: Path, ranks: Ranks) -> tuple[nn.Module, Any]:
    """Model and optimizer as these ranks go on with them, from the newest checkpoint of a run."""
    config, checkpoint = open_run(folder).config, newest_checkpoint(folder)
    assert checkpoint is not None
    model = config.model.create()
    load_weights(model, checkpoint.weights)
    ranks.place(model).train()
    optimizer = build_optimizer(model, config.optimizer)
    restore_optimizer(optimizer, model, checkpoint.optimizer, ranks.shard)
    return model, optimizer


def changed(folder: Path, ranks: Ranks) -> float:
    """The largest difference between what is saved and what these ranks go on from, gathered; on rank 0."""
    checkpoint = newest_checkpoint(folder)
    assert checkpoint is not None
    gathered = ranks.gather(*restored(folder, ranks))
    if ranks.rank:
        return 0.0
    pairs = zip((checkpoint.weights, checkpoint.optimizer), gathered, strict=True)
    return max(float((own - whole[name]).abs().max()) for saved, whole in pairs for name, own in saved.items())


def held(folder: Path, ranks: Ranks) -> dict[str, float]:
    """Bytes of weights, gradients and optimizer state of this rank, and the most that its process ever held."""
    model, optimizer = restored(folder, ranks)
    run = open_run(folder)
    task = open_task(run.config, run.store())
    loss = loss_function(ranks.forward(model), task, run.config, ranks.size)
    gradients(loss, batches(run.config, task)(0), run.config.train.grad_accumulation, run.config.seed, 0, ranks)
    own = (model.parameters(), (p.grad for p in model.parameters()), optimizer_tensors(optimizer, model).values())
    return {**dict(zip(KINDS, map(n_bytes, own), strict=True)), "peak": machine.peak_memory()}


def n_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes that this process holds of tensors, of each of which it may have a shard."""
    return sum(getattr(tensor, "to_local", lambda tensor=tensor: tensor)().nbytes for tensor in tensors)


TASKS: dict[str, Callable[..., Any]] = {"train": train, "die": die, "go-on": go_on}


def main() -> int:
    """One rank; the exit code is that of the error that ended it."""
    task, folder, *words = sys.argv[1:]
    try:
        print(json.dumps(TASKS[task](Path(folder), *words)))
    except WindtunnelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
