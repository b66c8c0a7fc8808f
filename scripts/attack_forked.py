"""What the attacks share: a small run, and actions in processes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.models import TransformerConfig
from windtunnel.text import store as token_store
from windtunnel.text.store import TextConfig
from windtunnel.training.run_config import RunConfig, TrainConfig

SECONDS = 120
"""After which a command hangs."""


def corpus(folder: Path) -> Path:
    """Made-up names, one a line."""
    draw, path = random.Random(0), folder / "names.txt"
    path.write_text("\n".join("".join(draw.choices("abcdefghij", k=draw.randint(2, 12))) for _ in range(200)))
    return path


def small(folder: Path) -> RunConfig:
    """A transformer that trains in a moment."""
    return RunConfig(
        corpus=str(corpus(folder)),
        text=TextConfig(unit="line", dev_fraction=0.2),
        model=TransformerConfig(context_length=8, n_layers=1, n_heads=2, d_model=8),
        train=TrainConfig(
            steps=6, batch_size=8, save_every=2, eval_every=3, threads=1, precision="fp32", compile=False,
            sample_tokens=0,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Said:
    """How a command ended: value, error, traceback or hang; the value as JSON, and the text that stands beside it."""

    how: str
    value: str = ""
    text: str = ""


def forked(action: Callable[[], object], seconds: float = SECONDS, kill_after: float | None = None) -> Said:
    """What an action in a process of its own returns, and prints."""
    with tempfile.TemporaryFile("w+") as answer:
        process = os.fork()
        if process == 0:
            _answer(action, answer, seconds)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        answer.seek(0)
        told = answer.read()
    if code == -signal.SIGALRM:
        return Said("hang")
    return Said("killed") if code == -signal.SIGKILL else Said(*json.loads(told))


def _answer(action: Callable[[], object], file: io.TextIOBase, seconds: float) -> None:
    """Be the forked process."""
    signal.alarm(math.ceil(seconds))
    heard = io.StringIO()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            token_store._verified.clear()  # a command begins as a new process
            found = "value", json.dumps(action(), sort_keys=True)
    except (WindtunnelError, SystemExit) as error:
        found = "error", str(error)
    except BaseException:  # noqa: BLE001
        found = "traceback", traceback.format_exc()
    file.write(json.dumps([*found, heard.getvalue()]))
    file.flush()
    os._exit(0)
