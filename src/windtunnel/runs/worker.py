"""Runs in a process of their own: `train_runs` starts it, again when it is killed, and `main` is what it does.

    python -P -m windtunnel.runs.worker RUN ... SECONDS WANTED

One run trains alone, several together, stacked. SECONDS is how long to wait while another process trains one of them.
The last lines of the output are their ends, Stopped events as JSON. SIGTERM, SIGINT and a byte in the file WANTED end
the step (of a stack the block of steps), save, and stop. So do the end of the standard input and the end of WANTED's
lock, since then nobody waits for the run any more and the next may come for it at once: what has not been saved after
SECONDS / 2 is given up.
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

from windtunnel.errors import ArtifactError, BusyError, NumericsError, WindtunnelError
from windtunnel.files import open_regular
from windtunnel.training.events import Step, Stopped, from_line, to_line

MOST_DEATHS = 3
"""A run whose process died this often without a new checkpoint between is given up."""

LOCKED_AFTER = 60.0
"""Seconds; a younger file may have been made and not yet locked."""

NOT_BEGUN = Stopped(0, "interrupted", "not begun")
EXIT_CODES = {"finished": 0, "interrupted": 75, "diverged": 4, "failed": 1}


def train_runs(folders: Sequence[str], patience: float, wanted: str) -> list[Stopped]:
    """Train the runs in these folders to their ends in one process; when that is killed, go on with another.

    The process watches the pipe that it gets as its input, whose other end is gone with the one who waits here.
    """
    # -P: with -m alone, Python would run a module of the working folder in the place of any of the same name.
    command = [sys.executable, "-P", "-m", "windtunnel.runs.worker", *folders, str(patience), wanted]
    begin_again = lives([Path(folder) for folder in folders])
    while True:
        if says_stop(Path(wanted)):
            return len(folders) * [NOT_BEGUN]
        with tempfile.TemporaryFile() as file:  # not a pipe: what the process started could keep it open
            # A session of its own: Ctrl-C reaches only the parent, which passes it on.
            with Popen(command, stdin=PIPE, stdout=file, stderr=STDOUT, start_new_session=True) as process:
                code = process.wait()
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines() or [f"its process exited with code {code}"]
        with suppress(ValueError):
            ends = [from_line(line + "\n") for line in said[-len(folders) :]]
            if len(ends) == len(folders):
                return [end for end in ends if isinstance(end, Stopped)]
        if code >= 0:
            return len(folders) * [Stopped(0, "failed", said[-1])]
        if code in (-signal.SIGTERM, -signal.SIGINT):  # before it could take it up: nothing was begun, nothing is lost
            return len(folders) * [Stopped(0, "interrupted", "its process was ended")]
        if not next(begin_again):
            why = "; the system sends it when memory runs out" if code == -signal.SIGKILL else ""
            killed = f"its process was killed by signal {-code}, {MOST_DEATHS} times without a new checkpoint{why}"
            return len(folders) * [Stopped(0, "failed", killed)]


def lives(folders: Sequence[Path]) -> Iterator[bool]:
    """After each death of a process: whether to begin its runs again. Always when it saved something since, and thrice
    if not."""
    deaths, saved = 0, None
    while True:
        before, saved = saved, sorted(str(path) for folder in folders for path in folder.glob("step-*"))
        deaths = deaths + 1 if saved == before else 1
        yield deaths < MOST_DEATHS


def main(folders: Sequence[Path], patience: float, wanted: Path) -> int:
    """Train until finished or asked to stop; returns the exit code of the worst end, as the command line has them."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: asked.append(received))
    _clear_wanted(wanted.parent)
    threading.Thread(target=_watch, args=(asked, wanted, patience / 2), daemon=True).start()
    ends = _train_stacked(folders, asked, patience) if len(folders) > 1 else {}
    for folder in folders:
        if ends.get(folder, NOT_BEGUN).reason in ("finished", "interrupted"):
            ends[folder] = _train(folder, asked, patience, ends.get(folder, NOT_BEGUN))
    for folder in folders:
        print(to_line(ends[folder]), end="", flush=True)
    return max(EXIT_CODES[ended.reason] for ended in ends.values())


def _train_stacked(folders: Sequence[Path], asked: list[int], patience: float) -> dict[Path, Stopped]:
    """Train them stacked, as soon as no other process has one of their locks; how each ended."""
    from windtunnel.generation.write import write_sample
    from windtunnel.training.disk import is_locked
    from windtunnel.training.stack import resume_stacked

    deadline = time.monotonic() + patience
    while not asked and time.monotonic() < deadline and any(is_locked(folder) for folder in folders):
        time.sleep(0.3)
    events = resume_stacked(folders, lambda: bool(asked), write_sample)
    return {folders[place]: event for place, event in events if isinstance(event, Stopped)}


def _train(folder: Path, asked: list[int], patience: float, ended: Stopped) -> Stopped:
    """Train what did not end yet and measure, each as soon as no other process has the run's lock."""
    from windtunnel.generation.write import write_sample
    from windtunnel.runs.measure import measure
    from windtunnel.training import machine
    from windtunnel.training.disk import locked
    from windtunnel.training.loop import resume

    trained, before = False, machine.peak_memory()
    deadline = time.monotonic() + patience
    while True:
        try:
            if ended == NOT_BEGUN:
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
        except BusyError as error:
            if asked:
                return ended
            if time.monotonic() > deadline:
                return Stopped(0, "failed", str(error))
        except WindtunnelError as error:
            return Stopped(0, "failed", str(error))
        time.sleep(0.3)


def _watch(asked: list[int], wanted: Path, grace: float) -> None:
    """Ask the training to stop when the one who waits for it says so, or is gone; then end the process in any case."""
    while _input_open() and held(wanted):
        if not asked and says_stop(wanted):
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


def says_stop(wanted: Path) -> bool:
    try:
        return wanted.stat().st_size > 0
    except FileNotFoundError:
        return True


def _clear_wanted(folder: Path) -> None:
    """Clear away what those left who were killed while they waited and had nobody left to notice it.

    Here, and not where a file is made: who opens a file that the same process has locked loses the lock.
    """
    for path in folder.glob(".wanted-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LOCKED_AFTER:
                held(path)


def held(wanted: Path) -> bool:
    """Whether a living process holds the lock of this file; the file is cleared away when none does."""
    try:
        with os.fdopen(open_regular(wanted), "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (OSError, ArtifactError):  # it is held, or nobody can tell
        return True
    wanted.unlink(missing_ok=True)
    return False


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:-2]], float(sys.argv[-2]), Path(sys.argv[-1])))
