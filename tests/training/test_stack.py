"""Seeds that train stacked against each of them alone, and what happens to one does not happen to the others."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from tiny_runs import final_hashes, losses

from patience import wait_for
from windtunnel.config import override
from windtunnel.errors import NumericsError
from windtunnel.runs.execute import group_seeds
from windtunnel.runs.seeds import create_seeds
from windtunnel.training import machine
from windtunnel.training.disk import locked
from windtunnel.training.events import Evaluation, Step, Stopped
from windtunnel.training.loop import resume
from windtunnel.training.recipes import makemore, mlp
from windtunnel.training.run import load, open_run
from windtunnel.training.stack import resume_stacked

SEEDS = 3
ADAMW = ["optimizer.name=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1", "train.clip=0.5"]
MOMENTUM = ["optimizer.momentum=0.9", "optimizer.lr=0.02", "optimizer.weight_decay=0.01", "train.clip=1.0",
            "schedule.warmup=10", "schedule.curve=cosine"]  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the run folders of a recipe's seeds 0, 1, ... below a folder, some settings changed."""
    draw, corpus = random.Random(1), tmp_path_factory.mktemp("corpus") / "names.txt"
    corpus.write_text("\n".join("".join(draw.choices("aabbcdefghij", k=draw.randint(2, 9))) for _ in range(400)))
    short = ["train.steps=60", "train.eval_every=30", "train.save_every=20", "train.sample_tokens=0", "train.threads=1",
             "text.dev_fraction=0.1", "model.d_hidden=50"]  # fmt: skip
    return lambda folder, recipe, *changes, seeds=SEEDS: create_seeds(
        override(recipe(str(corpus)), [*short, *changes]), range(seeds), folder
    )


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (makemore, []),
        (mlp, ADAMW),
        (mlp, [*MOMENTUM, "model.batch_norm=false", "model.n_layers=2", "model.direct=true"]),
        (mlp, ["train.n_examples=100"]),
    ],
    ids=["makemore", "adamw", "momentum", "few examples"],
)
def test_stacked_equals_alone(make, tmp_path, recipe, changes):
    stacked, alone = make(tmp_path / "stacked", recipe, *changes), make(tmp_path / "alone", recipe, *changes)
    events = list(resume_stacked(stacked))
    for place, (run, oracle) in enumerate(zip(stacked, alone, strict=True)):
        expected, own = list(resume(oracle)), [event for i, event in events if i == place]
        assert [(type(e), e.step) for e in own] == [(type(e), e.step) for e in expected]
        assert own == open_run(run).events()
        for kind, fields in {
            Step: ("loss", "lr", "grad_norm", "n_tokens"),
            Evaluation: ("loss",),
        }.items():
            for field in fields:
                numbers = [[getattr(e, field) for e in some if isinstance(e, kind)] for some in (own, expected)]
                assert numbers[0] == pytest.approx(numbers[1], abs=1e-5, rel=1e-4), field
        assert own[0].note == "one of 3 seeds that train together"
        a, b = (load(folder).model.state_dict() for folder in (run, oracle))
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in oracle.iterdir())
    assert losses(stacked[0]) != losses(stacked[1])


def stop_after(folders, step):
    """Train stacked until some run has taken this step, then stop as SIGTERM does."""
    done = [0]
    for _, event in resume_stacked(folders, should_stop=lambda: done[0] >= step):
        done[0] = max(done[0], event.step)


@pytest.mark.parametrize("changes", [[], ADAMW], ids=["sgd", "adamw"])
def test_a_resumed_stack_equals_the_uninterrupted_one(make, tmp_path, changes):
    settings = [*changes, "train.save_every=50", "train.eval_every=15"]
    whole, parts = make(tmp_path / "whole", mlp, *settings), make(tmp_path / "parts", mlp, *settings)
    list(resume_stacked(whole))
    for step in (0, 20):
        stop_after(parts, step)
    for run in parts:
        assert open_run(run).events()[-1] == Stopped(30, "interrupted", f"resume with: windtunnel resume {run}")
    list(resume_stacked(parts))
    for run, expected in zip(parts, whole, strict=True):
        assert losses(run) == losses(expected)
        assert final_hashes(run) == final_hashes(expected)


def test_killed_while_some_have_saved_and_others_have_not(make, tmp_path):
    whole, parts = make(tmp_path / "whole", mlp), make(tmp_path / "parts", mlp)
    list(resume_stacked(whole))
    events = resume_stacked(parts)
    assert any(event.step == 22 for _, event in events)
    events.close()
    assert [open_run(run).events()[-1].step for run in parts] == [22, 20, 20]
    assert sorted(p.name for p in tmp_path.glob("parts/*/step-*")) == ["step-20"]
    list(resume_stacked(parts))
    for run, expected in zip(parts, whole, strict=True):
        assert losses(run) == pytest.approx(losses(expected), abs=1e-5)


def test_runs_that_stand_at_different_steps_all_reach_their_end(make, tmp_path):
    """A stack for each step: whether a run is to stop is asked of its own stack."""
    whole, parts = (make(tmp_path / name, mlp, "train.keep=3", seeds=4) for name in ("whole", "parts"))
    list(resume_stacked(whole))
    list(resume_stacked(parts))
    for run, step in zip(parts, (20, 60, 40, 40), strict=True):
        for path in run.glob("step-*"):
            if int(path.name[5:]) > step:
                shutil.rmtree(path)
    events = list(resume_stacked(parts))
    assert [event.step for _, event in events[:4]] == [20, 60, 40, 40]
    ends = {place: event for place, event in events if isinstance(event, Stopped)}
    assert ends == {place: Stopped(60, "finished") for place in range(4)}
    for run, expected in zip(parts, whole, strict=True):
        assert losses(run) == pytest.approx(losses(expected), abs=1e-5)


