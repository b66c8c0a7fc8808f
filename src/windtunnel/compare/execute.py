"""Runs on any `concurrent.futures.Executor`: threads of this process by default, or a cluster that shares the folders.

What an executor is given is `train_run`, which trains one run in a process of its own: one that fails, or is killed,
takes no other with it. The run folder carries everything else. Its lock makes sure that nobody trains a run twice, its
checkpoint is where the next process goes on, its `metrics.jsonl` is what progress is read from, and a file named
`stop` in it asks its process to save and end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.train.events import Event, Started, Step, Stopped, from_line

STOP = "stop"
MOST_DEATHS = 3
"""A run whose process died this often without a new checkpoint between is given up."""


@contextmanager
def open_executor(name: str, at_once: int) -> Iterator[Executor]:
    """The executor of a name: `local`, `dask` (a cluster on this machine) or `dask=ADDRESS` of a scheduler.

    Raises:
        ConfigError: for another name, or a scheduler that does not answer.
        MissingExtra: when dask is not installed.
    """
    kind, _, address = name.partition("=")
    if kind == "local" and not address:
        with ThreadPoolExecutor(at_once) as threads:
            yield threads
        return
    if kind != "dask":
        raise ConfigError(f"there is no executor {name!r}; known are local, dask and dask=ADDRESS")
    try:
        import distributed
    except ImportError:
        raise MissingExtra("distributed", "cluster", "--executor dask") from None
    settings: dict[str, Any] = {"n_workers": at_once, "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = distributed.Client(address) if address else distributed.Client(**settings)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no dask scheduler answers at {address or 'this machine'}: {error}") from None
    with client:
        yield client.get_executor(pure=False)  # pure: the same run asked for again would be answered from memory


def execute(
    folders: Sequence[Path], executor: Executor, should_stop: Callable[[], bool] = lambda: False, patience: float = 10
) -> Iterator[tuple[int, Event]]:
    """Train the runs in these folders to their ends; yields (index of the folder, event) as they come.

    Every folder ends in exactly one Stopped event, also when its process is killed. When `should_stop` says yes, the
    running ones save and stop, and the others are not begun.

    Args:
        patience: seconds to wait for a run that another process is training.
    """
    for folder in folders:
        (folder / STOP).unlink(missing_ok=True)
    logs = [_Log(folder / "metrics.jsonl") for folder in folders]
    lives = [_Lives(folder) for folder in folders]
    waiting = {executor.submit(train_run, str(folder), patience): i for i, folder in enumerate(folders)}
    asked = False
    try:
        while waiting:
            if not asked and should_stop():
                asked = True
                _ask_to_stop(folders[i] for i in waiting.values())
            done, _ = wait(waiting, timeout=0.2, return_when="FIRST_COMPLETED")
            for i in sorted(waiting.values()):
                yield from ((i, event) for event in logs[i].new())
            for future in done:
                i = waiting.pop(future)
                if future.exception() is not None and not asked and lives[i].another():
                    waiting[executor.submit(train_run, str(folders[i]), patience)] = i  # its worker was lost
                else:
                    yield i, _ending(future)
    finally:
        _ask_to_stop(folders[i] for i in waiting.values())


def train_run(folder: str, patience: float) -> Stopped:
    """Train the run in a folder to its end in a process of its own; when that is killed, go on with another.

    The process watches the pipe that it gets as its input: when the one who waits here is gone, it saves and ends.
    """
    path, lives = Path(folder), _Lives(Path(folder))
    while True:
        if (path / STOP).exists():
            return Stopped(0, "interrupted", "not begun")
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "windtunnel.compare.worker", folder, str(patience)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=errors,
                start_new_session=True,  # Ctrl-C reaches only the parent, which passes it on
            )
            code = process.wait()
            assert process.stdin is not None
            process.stdin.close()
            line, wrong = _text(said), _text(errors).splitlines()
        if line:
            event = from_line(line + "\n")
            assert isinstance(event, Stopped)
            return event
        if code >= 0:
            return Stopped(0, "failed", wrong[-1] if wrong else f"its process ended with exit code {code}")
        if code == -signal.SIGTERM:  # before it could take it up: nothing was begun, nothing is lost
            return Stopped(0, "interrupted", "its process was ended")
        if not lives.another():
            return Stopped(0, "failed", f"its process was killed by signal {-code}, {MOST_DEATHS} times in a row")


class _Lives:
    """How often a run may be begun again: as long as it saves something new between two deaths, and thrice if not."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.deaths = folder, 0
        self.saved = self._checkpoints()

    def another(self) -> bool:
        saved = self._checkpoints()
        self.deaths = self.deaths + 1 if saved == self.saved else 1
        self.saved = saved
        return self.deaths < MOST_DEATHS

    def _checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("step-*"))


class _Log:
    """What is added to a run's `metrics.jsonl`, read from time to time."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0
        old = self._read()
        # Where a run stands that goes on: its last Started and its last Step.
        self.unread = [e for kind in (Started, Step) for e in [e for e in old if isinstance(e, kind)][-1:]]

    def new(self) -> list[Event]:
        """The events since the last call, without how the run ended."""
        events, self.unread = [*self.unread, *self._read()], []
        return [event for event in events if not isinstance(event, Stopped)]

    def _read(self) -> list[Event]:
        if not self.path.exists():
            return []
        self.offset = min(self.offset, self.path.stat().st_size)  # a resumed run cuts its log back
        with self.path.open("rb") as file:
            file.seek(self.offset)
            *lines, _ = file.read().split(b"\n")
        self.offset += sum(len(line) + 1 for line in lines)
        events: list[Event] = []
        for line in lines:
            with suppress(ValueError):  # the middle of a line, when the log was cut back: only progress is shown here
                events.append(from_line(line.decode() + "\n"))
        return events


def _ending(future: Future[Stopped]) -> Stopped:
    error = future.exception()
    return future.result() if error is None else Stopped(0, "failed", f"its worker was lost: {error}")


def _ask_to_stop(folders: Iterable[Path]) -> None:
    for folder in folders:
        (folder / STOP).touch()


def _text(file: Any) -> str:
    file.seek(os.SEEK_SET)
    return file.read().decode(errors="replace").strip()
