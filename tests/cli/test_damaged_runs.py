"""Commands on runs that something happened to."""

import json
import shutil
from pathlib import Path

import pytest
from test_train import sets, windtunnel

from windtunnel.comparison.plan import is_settled
from windtunnel.runs.seeds import describe_all, find_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two finished runs below runs/out, and what training them said."""
    folder = tmp_path_factory.mktemp("trained")
    command = ("train", "names", "--seeds", 2, "--steps", 6, "--out", "runs/out", "--json")
    result = windtunnel(*command, *sets("train.eval_every=3", "train.save_every=3"), cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda path: (path / "model.safetensors").write_bytes(b"")])
def test_a_finished_run_without_its_last_checkpoint_is_trained_again(trained, damage):
    folder, before = trained
    run = folder / "runs/out/seed-1"
    assert is_settled(run)
    damage(run / "step-6")
    assert not is_settled(run)
    result = windtunnel("resume", "out", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "1 of 2 runs to train" in result.stderr
    assert json.loads(result.stdout)["seeds"] == before["seeds"]
    assert is_settled(run)
    assert "0 of 2 runs to train" in windtunnel("resume", "out", "--json", cwd=folder).stderr


def test_a_damaged_run_is_listed_among_the_others(trained, tmp_path):
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    (tmp_path / "runs/out/seed-0/record.json").write_text("{}")
    table = windtunnel("runs", cwd=tmp_path)
    assert table.returncode == 0
    assert "damaged" in table.stdout
    assert "6/6" in table.stdout
    assert "seed-0/record.json was truncated or altered" in table.stderr
    listed = {run["folder"]: run for run in json.loads(windtunnel("runs", "--json", cwd=tmp_path).stdout)}
    assert {name: run["state"] for name, run in listed.items()} == {
        "runs/out/seed-0": "damaged",
        "runs/out/seed-1": "finished",
    }
    assert "seed-0/record.json was truncated" in listed["runs/out/seed-0"]["message"]
    assert listed["runs/out/seed-0"].keys() == listed["runs/out/seed-1"].keys()


def test_a_run_that_cannot_be_looked_into_is_listed(monkeypatch, tmp_path):
    (tmp_path / "closed").mkdir()

    def refuse(path, **named):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    (entry,) = describe_all(find_runs(tmp_path))
    assert (entry["state"], entry["message"]) == ("damaged", f"{tmp_path}/closed cannot be read (Permission denied)")
