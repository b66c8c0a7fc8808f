"""Runs side by side, one process a run: a run that fails, or is killed, takes no other with it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from windtunnel.train.events import Event, Stopped, from_line


@dataclass
class _Worker:
    """A running process, what it has written of an unfinished line, and where its errors go."""

    index: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    rest: bytes = b""
    stopped: bool = False


def execute(
    folders: Sequence[Path], at_once: int, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Event]]:
    """Train the runs in these folders, `at_once` at a time; yields (index of the folder, event) as they come.

    Every folder ends in exactly one Stopped event, also when its process is killed. When `should_stop` says yes, the
    running ones save and stop, and the others are not begun.
    """
    waiting = list(enumerate(folders))
    asked = False
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                if not asked and should_stop():
                    asked = True
                    _signal_all(selector, signal.SIGTERM)
                    yield from ((i, Stopped(0, "interrupted", "not begun")) for i, _ in waiting)
                    waiting = []
                while waiting and len(selector.get_map()) < at_once:
                    _start(selector, *waiting.pop(0))
                for key, _ in selector.select(timeout=0.2):
                    yield from _read(selector, key.data)
        finally:
            _signal_all(selector, signal.SIGTERM)
            for key in list(selector.get_map().values()):
                key.data.process.communicate()


def _start(selector: selectors.BaseSelector, index: int, folder: Path) -> None:
    errors = tempfile.TemporaryFile()  # noqa: SIM115, the worker closes it when its process has ended
    process = subprocess.Popen(
        [sys.executable, "-m", "windtunnel.compare.worker", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # Ctrl-C reaches only the parent, which passes it on as a SIGTERM
    )
    assert process.stdout is not None
    selector.register(process.stdout, selectors.EVENT_READ, _Worker(index, process, errors))


def _read(selector: selectors.BaseSelector, worker: _Worker) -> Iterator[tuple[int, Event]]:
    """The events that have arrived from a worker; at the end of its output, how it ended."""
    assert worker.process.stdout is not None
    chunk = os.read(worker.process.stdout.fileno(), 1 << 16)
    *lines, worker.rest = (worker.rest + chunk).split(b"\n")
    for line in lines:
        event = from_line(line.decode() + "\n")
        worker.stopped = worker.stopped or isinstance(event, Stopped)
        yield worker.index, event
    if chunk:
        return
    selector.unregister(worker.process.stdout)
    code = worker.process.wait()
    if not worker.stopped:
        worker.errors.seek(0)
        said = worker.errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        # A SIGTERM before the worker could take it up: nothing was begun, nothing is lost.
        reason: Literal["interrupted", "failed"] = "interrupted" if code == -signal.SIGTERM else "failed"
        yield worker.index, Stopped(0, reason, said[-1] if said else f"its process {how}")
    worker.process.stdout.close()
    worker.errors.close()


def _signal_all(selector: selectors.BaseSelector, number: signal.Signals) -> None:
    for key in selector.get_map().values():
        key.data.process.send_signal(number)
