"""`windtunnel train --log trackio`: a tracker is told each step and evaluation, and can do no harm.

Its place is taken by a module of the same interface that writes down what it is called with: what a real one does with
the numbers is its own affair.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest
from test_train import sets

from patience import PATIENCE
from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.report.forwarding import Forwarding
from windtunnel.training.events import Evaluation, Step, read_events

TRACKER = """
import json
from contextvars import ContextVar

current = ContextVar("current", default=None)

def note(*what):
    with open("told.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")

class Run:
    def __init__(self, name):
        self.name = name
    def log(self, metrics, step=None):
        FAULT
        note("log", self.name, step, metrics)
    def finish(self):
        print("finished")
        note("finish", self.name)

def init(project, name=None, group=None, config=None, resume="never", **more):
    print("a tracker that talks")
    if current.get():
        current.get().finish()
    note("init", name, {"project": project, "group": group, "seed": config["seed"], "resume": resume, **more})
    run = Run(name)
    current.set(run)
    return run
"""
COMMAND = ("train", "names", "--out", "out", "--json", *sets("train.steps=6", "train.eval_every=3"))


def train(folder, *words, tracker="trackio", fault="pass"):
    """The finished command, and what it has told the tracker."""
    (folder / f"{tracker}.py").write_text(TRACKER.replace("FAULT", fault))
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "windtunnel", *map(str, (*COMMAND, "--log", tracker, *words))],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    told = folder / "told.jsonl"
    return done, [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []


def test_each_seed_has_a_run_with_the_numbers_of_its_folder(tmp_path):
    done, told = train(tmp_path, "--seeds", 2)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["seeds"]) == 2  # what the tracker prints is not among the answer
    begun = {about["seed"]: (name, about) for what, name, *rest in told if what == "init" for about in rest}
    assert len({name for name, _ in begun.values()}) == 2
    for seed, (name, about) in begun.items():
        assert about == {"project": "windtunnel", "group": "out", "seed": seed, "resume": "allow"}
        expected, found = defaultdict(dict), defaultdict(dict)
        for event in read_events(tmp_path / f"out/seed-{seed}/metrics.jsonl"):
            if isinstance(event, Step):
                numbers = {"train/loss": event.loss, "train/lr": event.lr, "train/grad_norm": event.grad_norm}
                expected[event.step] |= numbers
            elif isinstance(event, Evaluation):
                expected[event.step] |= {f"dev/{name}": value for name, value in event.scores.items()}
        for step, numbers in (rest for what, one, *rest in told if (what, one) == ("log", name)):
            assert not found[step].keys() & numbers.keys()
            found[step] |= numbers
        assert found == expected
        assert list(found) == list(range(7))
        assert told.count(["finish", name]) == 1


def test_a_run_that_goes_on_is_the_same_to_the_tracker(tmp_path):
    stop = "import os; step == 3 and os.kill(os.getpid(), 15)"
    first, _ = train(tmp_path, "--set", "train.steps=3000", tracker="wandb", fault=stop)
    assert first.returncode == 75, first.stderr
    stopped = read_events(tmp_path / "out/seed-0/metrics.jsonl")[-1].step
    done, told = train(tmp_path, "--set", "train.steps=3000", tracker="wandb", fault="step == 2999 or None")
    assert json.loads(done.stdout)["seeds"][0]["reason"] == "finished"
    begun = [line for line in told if line[0] == "init"]
    assert begun[0] == begun[1]
    assert begun[0][2]["reinit"] == "create_new"
    assert begun[0][1].endswith(begun[0][2]["id"])
    steps = [line[2] for line in told if line[0] == "log" and "train/loss" in line[3]]
    assert 0 < stopped < 3000
    assert steps == list(range(1, 3001))


def test_a_tracker_that_fails_is_said_once_and_training_goes_on(tmp_path):
    done, told = train(tmp_path, fault='if step == 2: raise OSError("no network")')
    assert done.returncode == 0
    assert json.loads(done.stdout)["seeds"][0]["reason"] == "finished"
    assert done.stderr.count("trackio failed and is told nothing more (OSError: no network)") == 1
    assert {line[2] for line in told if line[0] == "log"} == {0, 1}


def test_a_tracker_that_is_not_there_is_refused_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingExtra, match="install it with: pip install trackio"):
        Forwarding("trackio", [], print)
    with pytest.raises(ConfigError, match="expected trackio or wandb"):
        Forwarding("os", [], print)
