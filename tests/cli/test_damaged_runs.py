"""Commands on runs that something happened to."""

import json
import shutil

import pytest
from test_train import sets, windtunnel

from windtunnel.comparison.plan import is_settled


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
