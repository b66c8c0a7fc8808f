"""How long tests wait for what must happen: so long that only a hang takes longer, however loaded the machine is."""

import time
from collections.abc import Callable

PATIENCE = 900.0
"""Seconds."""


def wait_for(condition: Callable[[], object], what: str = "what was waited for") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE:.0f} s"
        time.sleep(0.02)
