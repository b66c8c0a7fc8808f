"""Runs on any `concurrent.futures.Executor`: threads of this process by default, or a cluster that shares the folders.

What an executor is given is `train_runs`, which trains one run in a process of its own, or several seeds of one tiny
model together: a process that fails, or is killed, takes no other with it. The folders carry everything else. A run's
lock makes sure that nobody trains it twice, its checkpoint is where the next process goes on, and its `metrics.jsonl`
is what progress is read from. A file `.wanted-*` beside the runs is locked by the one who waits for them: when it says
stop, or its lock is gone, the processes end.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from windtunnel.config import to_json
from windtunnel.errors import ArtifactError, ConfigError, MissingExtra
from windtunnel.files import open_regular
from windtunnel.runs.worker import lives, train_runs
from windtunnel.text.corpora.cache import private_folder
from windtunnel.training import machine
from windtunnel.training.compiling import is_tiny
from windtunnel.training.disk import saving
from windtunnel.training.events import Event, Started, Step, Stopped, from_line
from windtunnel.training.run import open_run

STEP = b'{"event": "step"'
"""How the line of a Step event begins."""
MOST_STACKED = 8
"""Runs in one process: with more, a step is no longer overhead."""


@contextmanager
def open_executor(name: str, at_once: int) -> Iterator[Executor]:
    """The executor of a name: `local`, `dask` (a cluster in this process) or `dask=ADDRESS` of a scheduler.

    Who may use a scheduler at an address is for its security to say. At a tls:// address, dask's own configuration
    names the certificates (`distributed.comm.tls`).

    Raises:
        ConfigError: for another name, or a scheduler that does not answer.
        MissingExtra: when dask is not installed.
    """
    if name == "local":
        with ThreadPoolExecutor(at_once) as threads:
            yield threads
        return
    kind, equals, address = name.partition("=")
    if kind != "dask" or bool(equals) != bool(address):
        raise ConfigError(f"there is no executor {name!r}; known are local, dask and dask=ADDRESS")
    try:
        import distributed
    except ImportError:
        raise MissingExtra("distributed", "--executor dask") from None
    with ExitStack() as stack:
        reason = ""
        try:
            cluster = address or stack.enter_context(unheard_cluster(distributed, at_once))
            client = stack.enter_context(distributed.Client(cluster, timeout=30))
        except (OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: tls:// without certificates
            what = f"no dask scheduler answers at {address}" if address else "no dask cluster could be started here"
            reason = f"{what}: {error}"
        if reason:
            # A client that could not start closes when it is collected. In the middle of another's start, where that
            # happens otherwise, dask waits for a lock that this very thread holds.
            gc.collect()
            raise ConfigError(reason)
        yield client.get_executor(pure=False)  # pure: the same run asked for again would be answered from memory


@contextmanager
def unheard_cluster(distributed: Any, n: int) -> Iterator[Any]:
    """A dask cluster inside this process, of n workers with a thread each, that listens on no socket.

    Whoever reaches a scheduler or a worker runs code as its user, and dask's own local cluster can be reached by every
    user of the machine. Its pages are left out, too: they are served to the network. Its folders are this user's, since
    Python is to look for modules there, and dask's own are below one that all users share.

    Raises:
        SaveError: when there is no folder that only this user can write to.
    """
    import dask

    def unheard(kind: type) -> type:
        return type(kind.__name__, (kind,), {"start_http_server": lambda self, *args, **kwargs: None})

    options = {"protocol": "inproc://", "dashboard": False}
    worker = {"cls": unheard(distributed.Worker), "options": {**options, "nthreads": 1, "memory_limit": 0}}
    scheduler = {"cls": unheard(distributed.Scheduler), "options": options}
    with (
        dask.config.set({"temporary-directory": str(private_folder("dask"))}),
        distributed.SpecCluster(dict.fromkeys(range(n), worker), scheduler, silence_logs=logging.WARNING) as cluster,
    ):
        yield cluster


def execute(
    folders: Sequence[Path],
    executor: Executor,
    should_stop: Callable[[], bool] = lambda: False,
    patience: float = 10,
    changes: Sequence[str] = (),
) -> Iterator[tuple[int, Event]]:
    """Train the runs in these folders to their ends; yields (index of the folder, event) as they come.

    Every folder ends in exactly one Stopped event, also when its process is killed or the executor breaks. When
    `should_stop` says yes, the running ones save and stop, and the others are not begun.

    Args:
        patience: seconds to wait for a run that another process is training; one that nobody waits for any more
            has half of them to save and end.
        changes: of each folder FILE:FUNCTION that its run was begun with, or nothing; none is nothing for all.
    """
    if not folders:
        return
    news = [_news(folder / "metrics.jsonl") for folder in folders]
    tasks = group_seeds(folders)
    begin_again = {task: lives([folders[i] for i in task]) for task in tasks}
    asked = False

    def submit(task: tuple[int, ...]) -> Future[list[Stopped]]:
        return _submit(executor, [folders[i] for i in task], patience, wanted, changes[task[0]] if changes else "")

    with wanted_file(folders[0].absolute().parent) as wanted:
        waiting = {submit(task): task for task in tasks}
        try:
            while waiting:
                if not asked and should_stop():
                    asked = True
                    os.truncate(wanted, 1)
                done, _ = wait(waiting, timeout=0.2, return_when="FIRST_COMPLETED")
                for i in sorted(i for task in waiting.values() for i in task):
                    yield from ((i, event) for event in next(news[i]))
                for future in done:
                    task, lost = waiting.pop(future), _lost(future)
                    if not lost:
                        yield from zip(task, future.result(), strict=True)
                    elif not asked and not future.cancelled() and next(begin_again[task]):
                        waiting[submit(task)] = task
                    else:
                        yield from ((i, Stopped(0, "interrupted" if asked else "failed", lost)) for i in task)
        finally:
            if waiting:  # the caller listens no more
                os.truncate(wanted, 1)
                wait(waiting, timeout=patience)


def group_seeds(folders: Sequence[Path]) -> list[tuple[int, ...]]:
    """Which of the runs (their indices) train in one process: seeds of one tiny model, as many as leave no core idle.

    See `windtunnel.training.compiling.is_tiny`; any other run, and one that cannot be read, has a process of its own.
    """
    alike: dict[str, list[int]] = {}
    for i, folder in enumerate(folders):
        with suppress(ArtifactError):
            run = open_run(folder)
            if is_tiny(run.config):
                alike.setdefault(to_json(run.config.replace(seed=0)), []).append(i)
    n = sum(len(group) for group in alike.values())
    size = min(MOST_STACKED, max(1, -(-n // machine.cores())))
    tasks = [tuple(part) for group in alike.values() for part in _even(group, size)]
    return sorted([*tasks, *((i,) for i in set(range(len(folders))).difference(*tasks))])


def _even(group: list[int], size: int) -> Iterator[list[int]]:
    """Cut into as few parts as have at most so many members, of nearly equal length."""
    n_parts = -(-len(group) // size)
    for part in range(n_parts):
        yield group[part * len(group) // n_parts : (part + 1) * len(group) // n_parts]


@contextmanager
def wanted_file(folder: Path) -> Iterator[Path]:
    """A file that is locked as long as this process lives and waits; a byte in it asks the runs to save and stop.

    The lock is one of fcntl, not of flock, so that no forked child holds it on. Opening and closing the file again in
    this process would release it.
    """
    path = folder / f".wanted-{uuid4().hex}"
    with saving(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _submit(
    executor: Executor, folders: Sequence[Path], patience: float, wanted: Path, change: str
) -> Future[list[Stopped]]:
    try:
        return executor.submit(train_runs, [str(path.absolute()) for path in folders], patience, str(wanted), change)
    except RuntimeError as error:  # the executor is broken or was shut down
        failed: Future[list[Stopped]] = Future()
        failed.set_exception(error)
        return failed


def _lost(future: Future[list[Stopped]]) -> str:
    """Why a run has no ending of its own; nothing when it has one."""
    error = None if future.cancelled() else future.exception()
    if not (future.cancelled() or error):
        return ""
    why = f"its worker was lost ({str(error) or type(error).__name__})" if error else "the scheduler is gone"
    return f"{why}; what was saved is intact, and the same command goes on from there"


def _news(path: Path) -> Iterator[list[Event]]:
    """What was added to a run's log since the last time, but for its end and all steps except the last: this shows
    progress, and tiny models take thousands of steps a second. At first its last Started and last Step."""
    offset, first = 0, True
    while True:
        events: list[Event] = []
        with suppress(FileNotFoundError, ArtifactError), os.fdopen(open_regular(path), "rb") as file:
            offset = min(offset, file.seek(0, os.SEEK_END))  # a resumed run cuts its log back
            file.seek(offset)
            *lines, _ = file.read().split(b"\n")
            offset += sum(len(line) + 1 for line in lines)
            last_step = max((i for i, line in enumerate(lines) if line.startswith(STEP)), default=0)
            for line in (line for i, line in enumerate(lines) if i == last_step or not line.startswith(STEP)):
                with suppress(ValueError):  # the middle of a line, when the log was cut back
                    events.append(from_line(line.decode() + "\n"))
        last = {type(event): event for event in events}
        stands = [last[kind] for kind in (Started, Step) if kind in last]
        yield stands if first else [event for event in events if not isinstance(event, Stopped)]
        first = False
