"""A run that was interrupted and resumed equals the uninterrupted one bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import config_of, final_hashes, finish, losses, stop_after

from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.training import machine
from windtunnel.training.events import Evaluation, Saved, Started, Stopped
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import load, open_run

has_bf16 = pytest.mark.skipif(not machine.has_fast_bf16(), reason="this CPU has no bfloat16 products")


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["optimizer.name=sgd", "train.grad_accumulation=1"],
        ["optimizer.name=muon"],
        pytest.param(["train.precision=bf16"], marks=has_bf16),
    ],
    ids=["adamw", "sgd", "muon", "bf16"],
)
def test_resumed_equals_uninterrupted(config, tmp_path, changes):
    config = override(config, [*changes, "train.save_every=50", "train.eval_every=50"])
    whole = finish(config, tmp_path / "whole")
    for step in (4, 17, 29):  # inside the first epoch, inside the second, before the last step
        stop_after(config, tmp_path / "parts", step)
        assert open_run(tmp_path / "parts").events()[-1].reason == "interrupted"
    assert finish(config, tmp_path / "parts") == whole
    assert len(whole) == 30
    assert final_hashes(tmp_path / "parts") == final_hashes(tmp_path / "whole")


def test_the_state_matters(config, reference, tmp_path):
    """The equality above is not trivial: another seed gives other weights, and dropout is on."""
    _, whole, hashes = reference
    finish(override(config, ["seed=1"]), tmp_path / "seed")
    assert final_hashes(tmp_path / "seed")[0] != hashes[0]
    finish(override(config, ["model.dropout=0"]), tmp_path / "dropout")
    assert losses(tmp_path / "dropout") != whole


def test_two_runs_of_one_config_are_equal(config, reference, tmp_path):
    assert finish(config, tmp_path / "again") == reference[1]
    assert final_hashes(tmp_path / "again") == reference[2]


def test_stopping_before_the_first_step_and_resuming(config, reference, tmp_path):
    for _ in range(2):
        stop_after(config, tmp_path / "run", 0)
    assert finish(config, tmp_path / "run") == reference[1]
    assert final_hashes(tmp_path / "run") == reference[2]
    first = [e for e in open_run(tmp_path / "run").events() if isinstance(e, Evaluation) and e.step == 0]
    assert len(first) == 1


def test_the_consumer_may_walk_away(config, reference, tmp_path):
    """Breaking off the iteration loses nothing that was saved and frees the folder."""
    for event in fit(config, tmp_path / "run"):
        if event.step == 13:
            break
    del event
    assert load(tmp_path / "run").step == 10
    assert finish(config, tmp_path / "run") == reference[1]
    assert final_hashes(tmp_path / "run") == reference[2]


def test_the_stream_of_events(config, tmp_path):
    events = list(fit(config, tmp_path / "run"))
    assert isinstance(events[0], Started)
    assert (events[0].step, events[0].steps, events[0].note) == (0, 30, "")
    assert [e.step for e in events if isinstance(e, Evaluation)] == [0, 10, 20, 30]
    assert [e.step for e in events if isinstance(e, Saved)] == [5, 10, 15, 20, 25, 30]
    assert events[-1] == Stopped(30, "finished")
    assert open_run(tmp_path / "run").events() == events
    assert [p.name for p in sorted(tmp_path.glob("run/step-*"))] == ["step-25", "step-30"]
    again = list(resume(tmp_path / "run"))
    assert [type(e) for e in again] == [Started, Stopped]
    assert load(tmp_path / "run").warnings == ()


def test_saving_the_same_state_again_keeps_the_checkpoint(config, tmp_path):
    """Stopping at a step that was just saved must not delete that checkpoint in order to write it again."""
    stop_after(config, tmp_path / "run", 5)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/step-5").iterdir()}
    stop_after(config, tmp_path / "run", 0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run/step-5").iterdir()} == stamps


def test_a_changed_config_is_refused_with_the_differences(config, reference):
    changed = override(config, ["optimizer.lr=0.5", "train.steps=31"])
    with pytest.raises(ConfigError) as caught:
        list(fit(changed, reference[0]))
    assert "optimizer.lr was 0.001, is now 0.5" in str(caught.value)
    assert "train.steps was 30, is now 31" in str(caught.value)
    assert "seed" not in str(caught.value)
    assert "--out" in str(caught.value)


@pytest.mark.parametrize("added", ["abba", "Ωmega"], ids=["known characters", "a character without a token"])
def test_a_changed_corpus_is_refused(config, tmp_path, added):
    corpus = tmp_path / "names.txt"
    corpus.write_bytes(Path(config.corpus).read_bytes())
    stop_after(config_of(corpus), tmp_path / "run", 3)
    with corpus.open("a", encoding="utf-8") as file:
        file.write("\n" + added)
    with pytest.raises(ArtifactError, match=r"names\.txt has changed since .*run began.*restore it"):
        list(resume(tmp_path / "run"))


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtifactError, match="not a run folder"):
            list(resume(folder))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_with_other_files_is_left_alone(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match="holds other files: choose another with --out"):
        list(fit(config, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_damaged_newest_checkpoint_falls_back_aloud_and_ends_equal(config, reference, tmp_path):
    stop_after(config, tmp_path / "run", 15)
    (tmp_path / "run/step-15/model.safetensors").write_bytes(b"")
    started = next(iter(resume(tmp_path / "run")))
    assert started.step == 10
    assert "step-15/model.safetensors was truncated" in started.note
    assert "going back to step 10" in started.note
    assert finish(config, tmp_path / "run") == reference[1]
    assert final_hashes(tmp_path / "run") == reference[2]
