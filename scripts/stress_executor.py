"""Kill what trains on an executor with SIGKILL, again and again, and show that no run is lost, doubled or changed.

    python scripts/stress_executor.py --kills 20 --executor local
    python scripts/stress_executor.py --kills 20 --executor dask
    python scripts/stress_executor.py --kills 20 --executor scheduler

Six small runs (AdamW, dropout, accumulation 4), two at a time, are trained by a driver, a process that iterates
`execute`. At random moments a random victim is killed: a process that trains, a dask worker, or the driver, which is
then started again. When all six have ended and kills are left, another six begin. `dask` is a cluster inside the
driver; `scheduler` is one with workers of its own that outlives it.

Prints JSON: kills by victim; how often a driver gave up (a run was killed three times without a new checkpoint between,
or the scheduler did not answer) and was started again; runs lost; runs with a step that is in the log twice or not at
all; and runs whose weights, optimizer state and losses equal those of a run that nothing disturbed. The exit code is 0
only when nothing was lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SEEDS, STEPS, SAVE_EVERY, AT_ONCE = range(6), 300, 20, 2
PAUSE = 2.0, 7.0
"""Seconds between two kills, drawn uniformly; a process needs about three to import torch."""
LONGEST = 1800.0
"""Seconds after which a round counts as hung, and its unfinished runs as lost."""


@dataclass
class Summary:
    """What the kills did."""

    executor: str
    kills: dict[str, int] = field(default_factory=lambda: {"training": 0, "dask worker": 0, "driver": 0})
    rounds: int = 0
    runs: int = 0
    given_up: int = 0
    lost: int = 0
    doubled_or_missing_steps: int = 0
    equal_to_undisturbed: int = 0
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything that is promised held."""
        return self.lost == self.doubled_or_missing_steps == 0 < self.equal_to_undisturbed == self.runs


def make_runs(folder: Path) -> list[Path]:
    """The folders of new runs of some seconds on made-up names."""
    from stress_kill import config_of  # beside this script

    from windtunnel.config import override
    from windtunnel.runs.seeds import create_seeds

    settings = [f"train.save_every={SAVE_EVERY}", "train.eval_every=100"]
    config = override(config_of(folder.parent, STEPS), settings)
    return create_seeds(config, SEEDS, folder)


def drive(executor: str, folder: Path) -> int:
    """What the driver does: train the runs that have not finished; 0 when all have, 75 when there is more to do."""
    from windtunnel.errors import ConfigError
    from windtunnel.runs.execute import execute, open_executor
    from windtunnel.training.events import Stopped

    open_runs = [path for path in runs_of(folder) if not finished(path)]
    try:
        with open_executor(executor, AT_ONCE) as pool:
            endings = {i: event for i, event in execute(open_runs, pool) if isinstance(event, Stopped)}
    except ConfigError as error:  # the scheduler is too busy with killed workers to answer
        print(error, file=sys.stderr)
        return 75
    for i, ended in endings.items():
        if ended.reason != "finished":
            print(f"{open_runs[i].name}: {ended.reason}: {ended.message}", file=sys.stderr)
    return 75 if any(ended.reason != "finished" for ended in endings.values()) else 0


def runs_of(folder: Path) -> list[Path]:
    return [folder / f"seed-{seed}" for seed in SEEDS]


def finished(run: Path) -> bool:
    return (run / f"step-{STEPS}").exists() and (run / "measured").exists()


def start(executor: str, folder: Path) -> subprocess.Popen[bytes]:
    """Begin a driver."""
    return subprocess.Popen([sys.executable, __file__, "--executor", executor, "--drive", str(folder)])


