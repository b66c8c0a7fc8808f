"""`windtunnel train` and `resume`, end to end with real processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE, wait_for

SMALL = ["model.n_layers=1", "model.n_heads=2", "model.d_model=16", "train.batch_size=8", "train.threads=1"]


def sets(*assignments):
    return [word for a in (*SMALL, *assignments) for word in ("--set", a)]


def windtunnel(*words, cwd, timeout=PATIENCE):
    return subprocess.run(
        [sys.executable, "-m", "windtunnel", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which three seeds have been trained, and what the command said."""
    folder = tmp_path_factory.mktemp("trained")
    command = ("train", "names", "--seeds", 3, "--steps", 30, "--out", "out", "--json", *sets("train.eval_every=15"))
    return folder, command, windtunnel(*command, cwd=folder)


def test_seeds_are_summarised_with_an_interval(trained):
    folder, _, result = trained
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    losses = [seed["dev"]["scores"]["loss"] for seed in summary["seeds"]]
    assert [seed["seed"] for seed in summary["seeds"]] == [0, 1, 2]
    assert len(set(losses)) == 3
    assert all(seed["dev"]["whole"] for seed in summary["seeds"])
    loss = summary["scores"]["loss"]
    assert loss["estimate"] == pytest.approx(sum(losses) / 3, abs=1e-12)
    assert loss["low"] < min(losses) < loss["estimate"] < max(losses) < loss["high"]
    assert loss["n"] == 3
    assert (folder / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_trains_nothing(trained):
    folder, command, first = trained
    before = (folder / "out" / "seed-0" / "metrics.jsonl").read_bytes()
    again = windtunnel(*command, cwd=folder)
    assert "0 of 3 runs to train" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (folder / "out" / "seed-0" / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_same_folder_is_refused(trained):
    folder, command, _ = trained
    result = windtunnel(*command, "--set", "optimizer.lr=0.5", cwd=folder)
    assert result.returncode == 2
    assert "optimizer.lr was 0.005, is now 0.5" in result.stderr
    assert "--out" in result.stderr


def test_runs_lists_and_shows(trained, tmp_path):
    folder, _, _ = trained
    shown = json.loads(windtunnel("runs", "out/seed-1", "--json", cwd=folder).stdout)
    assert (shown["seed"], shown["step"], shown["state"]) == (1, 30, "finished")
    empty = windtunnel("runs", cwd=tmp_path)
    assert empty.returncode == 0
    assert "windtunnel train names" in empty.stderr


def test_evaluate_repeats_the_dev_loss_and_reads_the_test_split_when_asked(trained):
    folder, _, result = trained
    summary = json.loads(result.stdout)
    dev = json.loads(windtunnel("evaluate", "out", "--json", cwd=folder).stdout)
    assert [e["scores"]["loss"] for _, e in dev["seeds"]] == pytest.approx(
        [s["dev"]["scores"]["loss"] for s in summary["seeds"]], abs=1e-6
    )
    assert dev["scores"]["loss"] == pytest.approx(summary["scores"]["loss"], abs=1e-5)
    test = json.loads(windtunnel("evaluate", "out/seed-0", "--split", "test", "--json", cwd=folder).stdout)
    assert (test["split"], len(test["seeds"]), test["scores"]["loss"]["low"]) == ("test", 1, None)
    assert test["scores"]["loss"]["estimate"] != dev["seeds"][0][1]["scores"]["loss"]
    unknown = windtunnel("evaluate", "out", "--split", "val", cwd=folder)
    assert unknown.returncode == 2
    assert "it has train, dev, test" in unknown.stderr


def test_ctrl_c_saves_and_resume_finishes(tmp_path):
    def command(out):
        return ["train", "names", "--seeds", "2", "--steps", "1000", "--out", out, *sets("train.eval_every=2000")]

    process = subprocess.Popen(
        [sys.executable, "-m", "windtunnel", *command("out")], cwd=tmp_path, stderr=subprocess.PIPE
    )
    wait_for_steps(tmp_path / "out" / "seed-0", 20)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr.decode()
    assert b"windtunnel resume" in stderr
    assert b"Traceback" not in stderr
    resumed = windtunnel("resume", "out", "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [seed["reason"] for seed in json.loads(resumed.stdout)["seeds"]] == ["finished", "finished"]
    assert windtunnel(*command("whole"), cwd=tmp_path).returncode == 0
    for seed in (0, 1):
        weights = [tmp_path / name / f"seed-{seed}" / "step-1000" / "model.safetensors" for name in ("out", "whole")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_sigterm_exits_75(tmp_path):
    words = ["train", "names", "--steps", "5000", "--out", "out", *sets("train.eval_every=5000")]
    process = subprocess.Popen([sys.executable, "-m", "windtunnel", *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for_steps(tmp_path / "out" / "seed-0", 20)
    process.terminate()
    assert process.wait(timeout=PATIENCE) == 75
    assert list((tmp_path / "out" / "seed-0").glob("step-*"))


def test_a_killed_seed_goes_on_by_itself(tmp_path):
    words = [
        "train",
        "names",
        "--seeds",
        "2",
        "--steps",
        "600",
        "--out",
        "out",
        "--json",
        *sets("train.eval_every=600"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "windtunnel", *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_for_steps(tmp_path / "out" / "seed-1", 20)
    victim = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"out/seed-1" in read_bytes(p)
              and b"worker" in read_bytes(p) and str(tmp_path) in cwd_of(p)]  # fmt: skip
    assert len(victim) == 1
    subprocess.run(["kill", "-9", victim[0].parent.name], check=True)
    stdout, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert [seed["reason"] for seed in json.loads(stdout)["seeds"]] == ["finished", "finished"]
    steps = [e["step"] for e in events_of(tmp_path / "out" / "seed-1") if e["event"] == "step"]
    assert steps == list(range(1, 601))


def test_divergence_exits_4_with_advice(tmp_path):
    result = windtunnel(
        "train", "names", "--steps", 200, "--out", "out",
        *sets("optimizer.name=sgd", "optimizer.lr=1e6", "train.clip=null", "schedule.warmup=0"), cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 4
    assert "training diverged at step" in result.stderr
    assert "--set optimizer.lr=" in result.stderr
    assert "Traceback" not in result.stderr


def wait_for_steps(run, n):
    """Wait until a run's metrics hold at least n lines."""
    path = run / "metrics.jsonl"
    wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") >= n, f"{n} events of {run}")


def events_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_bytes(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def cwd_of(path):
    try:
        return str((path.parent / "cwd").readlink())
    except OSError:
        return ""
