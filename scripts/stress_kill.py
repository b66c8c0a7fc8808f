"""Kill training with SIGKILL again and again, and show that nothing is lost and nothing changes.

    python scripts/stress_kill.py --kills 25
    python scripts/stress_kill.py --every-call

The first kills a small run (AdamW, dropout, accumulation 4, saved every 3 steps) at random instants, every
second time at a random system call inside a save, and resumes it each time. The second kills one save at each of
its system calls in turn. Both print JSON: how many of the killed runs could not be read (must be 0), the most
finished steps that a kill lost (at most one save interval), and whether the final weights, optimizer state and
losses of each step equal those of a run that nothing interrupted. The exit code is 0 only when all of that holds.

Each attempt is a forked process, so that torch is imported once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from windtunnel.errors import ArtifactError
from windtunnel.models import TransformerConfig
from windtunnel.text.store import TextConfig
from windtunnel.training import checkpoint, loop, machine
from windtunnel.training.events import Step, read_events
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.run import METRICS, load
from windtunnel.training.run_config import RunConfig, TrainConfig

SAVE_EVERY = 3
CALLS = ("open", "write", "fsync", "close", "rename", "mkdir", "unlink", "rmdir")
"""The system calls at which a save can be killed, as `os` names them; shutil.rmtree uses the last two."""


@dataclass
class Summary:
    """What the kills did."""

    kills: int = 0
    inside_a_save: int = 0
    unreadable_runs: int = 0
    most_steps_lost: int = 0
    save_every: int = SAVE_EVERY
    finished_runs: int = 0
    equal_to_uninterrupted: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything that is promised held."""
        lossless = self.unreadable_runs == 0 and self.most_steps_lost <= self.save_every
        return lossless and 0 < self.finished_runs == self.equal_to_uninterrupted


def config_of(folder: Path, steps: int) -> RunConfig:
    """A run of some seconds on made-up names."""
    draw, corpus = random.Random(0), folder / "names.txt"
    corpus.write_text("\n".join("".join(draw.choices("abcdefghij", k=draw.randint(2, 12))) for _ in range(300)))
    return RunConfig(
        corpus=str(corpus),
        text=TextConfig(unit="line"),
        model=TransformerConfig(context_length=8, n_layers=2, n_heads=2, d_model=16, dropout=0.1),
        optimizer=OptimizerConfig(lr=3e-3),
        train=TrainConfig(
            steps=steps, batch_size=20, grad_accumulation=4, save_every=SAVE_EVERY, eval_every=50, threads=1,
            precision="fp32", compile=False, sample_tokens=0,
        ),
    )  # fmt: skip