def test_one_that_diverges_ends_as_alone_and_the_others_go_on(make, tmp_path):
    stacked, alone = (make(tmp_path / name, makemore, "train.explode=1.004") for name in ("stacked", "alone"))
    ends = {place: event for place, event in resume_stacked(stacked) if isinstance(event, Stopped)}
    for place, oracle in enumerate(alone):
        with suppress(NumericsError):
            list(resume(oracle))
        expected, own = open_run(oracle).events(), open_run(stacked[place]).events()
        assert ends[place] == own[-1]
        assert [(type(e), e.step) for e in own] == [(type(e), e.step) for e in expected]
        assert (own[-1].reason, own[-1].message[:60]) == (expected[-1].reason, expected[-1].message[:60])
        a, b = (load(folder).model.state_dict() for folder in (stacked[place], oracle))
        assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    assert [ends[place].reason for place in range(3)] == ["finished", "diverged", "diverged"]
    assert ends[1].step == 12


def test_where_a_guard_might_refuse_every_step_is_taken_alone(make, tmp_path):
    """AdamW may move by more than ten times the shortest weights: only the weights as they are tell."""
    settings = ["optimizer.name=adamw", "optimizer.lr=0.5", "train.explode=100", "schedule.curve=constant"]
    stacked, alone = (make(tmp_path / name, mlp, *settings, seeds=2) for name in ("stacked", "alone"))
    list(resume_stacked(stacked))
    for run, oracle in zip(stacked, alone, strict=True):
        list(resume(oracle))
        assert losses(run) == losses(oracle)
        assert final_hashes(run) == final_hashes(oracle)


def test_a_damaged_and_a_busy_run_take_no_other_with_them(make, tmp_path):
    runs = make(tmp_path, mlp, seeds=4)
    (runs[0] / "config.json").write_text("{}")
    with locked(runs[2]):
        ends = {place: event for place, event in resume_stacked(runs) if isinstance(event, Stopped)}
    assert [ends[place].reason for place in range(4)] == ["failed", "finished", "failed", "finished"]
    assert "config.json" in ends[0].message
    assert "is being written by another process" in ends[2].message
    assert [losses(runs[place])[59] > 0 for place in (1, 3)] == [True, True]
    assert [e.reason for _, e in resume_stacked([runs[2]]) if isinstance(e, Stopped)] == ["finished"]


def test_a_disk_that_refuses_one_run_ends_only_that_one(make, tmp_path, monkeypatch):
    runs, rename = make(tmp_path, mlp, seeds=2), os.rename

    def refuse(old, new):
        if new == runs[0] / "step-20":
            raise PermissionError(13, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    ends = {place: event for place, event in resume_stacked(runs) if isinstance(event, Stopped)}
    assert [ends[place].reason for place in range(2)] == ["failed", "finished"]
    assert "could not write" in ends[0].message


def test_which_runs_train_together(make, tmp_path, monkeypatch):
    """Seeds of one tiny config, as few at once as leave no core idle."""
    monkeypatch.setattr(machine, "cores", lambda: 2)
    runs = make(tmp_path / "a", mlp, seeds=5)
    assert group_seeds(runs) == [(0, 1, 2), (3, 4)] or group_seeds(runs) == [(0, 1), (2, 3, 4)]
    others = make(tmp_path / "b", mlp, "optimizer.lr=0.2", seeds=3)
    assert group_seeds([*runs, *others]) == [(0, 1), (2, 3, 4), (5, 6, 7)]
    for change in ("train.grad_accumulation=2", "train.threads=2", "model.d_hidden=20000"):
        assert group_seeds(make(tmp_path / change, mlp, change, seeds=2)) == [(0,), (1,)]
    (runs[1] / "config.json").write_text("{}")
    assert group_seeds(runs) == [(0, 2), (1,), (3, 4)]
    monkeypatch.setattr(machine, "cores", lambda: 8)
    assert group_seeds(others) == [(0,), (1,), (2,)]


def test_the_command_line_trains_seeds_stacked(make, tmp_path, monkeypatch):
    """And SIGTERM to it stops all of them, each with a checkpoint."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    corpus = open_run(make(tmp_path / "x", mlp, seeds=1)[0]).config.corpus
    command = [sys.executable, "-m", "windtunnel", "train", corpus, "--recipe", "mlp", "--seeds", "4"]
    command += ["--json", "--set", "text.dev_fraction=0.1", "--out", str(tmp_path / "runs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: all(b'"step": 200,' in log(tmp_path / f"runs/seed-{i}") for i in range(4)))
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 75
    for i in range(4):
        run = tmp_path / f"runs/seed-{i}"
        events = open_run(run).events()
        assert events[0].note == f"one of {len(group_seeds([run] * 4)[0])} seeds that train together"
        assert (events[-1].reason, events[-1].step % 100) == ("interrupted", 0)
        assert load(run).step == events[-1].step
        assert len(losses(run)) == events[-1].step


def log(run):
    path = run / "metrics.jsonl"
    return path.read_bytes() if path.exists() else b""
