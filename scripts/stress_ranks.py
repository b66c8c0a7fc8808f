"""Kill one rank of a run that several processes train together, again and again; nothing is lost, nothing changes.

    python scripts/stress_ranks.py --kills 20

A small run (AdamW, dropout, accumulation 4, saved every 3 steps) is trained with DDP and FSDP by 2 and by 3 processes,
as `windtunnel resume RUN --parallel` under torchrun. At a random moment a random rank is killed, every fourth time rank
0 at a random system call inside a save; then the run is resumed. Prints JSON: kills by rank; how many of the other
ranks did not exit with 75 (or 0, when they had finished), and the longest time one of them took; runs that could not be
read; the most finished steps that a kill lost; and whether weights, optimizer state and losses at the end equal those
of a run that nothing interrupted. The exit code is 0 only when all of that holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import stress_kill as one  # beside this script
import torch
import torch.distributed.fsdp  # like what follows here, so that the forked processes need not

from windtunnel import cli
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import prepare
from windtunnel.training.run import METRICS, create_run, resolve

STEPS, LONGEST = 24, 900.0
"""Steps of a run; seconds after which another rank that has not ended hangs, however loaded the machine is."""
WAYS = tuple(product(("ddp", "fsdp"), (2, 3)))


@dataclass
class Summary(one.Summary):
    """What the kills did."""

    kills_by_rank: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0, 2: 0})
    wrong_exits: int = 0
    slowest_exit: float = 0.0

    @property
    def good(self) -> bool:
        """Whether everything that is promised held."""
        return super().good and self.wrong_exits == 0 and self.slowest_exit <= LONGEST


def begin(folder: Path, mode: str, size: int, kill_rank_0_at: int | None = None) -> list[int]:
    """Fork the ranks; their process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [one.start(lambda rank=rank: train(rank, folder, mode, size, port, kill_rank_0_at)) for rank in range(size)]


def train(rank: int, folder: Path, mode: str, size: int, port: str, kill_rank_0_at: int | None) -> None:
    """What a rank does."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({**{name: str(value) for name, value in own.items()}, "MASTER_PORT": port})
    said = os.open(folder.parent / f"said-{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if rank == 0 and kill_rank_0_at is not None:
        one.die_inside_save(kill_rank_0_at)
    sys.argv = ["windtunnel", "resume", str(folder), "--parallel", mode]
    try:
        cli.main()
    except SystemExit as ended:
        sys.stderr.flush()
        os._exit(int(ended.code or 0))


def wait(processes: Sequence[int]) -> tuple[list[int], float]:
    """The ranks' exit codes, once all have ended, and the seconds between the first end and the last."""
    ended: dict[int, tuple[int, float]] = {}
    while len(ended) < len(processes):
        for process in set(processes) - ended.keys():
            if (status := os.waitpid(process, os.WNOHANG))[0]:
                ended[process] = os.waitstatus_to_exitcode(status[1]), time.monotonic()
            elif ended and time.monotonic() - min(at for _, at in ended.values()) > 2 * LONGEST:
                os.kill(process, signal.SIGKILL)  # it hangs, and that is told by its time
        time.sleep(0.005)
    times = [at for _, at in ended.values()]
    return [ended[process][0] for process in processes], max(times) - min(times)


def under_way(folder: Path, since: int, process: int) -> bool:
    """Whether the ranks have found each other and begun, or one of them has ended."""
    log = folder / METRICS
    over = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return over is not None or (log.exists() and log.stat().st_mtime_ns > since)


def one_life(folder: Path, mode: str, size: int, draw: random.Random, duration: float, summary: Summary) -> bool:
    """Train, kill one rank, wait for the others; whether there was no kill and the run has finished."""
    since, forced = time.time_ns(), summary.kills % 4 == 3
    processes = begin(folder, mode, size, draw.randrange(60) if forced else None)
    if not forced:
        while not under_way(folder, since, processes[0]):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, duration))
        os.kill(draw.choice(processes), signal.SIGKILL)
    codes, seconds = wait(processes)
    victims = [rank for rank, code in enumerate(codes) if code == -signal.SIGKILL]
    if not victims:
        return finished(folder)
    summary.kills_by_rank[victims[0]] += 1
    summary.inside_a_save += forced or any(folder.glob(".tmp-*"))
    summary.slowest_exit = max(summary.slowest_exit, round(seconds, 2))
    one.inspect(folder, summary)
    allowed = (0, 75) if finished(folder) else (75,)
    for rank, code in enumerate(codes):
        if rank != victims[0] and code not in allowed:
            summary.wrong_exits += 1
            print(f"rank {rank}: exit code {code}: {(folder.parent / f'said-{rank}').read_text()}", file=sys.stderr)
    return finished(folder)


def finished(folder: Path) -> bool:
    return (folder / f"step-{STEPS}").exists()


def stress(kills: int, seed: int, work: Path) -> Summary:
    """For each way an undisturbed run first, then runs with kills; what is left at the end is finished in peace."""
    summary, draw, beginning = Summary(), random.Random(seed), time.perf_counter()
    config = one.config_of(work, STEPS)
    store = prepare(open_corpus(config.corpus, config.text.unit), config.text)
    ways = WAYS[: max(1, kills)]
    for number, (mode, size) in enumerate(ways, start=1):

        def make(name: str, way: str = f"{mode}-{size}") -> Path:
            return create_run(work / way / name, resolve(config, store), store).folder

        since = time.perf_counter()
        assert wait(begin(make("whole"), mode, size))[0] == [0] * size
        duration, rounds = 0.7 * (time.perf_counter() - since), 0
        expected, folder = one.result(work / f"{mode}-{size}" / "whole"), make("run-0")
        while summary.kills < kills * number // len(ways):
            if one_life(folder, mode, size, draw, duration, summary):
                wait(begin(folder, mode, size))
                one.finished(folder, expected, summary)
                rounds += 1
                folder = make(f"run-{rounds}")
        wait(begin(folder, mode, size))
        one.finished(folder, expected, summary)
    summary.seconds = round(time.perf_counter() - beginning, 1)
    return summary


def main() -> int:
    """Parse, kill, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="how many SIGKILLs (20)")
    parser.add_argument("--seed", type=int, default=0, help="of ranks and moments (0)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    one.machine.peak_flops("fp32", 1)
    one.build_optimizer(torch.nn.Linear(1, 1), one.OptimizerConfig())
    with tempfile.TemporaryDirectory() as work:
        os.environ["WINDTUNNEL_CACHE"] = f"{work}/cache"
        summary = stress(asked.kills, asked.seed, Path(work).resolve())
    print(json.dumps({**asdict(summary), "good": summary.good}, indent=2))
    return 0 if summary.good else 1


if __name__ == "__main__":
    sys.exit(main())