def start(action: Callable[[], object]) -> int:
    """Run an action in a forked process; its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


def train(config: RunConfig, folder: Path, kill_at: int | None = None) -> None:
    """Train to the end; `kill_at` is the number of the system call within saves at which the process kills itself."""
    if kill_at is not None:
        die_inside_save(kill_at)
    for _ in loop.fit(config, folder):
        pass


def die_inside_save(number: int) -> None:
    """From now on the `number`-th (from 0) of the CALLS made while saving or pruning is preceded by SIGKILL."""
    count, inside = [0], [False]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **named: object) -> object:
            if inside[0]:
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                count[0] += 1
            return call(*args, **named)

        return wrapped

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **named: object) -> object:
            inside[0] = True
            try:
                return function(*args, **named)
            finally:
                inside[0] = False

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    for module, name in ((loop, "save_checkpoint"), (loop, "prune")):
        setattr(module, name, watched(getattr(checkpoint, name)))


def wait(process: int) -> bool:
    """Wait for a process; whether it was killed. Any other failure ends the script."""
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"the training process failed with exit code {code}")
    return code != 0


def inspect(folder: Path, summary: Summary) -> None:
    """What a kill left: can it be read, and how many finished steps are lost?"""
    summary.kills += 1
    done = read_events(folder / METRICS) if (folder / METRICS).exists() else []
    step = max((event.step for event in done if isinstance(event, Step)), default=0)
    try:
        saved = load(folder).step if any(folder.glob("step-*")) else 0
    except ArtifactError as error:
        print(error, file=sys.stderr)
        summary.unreadable_runs += 1
        return
    summary.most_steps_lost = max(summary.most_steps_lost, step - saved)


def result(folder: Path) -> tuple[object, ...]:
    """Everything that must not depend on interruptions: losses, final weights, final optimizer state."""
    newest = checkpoint.checkpoints(folder)[0][1]
    hashes = (hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(newest.glob("*.safetensors")))
    return *hashes, *(event.loss for event in read_events(folder / METRICS) if isinstance(event, Step))


def finished(folder: Path, expected: tuple[object, ...], summary: Summary) -> None:
    """Compare a run that has ended with the uninterrupted one, then delete it."""
    summary.finished_runs += 1
    summary.equal_to_uninterrupted += result(folder) == expected
    shutil.rmtree(folder)


def random_kills(kills: int, draw: random.Random, work: Path, summary: Summary) -> None:
    """Kill at random instants, every second time inside a save, until there were enough kills."""
    config, folder = config_of(work, steps=24), work / "run"
    begin = time.perf_counter()
    wait(start(lambda: train(config, work / "whole")))
    duration = time.perf_counter() - begin
    expected = result(work / "whole")
    while summary.kills < kills:
        forced = summary.kills % 2 == 1
        process = start(partial(train, config, folder, draw.randrange(60) if forced else None))
        if not forced:
            time.sleep(draw.uniform(0, duration))
            os.kill(process, signal.SIGKILL)
        if wait(process):
            summary.inside_a_save += forced or any(folder.glob(".tmp-*"))
            inspect(folder, summary)
        else:
            finished(folder, expected, summary)
    if folder.exists():
        wait(start(lambda: train(config, folder)))
        finished(folder, expected, summary)


def every_call(work: Path, summary: Summary) -> None:
    """Kill the third save, the first one that also deletes, at each of its calls."""
    short = config_of(work, steps=3 * SAVE_EVERY)
    wait(start(lambda: train(short, work / "whole")))
    expected, begin, number = result(work / "whole"), work / "begin", 0
    # The calls of the first two saves are passed over by stopping there.
    wait(start(lambda: stop_at(short, begin, 2 * SAVE_EVERY)))
    while True:
        folder = work / "run"
        shutil.copytree(begin, folder)
        killed = wait(start(partial(train, short, folder, number)))
        if killed:
            summary.inside_a_save += 1
            inspect(folder, summary)
            wait(start(partial(train, short, folder)))
        finished(folder, expected, summary)
        if not killed:
            return
        number += 1


def stop_at(config: RunConfig, folder: Path, step: int) -> None:
    """Train until the checkpoint of this step is on disk."""
    for event in loop.fit(config, folder):
        if type(event).__name__ == "Saved" and event.step == step:
            return


def main() -> int:
    """Parse, kill, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=25, help="SIGKILLs at random instants (25)")
    parser.add_argument("--every-call", action="store_true", help="one kill at each system call of a save instead")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants (0)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    # Done once here, so that the forked processes need not: measure the machine, import what optimizers import.
    machine.peak_flops("fp32", 1)
    build_optimizer(torch.nn.Linear(1, 1), OptimizerConfig())
    summary, begin = Summary(), time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        os.environ["WINDTUNNEL_CACHE"] = f"{work}/cache"
        if asked.every_call:
            every_call(Path(work), summary)
        else:
            random_kills(asked.kills, random.Random(asked.seed), Path(work), summary)
    summary.seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({**asdict(summary), "good": summary.good}, indent=2))
    return 0 if summary.good else 1


if __name__ == "__main__":
    sys.exit(main())
