"""The process of one run: trains the run in a folder and writes its events to stdout, one JSON object a line.

    python -m windtunnel.compare.worker RUN

Exit codes are those of the command line: 0 finished, 4 diverged, 75 stopped and resumable, 1 ... 3 an error, which is
one sentence on stderr. SIGTERM, SIGINT and a reader that went away all end the step, save, and exit with 75.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.generate.write import write_sample
from windtunnel.train.events import Stopped, to_line
from windtunnel.train.loop import resume


def main(folder: Path) -> int:
    """Train until finished or asked to stop; returns the exit code."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: asked.append(received))
    reason = "finished"
    try:
        for event in resume(folder, should_stop=lambda: bool(asked), write_sample=write_sample):
            try:
                print(to_line(event), end="", flush=True)
            except BrokenPipeError:
                asked.append(signal.SIGTERM)
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(event, Stopped):
                reason = event.reason
    except WindtunnelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 75 if reason == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
