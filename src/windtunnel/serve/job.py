"""One command of windtunnel at a time, started and stopped from the page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from windtunnel.errors import ConfigError

MOST = 200_000
"""Bytes of what it printed that are shown, the last ones."""
GRACE = 10.0
"""Seconds after which a process that was asked to stop is killed."""


class Job:
    """The last command that was started, and what it has printed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.printed: IO[bytes] | None = None
        self.about: dict[str, Any] = {}
        self.asked_at: float | None = None

    def start(self, kind: str, name: str, words: Sequence[str]) -> None:
        """Start `windtunnel WORDS`.

        Raises:
            ConfigError: while another one runs.
        """
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                raise ConfigError(f"{self.about['name']} is running; stop it, or wait for its end")
            if self.printed is not None:
                self.printed.close()
            self.printed = tempfile.TemporaryFile()  # noqa: SIM115 - read until the next one starts
            self.about, self.asked_at = {"kind": kind, "name": name, "began": time.time()}, None
            self.process = subprocess.Popen(
                [sys.executable, "-m", "windtunnel", *words],
                stdin=subprocess.DEVNULL,
                stdout=self.printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"},
                start_new_session=True,
            )

    def state(self) -> dict[str, Any]:
        """What runs or ran last, whether it runs, how it ended, and what it has printed."""
        with self.lock:
            if self.process is None or self.printed is None:
                return {"kind": None, "running": False, "lines": []}
            code = self.process.poll()
            size = os.fstat(self.printed.fileno()).st_size
            text = os.pread(self.printed.fileno(), MOST, max(0, size - MOST)).decode("utf-8", "replace")
            stopped = self.asked_at is not None
            return {**self.about, "running": code is None, "code": code, "stopped": stopped, "lines": text.splitlines()}

    def stop(self) -> None:
        """Ask it to stop; a process that does not is killed by the next call, or after GRACE seconds."""
        with self.lock:
            process = self.process
            if process is None or process.poll() is not None:
                return
            again, self.asked_at = self.asked_at is not None, time.monotonic()
            _signal(process, signal.SIGKILL if again else signal.SIGTERM)
        if not again:
            threading.Timer(GRACE, _signal, (process, signal.SIGKILL)).start()

    def close(self) -> None:
        """Stop it for good."""
        with self.lock:
            if self.process is not None and self.process.poll() is None:
                _signal(self.process, signal.SIGTERM)
                try:
                    self.process.wait(GRACE / 2)
                except subprocess.TimeoutExpired:
                    _signal(self.process, signal.SIGKILL)
                    self.process.wait()
            if self.printed is not None:
                self.printed.close()
                self.printed = None


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)
