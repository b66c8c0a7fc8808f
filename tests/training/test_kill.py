"""SIGKILL at random instants and at every system call of a save: real processes, in scripts/stress_kill.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress_kill.py"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--kills", "6"], ["--every-call"]], ids=["random", "every call"])
def test_kills_lose_and_change_nothing(arguments):
    ended = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["unreadable_runs"] == 0
    assert summary["most_steps_lost"] <= summary["save_every"]
    assert summary["equal_to_uninterrupted"] == summary["finished_runs"] > 0
    # A save of three files makes 20 calls and more; half of the random kills are forced inside one.
    assert summary["inside_a_save"] >= (3 if "--kills" in arguments else 20)
