"""One command and everything that it starts: how it ends, what is kept of its output, and that nothing outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patience import PATIENCE
from windtunnel.programs.process import Output, run_command
from windtunnel.runs.execute import wanted_file

FORKS = """
import os, sys, time
def child(name, escape):
    if os.fork() == 0:
        if escape:
            os.setsid()
            if os.fork():
                os._exit(0)
        with open(name, "w") as file:
            file.write(str(os.getpid()))
        os.rename(name, name + ".pid")
        time.sleep(600)
child("plain", False)
child("escaped", True)
while not (os.path.exists("plain.pid") and os.path.exists("escaped.pid")):
    time.sleep(0.01)
print("started", flush=True)
if len(sys.argv) > 1:
    time.sleep(600)
"""


def run(command, folder, **limits):
    return run_command(command, folder, folder / "output.log", **limits), (folder / "output.log").read_text()


def gone(pid):
    """Whether the process is no more; the last of it may take the system a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_an_exit_status_and_both_streams_are_kept(tmp_path):
    ended, output = run("echo out; echo error >&2; exit 3", tmp_path)
    assert (ended.reason, ended.status, ended.size, ended.cut) == ("exited", 3, 10, 0)
    assert output == "out\nerror\n"


def test_a_signal_is_a_negative_status(tmp_path):
    ended, _ = run("kill -SEGV $$", tmp_path)
    assert (ended.reason, ended.status) == ("exited", -signal.SIGSEGV)


def test_input_is_empty_so_that_nothing_waits_for_it(tmp_path):
    ended, output = run("cat; echo done", tmp_path)
    assert (ended.reason, output) == ("exited", "done\n")


def test_a_command_that_hangs_is_ended_even_if_it_ignores_being_asked(tmp_path):
    for seconds in (0.5, 5, 50, PATIENCE):  # on a loaded machine a shell may take long to begin
        ended, output = run("trap '' TERM; echo begun; while true; do sleep 600; done", tmp_path, seconds=seconds)
        if output:
            break
    assert ended.reason == "timed out"
    assert ended.seconds >= seconds
    assert output == "begun\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux adopts orphans")
@pytest.mark.parametrize("hangs", [False, True])
def test_children_die_with_it_also_those_that_left_its_session(tmp_path, hangs):
    (tmp_path / "forks.py").write_text(FORKS)
    for seconds in (5, 50, PATIENCE) if hangs else (PATIENCE,):  # on a loaded machine Python may take long to begin
        ended, output = run(f"{sys.executable} forks.py {'hang' * hangs}", tmp_path, seconds=seconds)
        if output:
            break
    assert output == "started\n"
    assert (ended.reason, ended.left) == (("timed out", 0) if hangs else ("exited", 2))
    for name in ("plain", "escaped"):
        assert gone(int((tmp_path / f"{name}.pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux adopts orphans")
def test_when_the_one_who_waits_is_killed_the_command_and_its_children_die(tmp_path):
    (tmp_path / "forks.py").write_text(FORKS)
    program = "import sys; from pathlib import Path; from windtunnel.programs.process import run_command as run\n"
    program += f"run({f'{sys.executable} forks.py hang'!r}, Path('.'), Path('output.log'))"
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) as waits:
        while not (tmp_path / "escaped.pid").exists() or not (tmp_path / "plain.pid").exists():
            assert waits.poll() is None
            time.sleep(0.01)
        waits.kill()
    for name in ("plain", "escaped"):
        assert gone(int((tmp_path / f"{name}.pid").read_text()))


def test_it_stops_when_asked_through_the_file(tmp_path):
    with wanted_file(tmp_path) as wanted:
        os.truncate(wanted, 1)
        ended, _ = run("sleep 600", tmp_path, wanted=wanted)
    assert ended.reason == "stopped"


def test_of_much_output_the_first_and_the_last_bytes_are_kept(tmp_path):
    ended, output = run("echo first; yes | head -c 50000000; echo last 1.5", tmp_path, most=2000)
    assert ended.size == 50_000_000 + len("first\nlast 1.5\n")
    assert ended.cut == ended.size - 2000
    assert output.startswith("first\ny\ny\n")
    assert output.endswith("y\nlast 1.5\n")
    assert f"[windtunnel left out {ended.cut:,} bytes of output here]" in output
    assert (tmp_path / "output.log").stat().st_size < 2100


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 19, 20, 21, 1000])
@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_what_is_kept_of_an_output_of_any_size(tmp_path, size, chunk):
    data = bytes(i % 251 for i in range(size))
    output = Output(tmp_path / "log", 20)
    for at in range(0, size, chunk):
        output.write(data[at : at + chunk])
    cut = output.close()
    kept = (tmp_path / "log").read_bytes()
    assert cut == max(0, size - 20)
    if not cut:
        assert kept == data
    else:
        assert kept.startswith(data[:10])
        assert kept.endswith(data[-10:])


def test_a_folder_that_is_not_there_is_said(tmp_path):
    ended = run_command("true", tmp_path / "nowhere", tmp_path / "output.log")
    assert ended.reason == "lost"
    assert "nowhere" in ended.message


def test_the_keeper_loads_nothing_heavy():
    code = "import sys, json, windtunnel.programs.process; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"torch", "numpy", "pydantic", "scipy"} & set(loaded)
