"""`windtunnel compare`, end to end with real runs: three arms, one of which explodes."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from patience import PATIENCE
from windtunnel.config import override
from windtunnel.library.comparing import compare
from windtunnel.runs.arms import arm_from_file, vary
from windtunnel.runs.measure import read_measured
from windtunnel.training.events import Evaluation
from windtunnel.training.recipes import recipe
from windtunnel.training.run import open_run

SMALL = ["model.n_layers=1", "model.n_heads=2", "model.d_model=16", "train.batch_size=8", "train.sample_tokens=0"]
EXPLODES = {"optimizer": {"name": "sgd", "lr": 1e6}, "schedule": {"warmup": 0}, "train": {"clip": None}}


def windtunnel(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "windtunnel", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    (folder / "explodes.json").write_text(json.dumps(EXPLODES))
    words = ["compare", "names", "--vary", "optimizer.lr=1e-3,3e-2", "--arm", "explodes=explodes.json", "--seeds", 4,
             "--steps", 30, "--json", *(word for a in SMALL for word in ("--set", a))]  # fmt: skip
    return folder, words, windtunnel(*words, cwd=folder)


def test_the_verdicts(compared):
    folder, _, result = compared
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    fast, explodes = found["judgements"]
    assert (fast["arm"], fast["verdict"]["word"]) == ("lr=3e-2", "better")
    assert (explodes["arm"], explodes["verdict"]["word"]) == ("explodes", "undecided")
    assert explodes["verdict"]["diverged"] == [4, 0]  # by chance alone all four would be the arm's in 1 of 8
    assert (explodes["verdict"]["p"], explodes["seeds_needed"]) == (0.125, 6)
    assert "diverged in 4 of 4 seeds, lr=1e-3 in 0; no seed finished in both" in explodes["sentence"]
    losses = [[run["scores"]["loss"] for run in arm["seeds"]] for arm in found["arms"]]
    differences = np.subtract(losses[1], losses[0])
    assert fast["verdict"]["p"] == pytest.approx(stats.ttest_rel(losses[1], losses[0]).pvalue, rel=1e-9)
    assert fast["verdict"]["difference"]["estimate"] == pytest.approx(differences.mean(), abs=1e-12)
    assert losses[2] == [None] * 4
    assert any("explodes diverged in 4 of 4 seeds" in note for note in found["notes"])
    assert any("explodes: the p of its t test is of two tests together" in note for note in found["notes"])
    assert found["rule"]["margin"] == pytest.approx(0.005 * np.mean(losses[0]))
    assert fast["over_documents"]["n"] == found["n_documents"] > 1000
    assert fast["over_documents"]["estimate"] == pytest.approx(differences.mean(), abs=1e-9)
    for part in ("names sha256:", "lr=3e-2", "seeds 0-3", "paired t test", "holm", "margin 0.50%", "torch"):
        assert part in found["signature"]
    assert all(
        (folder / found["folder"] / name).exists() for name in ("comparison.json", "comparison.png", "report.html")
    )


def test_the_losses_are_those_of_the_runs(compared):
    folder, _, result = compared
    for arm in json.loads(result.stdout)["arms"][:2]:
        for run in arm["seeds"]:
            path = folder / run["folder"]
            last = [e for e in open_run(path).events() if isinstance(e, Evaluation)][-1]
            assert last.whole
            assert run["scores"]["loss"] == pytest.approx(last.loss, abs=1e-6)
            assert run["scores"]["bits_per_byte"] == pytest.approx(last.scores["bits_per_byte"], abs=1e-6)
            measured = read_measured(path)
            assert measured.sums["targets"].sum() == last.n_tokens == json.loads(result.stdout)["n_tokens"]
        assert 0 < arm["peak_memory"] < 2e9


def test_the_same_command_trains_only_what_is_missing(compared):
    folder, words, first = compared
    runs = [Path(run["folder"]) for arm in json.loads(first.stdout)["arms"] for run in arm["seeds"]]
    gone = folder / runs[1]
    before = {run: (folder / run / "metrics.jsonl").stat().st_mtime_ns for run in runs}
    shutil.rmtree(gone)
    again = windtunnel(*words, cwd=folder)
    assert [run for run in runs if (folder / run / "metrics.jsonl").stat().st_mtime_ns != before[run]] == [runs[1]]
    old, new = json.loads(first.stdout), json.loads(again.stdout)
    assert new["judgements"] == old["judgements"]


def test_from_python_it_is_the_same_comparison(compared, monkeypatch):
    folder, _, first = compared
    monkeypatch.chdir(folder)
    base = override(recipe("auto", "names"), ["train.steps=30", *SMALL])
    arms = [*vary(base, ["optimizer.lr=1e-3,3e-2"]), arm_from_file(base, "explodes=explodes.json")]
    with ThreadPoolExecutor(1) as executor:
        found = compare(arms, seeds=4, executor=executor, progress=False)
    assert [j.sentence for j in found.judgements] == [j["sentence"] for j in json.loads(first.stdout)["judgements"]]
    assert found.complete


def test_a_comparison_uses_the_runs_that_train_made(compared):
    """In the same folder `train` finds the comparison's runs, and the other way round: config and seed name a run."""
    folder, _, _ = compared
    trained = windtunnel(
        "train", "names", "--seeds", 4, "--steps", 30, "--json", "--set", "optimizer.lr=1e-3",
        *(word for a in SMALL for word in ("--set", a)), cwd=folder,
    )  # fmt: skip
    assert "0 of 4 runs to train" in trained.stderr