def victims(driver: int, folder: Path) -> dict[str, list[int]]:
    """The processes that can be killed now, by kind."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,ppid=,command="], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[int]] = {"training": [], "dask worker": [], "driver": [driver]}
    for line in listed.splitlines():
        pid, parent, command = line.split(None, 2)
        if f"windtunnel.runs.worker {folder}/" in command:
            found["training"].append(int(pid))
        elif "spawn_main" in command and int(parent) == os.getpid():
            found["dask worker"].append(int(pid))
    return found


def kill(draw: random.Random, driver: int, folder: Path, summary: Summary) -> bool:
    """Kill one process of a kind drawn, if there is one; whether it was the driver."""
    found = victims(driver, folder)
    kind = draw.choice(("training", "training", "dask worker", "dask worker", "driver"))
    try:
        os.kill(draw.choice(found[kind]), signal.SIGKILL)
    except (IndexError, ProcessLookupError):  # there is none, or it ended by itself a moment ago
        return False
    summary.kills[kind] += 1
    return kind == "driver"


def one_round(kills: int, executor: str, folder: Path, draw: random.Random, summary: Summary) -> None:
    """Train six runs to their ends, whatever is killed meanwhile."""
    make_runs(folder)
    driver, begin = start(executor, folder), time.monotonic()
    while time.monotonic() - begin < LONGEST:
        enough = sum(summary.kills.values()) >= kills
        try:
            code = driver.wait(timeout=LONGEST if enough else draw.uniform(*PAUSE))
        except subprocess.TimeoutExpired:
            if enough or not kill(draw, driver.pid, folder, summary):
                continue
            driver.wait()
        else:
            if code == 0:
                break
            summary.given_up += code == 75
            if code != 75:
                print(f"the driver ended with exit code {code}", file=sys.stderr)
                break
        driver = start(executor, folder)
    driver.kill()
    driver.wait()


def result(run: Path) -> tuple[object, ...]:
    """Everything that must not depend on what was killed: weights, optimizer state, losses of the documents."""
    files = (run / f"step-{STEPS}" / "model.safetensors", run / f"step-{STEPS}" / "optimizer.safetensors")
    return *(hashlib.sha256(path.read_bytes()).hexdigest() for path in files), *(loss for _, loss in steps(run))


def steps(run: Path) -> list[tuple[int, float]]:
    """(number, loss) of every step in a run's log."""
    from windtunnel.training.events import Step, read_events

    return [(event.step, event.loss) for event in read_events(run / "metrics.jsonl") if isinstance(event, Step)]


def judge(folder: Path, undisturbed: Path, summary: Summary) -> None:
    """Compare each run with the one of its seed that nothing disturbed."""
    summary.rounds += 1
    for run, other in zip(runs_of(folder), runs_of(undisturbed), strict=True):
        summary.runs += 1
        if not finished(run):
            summary.lost += 1
            continue
        if [number for number, _ in steps(run)] != list(range(1, STEPS + 1)):
            summary.doubled_or_missing_steps += 1
        summary.equal_to_undisturbed += result(run) == result(other)


@contextmanager
def kept_whole(cluster: Any, n: int) -> Iterator[None]:
    """Replace workers that a dask cluster gives up for good, as it does with one that is killed while it starts."""
    over = threading.Event()

    def replace() -> None:
        for name in [name for name, nanny in cluster.workers.items() if nanny.status.name in ("closed", "failed")]:
            del cluster.workers[name]
        cluster.scale(n)

    def watch() -> None:
        while not over.wait(2):
            cluster.loop.add_callback(replace)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def stress(kills: int, kind: str, seed: int, work: Path) -> Summary:
    """The undisturbed runs first, then rounds until there were enough kills."""
    from windtunnel.training.loop import resume

    summary, begin, draw = Summary(kind), time.perf_counter(), random.Random(seed)
    for run in make_runs(work / "undisturbed"):
        list(resume(run))
    executor, stack = kind, ExitStack()
    if kind == "scheduler":
        import distributed

        own = {"n_workers": AT_ONCE, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        cluster = distributed.LocalCluster(**own)
        stack.enter_context(cluster)
        stack.enter_context(kept_whole(cluster, AT_ONCE))
        executor = f"dask={cluster.scheduler_address}"
    with stack:
        while sum(summary.kills.values()) < kills:
            folder = work / f"round-{summary.rounds}"
            one_round(kills, executor, folder, draw, summary)
            judge(folder, work / "undisturbed", summary)
    summary.seconds = round(time.perf_counter() - begin, 1)
    return summary


def main() -> int:
    """Parse, kill, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="how many SIGKILLs (20)")
    parser.add_argument("--executor", default="local", help="local (the default), dask or scheduler")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments (0)")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.drive:
        return drive(asked.executor, asked.drive)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as work:
        os.environ["WINDTUNNEL_CACHE"] = f"{work}/cache"
        summary = stress(asked.kills, asked.executor, asked.seed, Path(work).resolve())
    print(json.dumps({**asdict(summary), "good": summary.good}, indent=2))
    return 0 if summary.good else 1


if __name__ == "__main__":
    sys.exit(main())
