"""docs/architecture.md is true: its rooms are those of the code, in their order, and its two recipes work.

The recipes are followed in a copy of the package: files are written, lines replaced, and every command is run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test_imports import PACKAGE, ROOMS

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(text):
    """(language, code) of every block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def follow(title, folder):
    """Do what a section says, in a copy of the package; what its commands print."""
    shutil.copytree(PACKAGE, folder / "src" / "windtunnel", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "NO_COLOR": "1", "COLUMNS": "200"}

    def run(*command):
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = []
    for language, code in blocks(section(title)):
        path = folder / code.splitlines()[0].removeprefix("# ")
        if language == "diff":
            change(path, code.splitlines()[1:])
        elif language == "sh":
            printed += [run("-m", *shlex.split(command)) for command in code.splitlines()]
        elif code.startswith("# src/"):
            assert not path.exists()
            path.write_text(code)
        else:
            printed.append(run("-c", code))
    return printed


def change(path, lines):
    """Replace every run of `-` lines, which the file has once, by the `+` lines after it."""
    text = path.read_text()
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", "\n".join(lines) + "\n", flags=re.MULTILINE):
        before, after = ("\n".join(line[1:] for line in part.splitlines()) for part in (old, new))
        assert text.count(before) == 1, f"{path} does not have this once: {before}"
        text = text.replace(before, after)
    path.write_text(text)


def test_the_page_lists_the_rooms_in_their_order():
    listed = re.findall(r"^\| `(\w+)` \|", section("The rooms"), flags=re.MULTILINE)
    there = [room for room in ROOMS if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()]
    assert listed == there


def test_files_and_functions_on_the_way_of_a_batch_exist():
    way = section("The path of one batch")
    for name in re.findall(r"`(\w+/\w+(?:\.py)?)`", way):
        assert (PACKAGE / name).exists(), name
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for name in ("open_task", "batches", "gradients", "update", "loss_sum", "sweep"):
        assert f"{name}(" in way or f"`{name}`" in way
        assert f"def {name}(" in code


@pytest.mark.slow
def test_a_model_family_is_added_as_the_page_says(tmp_path):
    events, evaluated, generated, cost = follow("Add a model family", tmp_path)
    assert "reason='finished'" in events
    losses = [float(loss) for loss in re.findall(r"'loss': ([\d.]+)", events)]
    assert losses[-1] < losses[0]
    assert "dev loss" in evaluated
    assert "an" in generated
    assert "1,728" in cost  # 2 x 27 x 32


@pytest.mark.slow
def test_an_experiment_is_added_as_the_page_says(tmp_path):
    (printed,) = follow("Add an experiment", tmp_path)
    assert "a sixth of the throws are sixes" in printed
    assert "holds" in printed
    assert (tmp_path / "die").is_dir()
