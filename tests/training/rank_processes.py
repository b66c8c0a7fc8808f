"""N real processes with gloo between them, as torchrun starts them, but forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from patience import PATIENCE

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["windtunnel.training.loop", "torch.distributed.fsdp", "torch.distributed.tensor"])


@dataclass
class Ended:
    """How a rank ended: its exit code, and what it gave back or wrote to stderr."""

    code: int | None
    gave: object
    said: str


class Processes:
    """`size` ranks that call function(*arguments), each in its own process."""

    def __init__(self, size: int, function: Callable[..., object], *arguments: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.ranks = []
        for rank in range(size):
            mine, its = server.Pipe()
            environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
            process = server.Process(target=_rank, args=(environment, its, function, arguments))
            process.start()
            its.close()
            self.ranks.append((process, mine))

    def join(self, timeout: float = PATIENCE) -> list[Ended]:
        """Wait until all have ended; one that does not is killed and has no code."""
        ends = []
        for process, pipe in self.ranks:
            gave, said = None, ""
            try:
                if pipe.poll(timeout):
                    gave, said = pipe.recv()
            except EOFError:  # killed
                pass
            process.join(timeout)
            ends.append(Ended(process.exitcode, gave, said))
            process.kill()
        return ends


def on_ranks(size: int, function: Callable[..., object], *arguments: object) -> list[object]:
    """What each of `size` ranks gives; all must end well."""
    ends = Processes(size, function, *arguments).join()
    assert all(ended.code == 0 for ended in ends), "\n".join(ended.said for ended in ends)
    return [ended.gave for ended in ends]


def command(folder: Path, *words: object) -> None:
    """The command line, as `python -m windtunnel` in a folder."""
    from windtunnel import cli

    os.chdir(folder)
    sys.argv = ["windtunnel", *map(str, words)]
    cli.main()


def _rank(environment, pipe, function, arguments):
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.stderr, sys.stdout = said, _ = StringIO(), StringIO()
    gave, code = None, 0
    try:
        gave = function(*arguments)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        code = 99
    pipe.send((gave, said.getvalue()))
    sys.exit(code)
