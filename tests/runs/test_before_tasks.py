"""Run folders, metrics and a comparison as they were written before tasks had metrics of their own.

`before_tasks/` was made by `windtunnel compare names --vary model.position=learned,rope --seeds 2 --steps 3`, with a
model of one layer of width 8.
"""

import json
import shutil
from pathlib import Path

import pytest

from windtunnel.comparison.judging import conclude
from windtunnel.comparison.plan import Plan
from windtunnel.runs.arms import ResolvedArm
from windtunnel.runs.grid import Grid
from windtunnel.runs.measure import is_measured, read_measured
from windtunnel.runs.seeds import evaluate_seeds, summarise
from windtunnel.training.events import Evaluation
from windtunnel.training.loop import resume
from windtunnel.training.run import open_run

FOLDERS = ("names-d844a8", "names-b7ad7c")  # learned positions, rope


@pytest.fixture
def runs(tmp_path):
    shutil.copytree(Path(__file__).parent / "before_tasks", tmp_path / "runs")
    return tmp_path / "runs"


def evaluations(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "evaluation"]


def test_a_run_is_read_as_it_was(runs):
    folder = runs / FOLDERS[0] / "seed-0"
    old, new = evaluations(folder), [e for e in open_run(folder).events() if isinstance(e, Evaluation)]
    assert len(old) == len(new) == 2
    for line, event in zip(old, new, strict=True):
        assert event.scores == {"loss": line["loss"], "bits_per_byte": line["bits_per_byte"]}
        assert (event.step, event.n_tokens, event.whole) == (line["step"], line["n_tokens"], line["whole"])
    assert [type(e).__name__ for e in resume(folder)] == ["Started", "Stopped"]  # nothing is left to train
    [result] = summarise([folder]).seeds
    assert (result.reason, result.dev) == ("finished", new[-1])


def test_its_model_has_the_loss_that_it_had(runs):
    folder = runs / FOLDERS[1] / "seed-1"
    assert evaluate_seeds([folder], "dev").scores["loss"].estimate == pytest.approx(evaluations(folder)[-1]["loss"])
    assert is_measured(folder, 3)
    sums = read_measured(folder).sums
    assert sums["nats"].sum() / sums["targets"].sum() == pytest.approx(evaluations(folder)[-1]["loss"])


def test_its_comparison_comes_out_as_it_did(runs):
    [path] = runs.glob("compare-*/comparison.json")
    old = json.loads(path.read_text())
    arms = []
    for name, arm in zip(FOLDERS, old["arms"], strict=True):
        run = open_run(runs / name / "seed-0")
        arms.append(ResolvedArm(arm["name"], run.config, run.store()))
    new = conclude(Plan(Grid(tuple(arms), (0, 1), runs))).to_dict()
    for before, after in zip(old["arms"], new["arms"], strict=True):
        assert before["key"] == after["key"]  # the fingerprint of the config
        for name in ("loss", "bits_per_byte"):
            assert after["scores"][name]["estimate"] == pytest.approx(before[name]["estimate"], rel=1e-12)
            assert after["scores"][name]["high"] == pytest.approx(before[name]["high"], rel=1e-9)
    [before], [after] = old["judgements"], new["judgements"]
    for name in ("p", "level", "p_equivalence", "word"):
        wanted = before["verdict"][name]
        assert after["verdict"][name] == (pytest.approx(wanted, rel=1e-6) if isinstance(wanted, float) else wanted)
    assert after["others"]["bits_per_byte"]["estimate"] == pytest.approx(before["bits_per_byte"]["estimate"], rel=1e-9)
    assert after["over_documents"]["low"] == pytest.approx(before["over_documents"]["low"], rel=1e-6)
