"""One run in a process of its own: `train_run` starts it, again when it is killed, and `main` is what it does.

    python -m windtunnel.compare.worker RUN SECONDS [WANTED]

SECONDS is how long to wait while another process trains the run. The last line of the output is the end: a Stopped
event as JSON, or, when nothing could be begun, one sentence. SIGTERM, SIGINT and a byte in the file WANTED end the
step, save, and stop. So do the end of the standard input and the end of WANTED's lock, since then nobody waits for the
run any more and the next may come for it at once: what has not been saved after SECONDS / 2 is given up.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

from windtunnel.errors import BusyError, NumericsError, WindtunnelError
from windtunnel.train.events import Step, Stopped, from_line, to_line

MOST_DEATHS = 3
"""A run whose process died this often without a new checkpoint between is given up."""

EXIT_CODES = {"finished": 0, "interrupted": 75, "diverged": 4, "failed": 1}


def train_run(folder: str, patience: float, wanted: str | None = None) -> Stopped:
    """Train the run in a folder to its end in a process of its own; when that is killed, go on with another.

    The process watches the pipe that it gets as its input, whose other end is gone with the one who waits here.
    """
    command = [sys.executable, "-m", "windtunnel.compare.worker", folder, str(patience), *([wanted] if wanted else [])]
    begin_again = lives(Path(folder))
    while True:
        if wanted and _says_stop(Path(wanted)):
            return Stopped(0, "interrupted", "not begun")
        with tempfile.TemporaryFile() as file:  # not a pipe: what the process started could keep it open
            # A session of its own: Ctrl-C reaches only the parent, which passes it on.
            with Popen(command, stdin=PIPE, stdout=file, stderr=STDOUT, start_new_session=True) as process:
                code = process.wait()
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines() or [f"its process exited with code {code}"]
        with suppress(ValueError):
            event = from_line(said[-1] + "\n")
            assert isinstance(event, Stopped)
            return event
        if code >= 0:
            return Stopped(0, "failed", said[-1])
        if code in (-signal.SIGTERM, -signal.SIGINT):  # before it could take it up: nothing was begun, nothing is lost
            return Stopped(0, "interrupted", "its process was ended")
        if not next(begin_again):
            why = "; the system sends it when memory runs out" if code == -signal.SIGKILL else ""
            killed = f"its process was killed by signal {-code}, {MOST_DEATHS} times without a new checkpoint{why}"
            return Stopped(0, "failed", killed)


def lives(folder: Path) -> Iterator[bool]:
    """After each death of a run: whether to begin it again. Always when it saved something since, and thrice if not."""
    deaths, saved = 0, None
    while True:
        before, saved = saved, sorted(path.name for path in folder.glob("step-*"))
        deaths = deaths + 1 if saved == before else 1
        yield deaths < MOST_DEATHS


def main(folder: Path, patience: float, wanted: Path | None = None) -> int:
    """Train until finished or asked to stop; returns the exit code, as the command line has them."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: asked.append(received))
    threading.Thread(target=_watch, args=(asked, wanted, patience / 2), daemon=True).start()
    try:
        ended = _train(folder, asked, patience)
    except WindtunnelError as error:
        print(error, flush=True)
        return error.exit_code
    print(to_line(ended), end="", flush=True)
    return EXIT_CODES[ended.reason]


def _train(folder: Path, asked: list[int], patience: float) -> Stopped:
    """Train and measure, each as soon as no other process has the run's lock."""
    from windtunnel.compare.measure import measure
    from windtunnel.generate.write import write_sample
    from windtunnel.train import machine
    from windtunnel.train.disk import locked
    from windtunnel.train.loop import resume

    ended, trained, before = Stopped(0, "interrupted", "not begun"), False, machine.peak_memory()
    deadline = time.monotonic() + patience
    while True:
        try:
            if ended.reason == "interrupted":
                for event in resume(folder, lambda: bool(asked), write_sample):
                    trained = trained or isinstance(event, Step)
                    ended = event if isinstance(event, Stopped) else ended
                deadline = time.monotonic() + patience
            if ended.reason == "finished":
                with locked(folder):
                    measure(folder, machine.peak_memory() - before if trained else None)
            return ended
        except NumericsError:  # told by the Stopped event before it
            return ended
        except BusyError:
            if asked:
                return ended
            if time.monotonic() > deadline:
                raise
        time.sleep(0.3)


def _watch(asked: list[int], wanted: Path | None, grace: float) -> None:
    """Ask the training to stop when the one who waits for it says so, or is gone; then end the process in any case."""
    while _input_open() and (wanted is None or _held(wanted)):
        if wanted is not None and not asked and _says_stop(wanted):
            asked.append(signal.SIGTERM)
    asked.append(signal.SIGTERM)
    time.sleep(grace)
    os._exit(EXIT_CODES["interrupted"])  # as harmless as any kill


def _input_open() -> bool:
    """Whether somebody holds the other end of the standard input; takes .2 s when so."""
    try:
        readable, _, _ = select.select([0], [], [], 0.2)
        return not readable or bool(os.read(0, 1 << 10))
    except OSError:  # it was closed before this process began
        return False


def _says_stop(wanted: Path) -> bool:
    try:
        return wanted.stat().st_size > 0
    except FileNotFoundError:
        return True


def _held(wanted: Path) -> bool:
    """Whether a living process holds the lock of this file; the file is cleared away when none does."""
    try:
        with wanted.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # it is held, or nobody can tell
        return True
    wanted.unlink(missing_ok=True)
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), *map(Path, sys.argv[3:4])))
