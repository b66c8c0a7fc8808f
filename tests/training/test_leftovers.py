"""What a SIGKILL leaves is cleared by the next who writes there, and what a living process writes is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_runs import config_of, names_file, store_of

from windtunnel.files import clear_leftovers, temporary, write_text
from windtunnel.runs.execute import execute, open_executor
from windtunnel.runs.seeds import find_runs
from windtunnel.training.disk import locked, write_folder
from windtunnel.training.run import create_run, resolve

WRITER = """
import sys
from pathlib import Path
from windtunnel.files import temporary
with temporary(Path(sys.argv[1]), folder=sys.argv[2] == "folder") as new:
    if new.is_dir():
        (new / "weights").write_text("half")
    print(flush=True)
    sys.stdin.read()
"""
WAITER = """
import sys
from pathlib import Path
from windtunnel.runs.execute import wanted_file
with wanted_file(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(program: str, *arguments: object):
    """A process that has come as far as to print a line, killed with SIGKILL at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout.readline() == b"\n"
            yield running
        finally:
            running.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_next_writer_clears_what_a_killed_one_left(tmp_path, kind):
    (tmp_path / ".tmp-mine").write_text("of another program")
    with process(WRITER, tmp_path / "step-3", kind):
        write_folder(tmp_path / "step-2", {"a": b"whole"}, {})
        write_text(tmp_path / "page.html", "whole")
        (living,) = tmp_path.glob(".tmp-windtunnel-*")
        assert living.is_dir() == (kind == "folder")
        assert (tmp_path / "page.html").read_text() == "whole"
    assert living.exists()  # killed, and nobody wrote since
    write_text(tmp_path / "page.html", "new")
    assert names(tmp_path) == [".tmp-mine", "page.html", "step-2"]


def test_what_this_process_itself_writes_is_held_however_often_it_is_looked_at(tmp_path):
    with temporary(tmp_path / "a") as first:
        for _ in range(2):
            clear_leftovers(tmp_path)
            write_text(tmp_path / "b", "")
        assert first.exists()
    assert names(tmp_path) == ["b"]


def test_who_takes_the_lock_of_a_run_clears_it(tmp_path):
    """Also of what older versions left, which nobody locked."""
    (tmp_path / ".tmp-step-6-123-123").mkdir()
    with process(WRITER, tmp_path / "step-3", "folder"), locked(tmp_path):
        assert len(list(tmp_path.glob(".tmp-*"))) == 1
    with locked(tmp_path):
        assert names(tmp_path) == ["lock"]


def test_what_beginning_or_waiting_commands_left_beside_the_runs_is_cleared(tmp_path):
    config = config_of(names_file(tmp_path), "train.steps=2", "train.eval_every=2", "train.save_every=2")
    store, runs = store_of(config), tmp_path / "runs"
    runs.mkdir()
    with process(WRITER, runs / "seed-0", "folder"), process(WAITER, runs):
        assert len(names(runs)) == 2
    (wanted,) = runs.glob(".wanted-*")
    assert find_runs(runs) == []
    run = create_run(runs / "seed-0", resolve(config, store), store).folder
    assert names(runs) == sorted([wanted.name, "seed-0"])
    with process(WAITER, runs):
        long_ago = time.time() - 3600
        for path in runs.glob(".wanted-*"):
            os.utime(path, (long_ago, long_ago))
        with open_executor("local", 1) as executor:
            *_, (_, ended) = execute([run], executor)
        assert ended.reason == "finished"
        (living,) = runs.glob(".wanted-*")
        assert living != wanted
