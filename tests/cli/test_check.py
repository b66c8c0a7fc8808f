"""`windtunnel check`: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from windtunnel.cli import app
from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.training.loop import fit
from windtunnel.training.recipes import tiny

SMALL = [
    "model.n_layers=1", "model.n_heads=2", "model.d_model=16", "model.context_length=16", "train.batch_size=32",
    "train.threads=1", "train.precision=fp32", "train.compile=false",
]  # fmt: skip
SETS = [word for setting in SMALL for word in ("--set", setting)]


def check(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def test_a_recipe_that_is_well(tmp_path):
    result = check("tiny", "--corpus", "names", *SETS, "--steps", 60, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "nothing found; looked for: the loss before training against ln V" in result.stdout
    assert "dead units (from 50 % of a layer on)" in " ".join(result.stdout.split())
    assert "most dead units none" in " ".join(result.stdout.split())
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "check.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "")


def test_a_table_of_pairs_is_checked_before_training(tmp_path):
    (tmp_path / "pairs.csv").write_text("en,de\n" + "".join(f"{n:b},{n}\n" for n in range(1, 199)))
    columns = ("--column", "source=en", "--column", "target=de")
    words = ("translate", "--corpus", tmp_path / "pairs.csv", *columns, *SETS, "--steps", 20, "--out", tmp_path)
    result = check(*words, "--json")
    assert result.exit_code in (0, 1), result.exception
    assert json.loads(result.stdout)["config"]["text"]["columns"] == {"source": "en", "target": "de"}


def test_a_recipe_with_a_problem_names_it_and_its_cure(tmp_path):
    result = check("tiny", *SETS, "--set", "optimizer.lr=5e-6", "--steps", 60, "--out", tmp_path, "--json")
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    (finding,) = (f for f in found["findings"] if f["name"] == "learning rate too small")
    assert finding["severity"] == "problem"
    assert finding["cure"] == "--set optimizer.lr=5e-05"
    assert not found["healthy"]
    assert "<code>--set optimizer.lr=5e-05</code>" in (tmp_path / "check.html").read_text()


def test_a_run_is_read_with_its_history(tmp_path):
    config = override(tiny("names"), [*SMALL, "train.steps=80", "train.eval_every=40", "train.sample_tokens=0"])
    for _ in fit(config, tmp_path / "run"):
        pass
    result = check(tmp_path / "run", "--steps", 40, "--out", tmp_path / "out", "--json")
    found = json.loads(result.stdout)
    assert (found["step"], found["is_run"], len(found["history"]["losses"])) == (80, True, 80)
    assert found["history"]["dev"][-1][0] == 80
    names = {f["name"] for f in found["findings"]}
    assert names <= {"underfitting"}  # 80 steps are few
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("nowhere",), ArtifactError, "does not exist"),
        (("runs", "--set", "optimizer.lr=1"), ConfigError, "is none"),
        (("runs", "--column", "source=en"), ConfigError, "--column changes a recipe, and runs is none"),
        (("runs", "--corpus", "dinosaurs"), ConfigError, "--corpus changes a recipe, and runs is none"),
        (("tiny", "--set", "optimizer.rl=1"), ConfigError, "did you mean"),
    ],
)
def test_a_wrong_name_is_one_sentence(words, error, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = check(*words)
    assert isinstance(result.exception, error)
    assert says in str(result.exception)