def test_it_is_said_that_holm_takes_the_place_of_dunnett_where_a_run_diverged(compared):
    folder, words, first = compared
    found = json.loads(windtunnel(*words, "--correction", "dunnett", cwd=folder).stdout)
    told = "Dunnett's test needs every seed of every arm to finish; Holm's correction takes its place here"
    assert told in found["notes"]
    assert told not in json.loads(first.stdout)["notes"]
    holm = json.loads(first.stdout)["judgements"]
    assert [j["verdict"]["p"] for j in found["judgements"]] == [j["verdict"]["p"] for j in holm]


def test_until_decided_stops_when_all_are_decided(compared):
    folder, words, first = compared
    result = windtunnel(*words, "--until-decided", "--max-seeds", 8, cwd=folder)
    found = json.loads(result.stdout)
    assert [j["verdict"]["word"] for j in found["judgements"]] == ["better", "worse"]
    n_seeds = max(len(arm["seeds"]) for arm in found["arms"])
    decided_at = max(j["verdict"]["n"] for j in found["judgements"])
    assert n_seeds == decided_at <= 8
    assert "looks after 4...8 seeds" in found["signature"]
    warned = [[n for n in notes if "skewed" in n] for notes in (found["notes"], json.loads(first.stdout)["notes"])]
    assert [len(notes) for notes in warned] == [1, 0]
    level = found["judgements"][0]["verdict"]["level"]
    assert level < json.loads(first.stdout)["judgements"][0]["verdict"]["level"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "model.position=rope"], "at least two arms"),
        (["--vary", "model.position=rope,rope"], "two arms are named"),
        (["--vary", "optimizer.lr=1e-3,0.001"], "the same run"),
        (["--vary", "model.position=rope,alibi", "--margin", "0"], "no number of seeds"),
        (["--vary", "model.position=rope,alibi", "--baseline", "x"], "no arm 'x'"),
        (["--vary", "model.position=rope,alibi", "--executor", "slurm"], "known are local, dask"),
        (["--vary", "model.position=rope,alibi", "--correction", "magic"], "holm"),
        (["--vary", "seed=1,2"], "same run"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, command_line, words, message):
    code, _, err = command_line("compare", "names", *words)
    told = err.strip().splitlines()
    assert code == 2, told
    assert message in told[-1]
    assert len(told) <= 2
    assert list(tmp_path.iterdir()) == []
