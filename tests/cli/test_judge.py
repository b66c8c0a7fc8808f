"""`windtunnel judge` as a process: options and plan.toml, JSON, exit status, report, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patience import PATIENCE

PROGRAM = """
import random, sys
gain, seed = float(sys.argv[1]), int(sys.argv[2])
noise = random.Random(seed)
for step in range(3):
    print(f"step {step} loss {3 - step + noise.random() - gain:.6f}", flush=True)
"""


def windtunnel(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "windtunnel", "judge", *map(str, words)], cwd=cwd, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip


def command(gain):
    return f"{sys.executable} t.py {gain} {{seed}}"


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    (folder / "t.py").write_text(PROGRAM)
    words = ["--arm", f"base={command(0)}", "--arm", f"new={command(0.5)}", "--metric", "loss ([0-9.]+)"]
    return folder, words, windtunnel(*words, "--seeds", 4, "--json", cwd=folder)


def test_json_alone_is_on_stdout_and_the_report_is_written(judged):
    folder, _, result = judged
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["judgements"][0]["verdict"]["word"] == "better"
    assert found["judgements"][0]["verdict"]["difference"]["estimate"] == pytest.approx(-0.5)
    written = folder / found["folder"]
    assert json.loads((written / "comparison.json").read_text())["signature"] == found["signature"]
    page = (written / "report.html").read_text()
    assert "On the way" in page
    assert f"the margin,\n{found['rule']['margin']:.4f}.</p>" in page
    assert "times the baseline's cost" not in page  # which is not known of programs
    assert "sha256:" in found["signature"]
    assert "t.py" in found["signature"]
    for name in ("comparison.png", "comparison.svg", "series.png"):
        assert (written / name).stat().st_size > 1000


def test_the_tables_and_the_same_command_from_a_file(judged):
    folder, _, first = judged
    text = f"seeds = 4\n[arms]\nbase = '{command(0)}'\nnew = '{command(0.5)}'\n[[metrics]]\nwhere = 'loss ([0-9.]+)'\n"
    (folder / "plan.toml").write_text(text)
    result = windtunnel("plan.toml", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "new against base: better: -0.5000" in result.stdout
    assert "nats" not in result.stdout  # windtunnel's own metric of this name is another
    assert json.loads(first.stdout)["signature"] in result.stdout
    assert "finished" not in result.stderr  # nothing was run again
    assert windtunnel("plan.toml", "--margin", 0.9, cwd=folder).returncode == 10  # options go before the file
    assert windtunnel("plan.toml", "--higher", cwd=folder).returncode == 12


def test_an_option_overrides_the_file_even_with_a_value_that_is_the_defaults(tmp_path):
    arms = "[arms]\na = 'echo 1.{seed}'\nb = 'echo 2.{seed}'\n[[metrics]]\nwhere = '([0-9.]+)'\n"
    (tmp_path / "plan.toml").write_text(f"first_seed = 3\nseeds = 4\nalpha = 0.2\nown_folder = true\n{arms}")
    result = windtunnel("--first-seed", 0, "--alpha", 0.05, "--json", "plan.toml", cwd=tmp_path)
    assert result.returncode == 12, result.stderr
    found = json.loads(result.stdout)
    assert [run["seed"] for run in found["arms"][0]["seeds"]] == [0, 1, 2, 3]
    assert found["rule"]["alpha"] == 0.05
    [kept] = tmp_path.glob("runs/arm-a-*/arm.json")
    assert json.loads(kept.read_text())["own_folder"] is True  # no option says otherwise


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--arm", "a=echo {seed}"], 2, "what decides?"),
        (["--arm", "a", "--metric", "x"], 2, "expected NAME=VALUE"),
        (["--arm", "a=echo {seed}", "--arm", "a=echo {seed}", "--metric", "x"], 2, "name of its own"),
        (["nowhere.toml"], 2, "not a readable config"),
        (["--arm", "a=echo loss", "--arm", "b=echo", "--metric", "x"], 2, "does not contain {seed}"),
        (["--arm", "a=echo {seed}", "--arm", "b=exit {seed}", "--metric", r"(\d+)", "--seeds", 4], 1, "runs failed"),
        (
            ["--arm", "[b]a=echo 1 {seed}", "--arm", "b=echo {seed}", "--metric", r"^(\d+)", "--plan"],
            1,
            "ignores its seed",
        ),
        (["--arm", "[b]a=echo {seed}", "--arm", "b=echo {seed}", "--metric", r"(\d+)"], 10, "baseline [b]a"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, words, code, told):
    result = windtunnel(*words, cwd=tmp_path)
    assert result.returncode == code
    assert told in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_it_stops_cleanly_and_the_same_command_goes_on(tmp_path, number, code):
    waits = "echo $$ > pid; mv pid begun; while ! test -e go; do sleep 0.02; done; echo loss 1.{seed}"
    words = ["--arm", "base=echo loss 2.{seed}{seed}", "--arm", f"new={waits}", "--metric", "loss ([0-9.]+)",
             "--seeds", "4"]  # fmt: skip
    command = [sys.executable, "-m", "windtunnel", "judge", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == code, said
    assert "the same command goes on" in said
    pid = int((tmp_path / "begun").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    Path(tmp_path / "go").touch()
    assert windtunnel(*words, cwd=tmp_path).returncode == 0
