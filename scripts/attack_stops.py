"""Kill a stacked group, fill the disk: `python scripts/attack.py kills` and `disk`."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from attack_forked import corpus, forked, small
from stress_kill import result  # beside this script

from windtunnel import files
from windtunnel.config import override
from windtunnel.runs.measure import measure
from windtunnel.runs.seeds import create_seeds
from windtunnel.training import disk, loop
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.events import Evaluation, Step, Stopped, read_events
from windtunnel.training.recipes import mlp
from windtunnel.training.run import METRICS
from windtunnel.training.run_config import RunConfig
from windtunnel.training.stack import resume_stacked

ROUNDING = 1e-4
"""In nats: what the losses of seeds that stood at different steps may differ by."""


def die_at_call(number: int) -> None:
    """The `number`-th call (from 0) of all that writes a run is preceded by SIGKILL."""
    for module in (files, disk, loop):
        module.os = Counting(number)  # type: ignore[attr-defined]


class Counting:
    """The module `os`, whose calls that write are counted by all of its copies together."""

    count = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "write", "fsync", "close", "rename", "mkdir", "truncate"):
            return real

        def call(*given: Any, **named: Any) -> Any:
            Counting.count += 1
            if Counting.count > self.number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return call


def standing(whole: list[Path], folder: Path) -> list[Path]:
    """The finished runs of a stack as they stood at 0, 20, 40 and again 20 steps."""
    shutil.copytree(whole[0].parent, folder)
    runs = [folder / run.name for run in whole]
    for run, last in zip(runs, (0, 20, 40, 20), strict=True):
        for step, path in checkpoints(run):
            if step > last:
                shutil.rmtree(path)
    return runs


def attack_kills(kills: int, draw: random.Random, work: Path) -> dict[str, Any]:
    """Kill a group whose seeds stand at different steps, again and again, and resume it to the end."""
    os.environ["WINDTUNNEL_CACHE"] = str(work / "cache")
    short = ["train.steps=60", "train.eval_every=30", "train.save_every=20", "train.keep=3", "train.sample_tokens=0",
             "train.threads=1", "text.dev_fraction=0.1", "model.d_hidden=50"]  # fmt: skip
    config = override(mlp(str(corpus(work))), short)
    whole = create_seeds(config, range(4), work / "whole")
    list(resume_stacked(whole))
    expected = [losses(run) for run in whole]
    broken: list[str] = []
    n_killed, n_groups, apart = 0, 0, 0.0
    while n_killed < kills:
        n_groups += 1
        runs = standing(whole, work / f"group-{n_groups}")
        for _ in range(draw.randint(1, 4)):
            n_killed += _killed(runs, draw) == "killed"
        said = forked(lambda runs=runs: [e.reason for _, e in resume_stacked(runs) if isinstance(e, Stopped)])
        if said.value != json.dumps(["finished"] * 4):
            broken.append(f"group {n_groups} did not end: {said}")
            continue
        for run, right in zip(runs, expected, strict=True):
            apart = max(apart, *(abs(a - b) for a, b in zip(losses(run), right, strict=False)))
            broken += wrong_in_log(run)
        shutil.rmtree(runs[0].parent)
    if apart > ROUNDING:
        broken.append(f"losses differ by {apart} from the undisturbed ones")
    return {"kills": n_killed, "groups": n_groups, "most_apart": apart, "broken": broken}


def _killed(runs: list[Path], draw: random.Random) -> str:
    """Resume, and be killed: at a random call of all that write, or at a random moment."""

    def train() -> None:
        if at_call:
            die_at_call(draw.randrange(700))
        list(resume_stacked(runs))

    at_call = draw.random() < 0.5
    return forked(train, kill_after=None if at_call else draw.uniform(0.2, 2)).how


def losses(run: Path) -> list[float]:
    """The loss of each step, from the log."""
    return [event.loss for event in read_events(run / METRICS) if isinstance(event, Step)]


def wrong_in_log(run: Path) -> list[str]:
    """What is doubled, lost or left over."""
    events, wrong = read_events(run / METRICS), []
    for kind, steps in {Step: range(1, 61), Evaluation: (0, 30, 60), Stopped: (60,)}.items():
        found = [event.step for event in events if isinstance(event, kind)]
        if found != list(steps):
            wrong.append(f"{run}: {kind.__name__} of steps {found}")
    return wrong + [f"left over: {path}" for path in run.glob(".tmp-*")]


def attack_disk(levels: int, draw: random.Random, work: Path) -> dict[str, Any]:
    """Train where only so many bytes are left, then, with room, to the end."""
    room = work / "disk"
    room.mkdir()
    config = small(work)
    whole = trained(config, work / "whole")
    size = sum(path.stat().st_size + 4096 for path in (work / "whole").rglob("*"))
    mounted = mount(room)
    broken, refused = [], 0
    for level in range(levels):
        left = int(size * (level + draw.random()) / levels)
        said = forked(lambda left=left: full_after(left, mounted, room) or trained(config, room / "all"))
        refused += said.how == "error"
        if said.how not in ("error", "value") or (said.how == "error" and "space" not in said.value):
            broken.append(f"{left} bytes: {said}")
        (room / "filler").unlink(missing_ok=True)
        again = forked(lambda: trained(config, room / "all"))
        if json.loads(again.value or "0") != json.loads(json.dumps(whole)):
            broken.append(f"{left} bytes: resumed otherwise: {again}")
        broken += [f"{left} bytes: left over: {path}" for path in room.rglob(".tmp-*")]
        shutil.rmtree(room / "all", ignore_errors=True)
    if mounted:
        subprocess.run(["umount", str(room)], check=True)
    return {"levels": levels, "refused": refused, "real disk": mounted, "broken": broken}


def trained(config: RunConfig, folder: Path) -> object:
    """Make the run and its token store, train, measure and write a text, all below one folder."""
    os.environ["WINDTUNNEL_CACHE"] = str(folder / "cache")
    (run,) = create_seeds(config, [0], folder / "runs")
    list(loop.resume(run))
    measure(run)
    files_there = sorted(str(path.relative_to(folder)) for path in run.rglob("*"))
    with disk.saving(folder):
        files.write_text(folder / "page.html", 20_000 * "page")
    return [result(run), (run / "measured/documents.safetensors").read_bytes().hex(), files_there]


def mount(folder: Path) -> bool:
    """Put a small disk of its own there, where that is permitted."""
    call = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(call, capture_output=True, check=False).returncode == 0


def full_after(n_bytes: int, mounted: bool, room: Path) -> None:
    """Fill the disk but for so many bytes; where there is none, refuse to write more than them."""
    if mounted:
        there = os.statvfs(room)
        (room / "filler").write_bytes(bytes(max(0, there.f_bavail * there.f_bsize - n_bytes)))
        return
    written, real = [0], os.write

    def write(descriptor: int, data: Any) -> int:
        if written[0] >= n_bytes:
            raise OSError(28, os.strerror(28))
        part = data[: n_bytes - written[0]]
        written[0] += len(part)
        return real(descriptor, part)

    os.write = write
