"""The process of one run: trains it, measures the model that came out, and prints how the run ended.

    python -m windtunnel.compare.worker RUN SECONDS

SECONDS is how long to wait while another process trains the run. The end is one line of JSON, a Stopped event; when
nothing could be begun, one sentence on stderr. SIGTERM, SIGINT, a file `stop` in the run folder and the end of the
standard input (who waits for the run is gone) all end the step, save, and stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from windtunnel.compare.measure import measure
from windtunnel.errors import BusyError, NumericsError, WindtunnelError
from windtunnel.generate.write import write_sample
from windtunnel.train import machine
from windtunnel.train.events import Event, Step, Stopped, to_line
from windtunnel.train.loop import resume

STOP = "stop"


def main(folder: Path, patience: float) -> int:
    """Train until finished or asked to stop; returns the exit code, as the command line has them."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: asked.append(received))
    threading.Thread(target=_wait_for_end_of_input, args=(asked,), daemon=True).start()
    ended, trained, before = Stopped(0, "interrupted"), False, machine.peak_memory()
    try:
        for event in _events(folder, lambda: bool(asked) or (folder / STOP).exists(), patience):
            trained = trained or isinstance(event, Step)
            ended = event if isinstance(event, Stopped) else ended
        if ended.reason == "finished":
            measure(folder, machine.peak_memory() - before if trained else None)
    except NumericsError:  # told by the Stopped event before it
        pass
    except WindtunnelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(to_line(ended), end="", flush=True)
    return {"finished": 0, "interrupted": 75, "diverged": 4, "failed": 1}[ended.reason]


def _events(folder: Path, should_stop: Callable[[], bool], patience: float) -> Iterator[Event]:
    """The events of the training, begun when nobody else trains the run any more."""
    deadline = time.monotonic() + patience
    while True:
        try:
            yield from resume(folder, should_stop, write_sample)
            return
        except BusyError:  # raised before the first event
            if should_stop() or time.monotonic() > deadline:
                raise
        time.sleep(0.3)


def _wait_for_end_of_input(asked: list[int]) -> None:
    while os.read(0, 1 << 10):
        pass
    asked.append(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
