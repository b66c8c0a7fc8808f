"""One command from its start to its end, with everything that it starts, in the care of a process of its own.

    python -P -m windtunnel.programs.process JSON     (see `run_command`)

The keeper runs the command in a session of its own, adopts what the command leaves behind (Linux), and ends all of it
when the command has ended, when its time is up, when it is asked to stop, and when nobody waits for it any more: its
standard input is a pipe whose other end is gone with the one who waits. Its last line of output is an `Ended` as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import Literal

from windtunnel.runs.worker import held, says_stop

GRACE = 3.0
"""Seconds between asking a process to end and ending it."""
LINGER = 0.5
"""Seconds in which what a command started may end by itself after it."""
BECOME_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): orphans below this process become its children."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    reason: "exited" by itself, "timed out", "stopped" because somebody asked, "lost" when the keeper died.
    status: the exit status; below 0 the signal that killed it.
    size: bytes that it wrote; cut: how many of them were not kept.
    left: processes that it had started and left running, which were ended.
    """

    reason: Literal["exited", "timed out", "stopped", "lost"]
    status: int
    seconds: float = 0.0
    size: int = 0
    cut: int = 0
    left: int = 0
    message: str = ""


def run_command(
    command: str, cwd: Path, log: Path, seconds: float | None = None, most: int = 16 << 20, wanted: Path | None = None
) -> Ended:
    """Run a shell command to its end; its output, standard error included, goes into `log`.

    Args:
        cwd: where it runs.
        seconds: after which it is ended; None is never.
        most: bytes of its output that are kept, the first and the last half of them.
        wanted: see `windtunnel.runs.execute.wanted_file`; a byte in it stops the command.
    """
    asked = {
        "command": command, "cwd": str(cwd), "log": str(log), "seconds": seconds, "bytes": most,
        "wanted": None if wanted is None else str(wanted),
    }  # fmt: skip
    keeper = [sys.executable, "-P", "-m", "windtunnel.programs.process", json.dumps(asked)]
    with Popen(keeper, stdin=PIPE, stdout=PIPE, stderr=STDOUT, start_new_session=True) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode(errors="replace").strip().splitlines()  # ends with the keeper
        code = process.wait()
    with suppress(ValueError, IndexError, TypeError):
        return Ended(**json.loads(said[-1]))
    return Ended("lost", code, message=said[-1] if said else f"its keeper ended with code {code}")


class Output:
    """What a command writes: the first half of what is kept goes to disk at once, the last half at the end."""

    def __init__(self, path: Path, most: int) -> None:
        self.file = path.open("wb")
        self.half, self.size, self.head = most // 2, 0, 0
        self.tail: deque[bytes] = deque()
        self.tail_size = 0

    def write(self, data: bytes) -> None:
        """Take what came."""
        self.size += len(data)
        now, later = data[: self.half - self.head], data[self.half - self.head :]
        if now:
            self.file.write(now)
            self.file.flush()
            self.head += len(now)
        if later:
            self.tail.append(later)
            self.tail_size += len(later)
        while self.tail and self.tail_size - len(self.tail[0]) >= self.half:
            self.tail_size -= len(self.tail.popleft())

    def close(self) -> int:
        """Write the end; returns how many bytes were left out."""
        last = b"".join(self.tail)[-self.half :]
        cut = self.size - self.head - len(last)
        if cut:
            self.file.write(f"\n[windtunnel left out {cut:,} bytes of output here]\n".encode())
        self.file.write(last)
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return cut


def keep(
    command: str, cwd: Path, output: Output, seconds: float | None, should_stop: Callable[[], bool] = lambda: False
) -> Ended:
    """Run the command in this process's care until it ends, its time is up, or it should stop; then end what is left.

    The caller has adopted orphans (`_adopt`). `should_stop` is asked ten times a second.
    """
    began, reason = time.monotonic(), "exited"
    process = Popen(
        ["/bin/sh", "-c", command], cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    next_look = 0.0
    while process.poll() is None:
        _take(pipe, output, 0.02)
        if (now := time.monotonic()) < next_look:
            continue
        next_look = now + 0.1
        if seconds is not None and now - began > seconds:
            reason = "timed out"
        elif should_stop():
            reason = "stopped"
        if reason != "exited":
            break
    took = time.monotonic() - began
    left = _end(process, lambda wait: _take(pipe, output, wait), LINGER if reason == "exited" else 0.0)
    while _take(pipe, output, 0.0):
        pass
    return Ended(reason, process.wait(), took, output.size, output.close(), left if reason == "exited" else 0)  # type: ignore[arg-type]


def _take(pipe: int, output: Output, wait: float) -> bool:
    """Read what is there, up to 1 MB, after waiting for it up to so many seconds; whether there was anything."""
    readable, _, _ = select.select([pipe], [], [], wait)
    data = b""
    with suppress(BlockingIOError):
        data = os.read(pipe, 1 << 20) if readable else b""
    if readable and not data:  # the end of the pipe is always readable
        time.sleep(wait)
    output.write(data)
    return bool(data)


def _end(process: Popen[bytes], take: Callable[[float], object], linger: float) -> int:
    """End the command's session and all that it started; returns how many processes there were after `linger`."""
    _until_gone(process, take, linger)
    left = len(alive := list(_below(process)))
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        deadline = time.monotonic() + grace
        while alive and time.monotonic() < deadline:
            for pid in alive:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            _until_gone(process, take, grace if number == signal.SIGTERM else 0.1)
            alive = list(_below(process))
    return left


def _until_gone(process: Popen[bytes], take: Callable[[float], object], seconds: float) -> None:
    """Wait for all of them to be gone, and take their output meanwhile: who cannot write does not end."""
    deadline = time.monotonic() + seconds
    while any(_below(process)) and time.monotonic() < deadline:
        take(0.02)


def _below(process: Popen[bytes]) -> Iterator[int]:
    """The processes that the command started and that run, itself included."""
    process.poll()
    if not Path("/proc/self/stat").exists():  # not Linux: the session's own are asked for, others cannot be found
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 0)
            yield -process.pid
        return
    children: dict[int, list[int]] = {}
    for folder in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            pid = int(folder.name)
            state, parent = Path(folder.path, "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).append(0 if state in "ZX" else pid)
    queue = list(children.get(os.getpid(), []))
    while queue:
        pid = queue.pop()
        if pid:
            yield pid
            queue.extend(children.get(pid, []))


def _adopt() -> None:
    """Become the parent of what loses its own below this process, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(BECOME_SUBREAPER, 1, 0, 0, 0)


def main(asked: str) -> int:
    """What the keeper does; see the top of this file."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: signals.append(received))
    given = json.loads(asked)
    wanted = None if given["wanted"] is None else Path(given["wanted"])

    def should_stop() -> bool:
        if signals or (wanted is not None and (says_stop(wanted) or not held(wanted))):
            return True
        readable, _, _ = select.select([0], [], [], 0)
        return bool(readable and not os.read(0, 1 << 10))

    _adopt()
    ended = keep(
        given["command"], Path(given["cwd"]), Output(Path(given["log"]), given["bytes"]), given["seconds"], should_stop
    )
    print(json.dumps(asdict(ended)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
