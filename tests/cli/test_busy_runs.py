"""A run that a process is at is called so, and nobody else trains it; no run lies in another."""

import json

import pytest

from windtunnel.config import override
from windtunnel.library import training
from windtunnel.training.disk import locked
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe

CHANGES = ["model.n_layers=1", "model.n_heads=2", "model.d_model=8", "train.steps=2", "train.threads=1"]
SETS = [word for change in CHANGES for word in ("--set", change)]


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """A run of which nothing but the beginning is there."""
    folder = tmp_path / "runs/some/seed-0"
    events = fit(override(recipe("tiny", "names"), CHANGES), folder)
    next(events)
    events.close()
    return folder


def state(windtunnel):
    [row] = json.loads(windtunnel("runs", "--json")[1])
    return row["state"], row["message"]


def test_a_run_that_is_being_trained_is_called_so(windtunnel, folder):
    assert state(windtunnel) == ("interrupted", "not finished yet")
    assert "train it first: windtunnel resume" in windtunnel("generate", "last", "a")[2]
    with locked(folder):
        assert state(windtunnel) == ("training", "a process is training it")
        for words in (("generate", "last", "a"), ("check", "some")):
            code, _, err = windtunnel(*words)
            assert code == 3
            assert "has no checkpoint yet; it is being trained, wait for the first" in err
    assert state(windtunnel)[0] == "interrupted"


def test_the_same_command_beside_itself_is_refused_and_writes_nothing(windtunnel, folder, monkeypatch):
    monkeypatch.setattr(training, "PATIENCE", 0)
    with locked(folder):
        for words in (("train", "names", "--recipe", "tiny", "--out", folder.parent, *SETS), ("resume", "some")):
            code, out, err = windtunnel(*words)
            assert (code, out) == (1, "")
            assert "seed-0 is being trained by another process; wait for it, or choose another folder with --out" in err
    assert not (folder.parent / "curves.png").exists()


def test_no_run_is_trained_inside_another(windtunnel, folder):
    before = sorted(folder.rglob("*"))
    code, _, err = windtunnel("train", "names", "--recipe", "tiny", "--out", folder, *SETS)
    assert code == 2
    assert f"would be a run inside the run {folder}; choose a folder outside of it with --out" in err
    assert sorted(folder.rglob("*")) == before
