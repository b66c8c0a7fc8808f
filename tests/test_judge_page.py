"""docs/judge.md is true: its program learns, its command ends as it says, and its loop keeps what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from windtunnel.stats.intervals import Estimate

PAGE = (Path(__file__).parents[1] / "docs" / "judge.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
STANDS_FOR_IT = """
import random, sys
seed = int(sys.argv[1]) + 0
settings = {"learning_rate_init": 0.001, "alpha": 0.0001}
print("held-out loss", 2 + random.Random(seed).gauss(0, 0.01) - 100 * settings["learning_rate_init"])
"""
"""The page's changes apply to it as well, and it takes no time."""


def sh(script, folder):
    """Run a script with the `windtunnel` and the `python` of this test."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, words in (("windtunnel", "-m windtunnel "), ("python", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (commands / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, env=environment)


def write(folder, **changed):
    for name, code in {**FILES, **changed}.items():
        (folder / name).write_text(code)


def test_the_loop_keeps_a_change_only_when_it_is_better(tmp_path):
    write(tmp_path, **{"train.py": STANDS_FOR_IT})
    done = sh("sh loop.sh", tmp_path)
    statuses = [int(line.rsplit(": ", 1)[1]) for line in done.stdout.splitlines()]
    assert statuses[2] == 0, done.stderr
    assert 0 not in statuses[1:2] + statuses[3:]
    assert 'init": 0.002' in (tmp_path / "kept.py").read_text()
    assert "+ 400" not in (tmp_path / "kept.py").read_text()
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) >= 2
    runs = {path.parent.name for path in tmp_path.glob("runs/arm-*/seed-*")}
    assert len(runs) == 5  # the code as it was, and four changes: the one that was kept is not run again
    assert json.loads((tmp_path / "verdict.json").read_text())["arms"][0]["name"] == "baseline"


@pytest.mark.slow
def test_the_page_says_what_comes_out(tmp_path):
    write(tmp_path)
    first = next(code for code in re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S) if "hot.py" in code)
    done = sh(first, tmp_path)
    assert done.returncode == 0, done.stderr
    said = Estimate(*map(float, re.search(r"\*better\*, by ([\d.]+) \[([\d.]+), ([\d.]+)\]", PAGE).groups()), 6, "")
    found = re.search(r"better: -([\d.]+) \[-([\d.]+), -([\d.]+)\]", done.stdout).groups()
    assert float(found[0]) == pytest.approx(said.estimate, abs=0.01)
    done = sh("sh loop.sh", tmp_path)
    assert [int(line.rsplit(": ", 1)[1]) for line in done.stdout.splitlines()] == [10, 11, 0, 10]
