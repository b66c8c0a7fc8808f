"""Commands on runs that something happened to."""

import json
import shutil
from pathlib import Path

import pytest
from test_train import sets
from test_train import windtunnel as in_a_process

from windtunnel.runs.grid import is_done
from windtunnel.runs.listing import describe_all
from windtunnel.runs.measure import measure
from windtunnel.runs.seeds import find_runs
from windtunnel.training.run import open_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two finished runs below runs/out, and what training them said."""
    folder = tmp_path_factory.mktemp("trained")
    command = ("train", "names", "--seeds", 2, "--steps", 6, "--out", "runs/out", "--json")
    result = in_a_process(*command, *sets("train.eval_every=3", "train.save_every=3"), cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda path: (path / "model.safetensors").write_bytes(b"")])
def test_a_finished_run_without_its_last_checkpoint_is_trained_again(trained, damage):
    folder, before = trained
    run = folder / "runs/out/seed-1"
    assert is_done(open_run(run))
    damage(run / "step-6")
    assert not is_done(open_run(run))
    result = in_a_process("resume", "out", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "1 of 2 runs to train" in result.stderr
    assert json.loads(result.stdout)["seeds"] == before["seeds"]
    assert is_done(open_run(run))
    assert "0 of 2 runs to train" in in_a_process("resume", "out", "--json", cwd=folder).stderr


def test_a_damaged_run_is_listed_among_the_others(trained, tmp_path):
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    (tmp_path / "runs/out/seed-0/record.json").write_text("{}")
    table = in_a_process("runs", cwd=tmp_path)
    assert table.returncode == 0
    assert "damaged" in table.stdout
    assert "6/6" in table.stdout
    assert "seed-0/record.json was truncated or altered" in table.stderr
    listed = {run["folder"]: run for run in json.loads(in_a_process("runs", "--json", cwd=tmp_path).stdout)}
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


DAMAGE = {
    "config.json": lambda path: path.write_text("{}"),
    "record.json": Path.unlink,
    "manifest.json": Path.unlink,
    "tokenizer.json": lambda path: path.write_bytes(b""),
    "metrics.jsonl": lambda path: path.write_bytes(path.read_bytes().replace(b'"loss": ', b'"loss": 1', 1)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_others_go_on_beside_a_damaged_run_which_is_named(trained, tmp_path, windtunnel, name):
    """The commands run in this process: the `windtunnel` of tests/cli/conftest.py."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    to_train = name == "manifest.json"  # in one case something is left to be done, which takes a process of its own
    if to_train:
        shutil.rmtree(tmp_path / "runs/out/seed-1/step-6")
    DAMAGE[name](tmp_path / "runs/out/seed-0" / name)
    code, out, err = windtunnel("resume", "out", "--json")
    assert code == 3
    assert f"{int(to_train)} of 2 runs to train" in err
    assert f"left out: runs/out/seed-0/{name}" in err
    lost, whole = json.loads(out)["seeds"]
    assert (lost["seed"], lost["folder"], lost["reason"]) == (0, "runs/out/seed-0", "damaged")
    assert whole == trained[1]["seeds"][1]
    if name == "metrics.jsonl":  # the model is sound
        return
    code, out, err = windtunnel("evaluate", "out", "--json")
    found = json.loads(out)
    assert (code, [folder for folder, _ in found["seeds"]]) == (3, ["runs/out/seed-1"])
    assert found["seeds"][0][1]["scores"] == trained[1]["seeds"][1]["dev"]["scores"]
    assert [folder for folder, _ in found["damaged"]] == ["runs/out/seed-0"]
    assert f"left out: runs/out/seed-0/{name}" in err
    code, out, err = windtunnel("runs", "out")  # shows the first seed, and never another in its place
    assert code == 3
    assert f"seed-0/{name}" in err


def test_nothing_goes_on_where_all_are_damaged(trained, tmp_path, windtunnel):
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    for seed in (0, 1):
        (tmp_path / f"runs/out/seed-{seed}/config.json").unlink()
    for command in ("resume", "evaluate"):
        code, out, err = windtunnel(command, "out")
        assert (code, out) == (3, "")
        assert "config.json cannot be read (No such file" in err


@pytest.mark.parametrize("name", ["documents.safetensors", "manifest.json"])
def test_what_was_measured_and_altered_is_measured_again_and_said(trained, tmp_path, caplog, name):
    """One flipped bit of a document's loss would be a bit of the verdict."""
    run = tmp_path / "seed-1"
    shutil.copytree(trained[0] / "runs/out/seed-1", run)
    path, events = run / "measured" / name, open_run(run).events()
    right = path.read_bytes()
    path.write_bytes(right[:-20] + bytes([right[-20] ^ 1]) + right[-19:])
    assert not is_done(open_run(run), events)
    assert f"measured again: {path} was altered" in caplog.text
    measure(run)
    assert (run / "measured/documents.safetensors").read_bytes() == (
        trained[0] / "runs/out/seed-1/measured/documents.safetensors"
    ).read_bytes()
    assert is_done(open_run(run), events)
