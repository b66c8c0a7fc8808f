"""The fast lanes of scripts/attack.py; its docstring says what is attacked, and what must hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "attack.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("files", "--mutations", 24), "mutations"),
        (("kills", "--kills", 2), "kills"),
        (("disk", "--levels", 2), "levels"),
    ],
    ids=["files", "kills", "disk"],
)
def test_no_number_changes_in_silence(arguments, count):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert (found["broken"], found["good"]) == ([], True)
    assert found[count] >= arguments[-1]
