"""A run that begins with another's weights, and one that is made of weights: exact, checked, and never half there."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from test_disk_failures import FailingOs, patch_os
from tiny_runs import final_hashes, finish, stop_after, store_of

from windtunnel.comparison.pairing import pairing
from windtunnel.config import fingerprint, override
from windtunnel.errors import ArtifactError, ConfigError, DataError, SaveError
from windtunnel.models.pretrained.alter import to_window
from windtunnel.runs.arms import resolve_arms, vary
from windtunnel.runs.listing import describe
from windtunnel.training import disk
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.events import Evaluation, Saved, Step
from windtunnel.training.imports import alter_run, continue_from, create_with_weights
from windtunnel.training.loop import fit, resume
from windtunnel.training.run import create_run, initial_model, load, open_run, resolve
from windtunnel.training.run_config import RunConfig, Start

SETTINGS = ["train.steps=8", "train.precision=fp32", "train.threads=1", "train.compile=false"]


def continued(reference, corpus=None, *changes):
    folder = reference[0]
    corpus = corpus or open_run(folder).config.corpus
    return override(continue_from(folder, corpus), [*SETTINGS, *changes])


@pytest.fixture
def start(reference, tmp_path):
    """A copy of the reference run, to be changed."""
    return shutil.copytree(reference[0], tmp_path / "start"), *reference[1:]


def dev_losses(folder):
    return [e.loss for e in open_run(folder).events() if isinstance(e, Evaluation)]


def test_it_begins_exactly_where_the_other_run_ended(reference, tmp_path):
    finish(continued(reference), tmp_path / "run")
    assert dev_losses(tmp_path / "run")[0] == dev_losses(reference[0])[-1]
    assert open_run(tmp_path / "run").config.start == Start(
        run=str(reference[0].resolve()), weights_sha256=reference[2][0]
    )
    assert final_hashes(tmp_path / "run")[0] != reference[2][0]


def test_stopped_before_and_after_its_first_checkpoint_it_ends_the_same(reference, tmp_path):
    config = continued(reference)
    finish(config, tmp_path / "whole")
    run = create_run(tmp_path / "cut", resolve(config, store_of(config)), store_of(config))
    for event in resume(run.folder):  # killed before anything was saved
        if isinstance(event, Step) and event.step == 3:
            break
    assert newest_checkpoint(run.folder) is None
    stop_after(config, run.folder, 6)
    finish(config, run.folder)
    assert final_hashes(run.folder) == final_hashes(tmp_path / "whole")


def test_the_models_settings_are_those_of_the_weights(reference, tmp_path):
    old = open_run(reference[0]).config
    config = continued(reference)
    assert (config.model, config.optimizer, config.schedule) == (old.model, old.optimizer, old.schedule)
    assert store_of(config).tokenizer.to_json() == open_run(reference[0]).tokenizer.to_json()
    assert continue_from(reference[0], old.corpus, "tiny").train.batch_size == 64
    fits = resolve(override(config, ["model.dropout=0.3", "model.window=4"]), store_of(config))
    assert (fits.model.dropout, fits.model.window) == (0.3, 4)
    for change, tensors in {
        "model.n_kv_heads=1": "other tensors: blocks.0.attention.qkv.bias, blocks.0.attention.qkv.weight, blocks.1",
        "model.position=rope": "other tensors: position.embedding.weight;",
    }.items():
        with pytest.raises(ConfigError, match=tensors):
            resolve(override(config, [change]), store_of(config))


def test_weights_of_other_tokens_are_refused_although_they_fit(reference, tmp_path):
    names = Path(open_run(reference[0]).config.corpus).read_text()
    (tmp_path / "other.txt").write_text(names.translate(str.maketrans("abcdefghij", "klmnopqrst")))
    other = continued(reference, str(tmp_path / "other.txt"), "text.unit=line", "text.tokenizer=characters")
    with pytest.raises(ConfigError, match=r"trained with another tokenizer; use that one.*tokenizer\.json"):
        resolve(other, store_of(other))


def test_another_corpus_with_a_character_that_the_tokenizer_lacks(reference, tmp_path):
    (tmp_path / "other.txt").write_text("\n".join(["abcdefghij", "zebra", "jade"] * 30))
    config = continued(reference, str(tmp_path / "other.txt"), "text.unit=line")
    with pytest.raises(DataError, match="no token for the character 'z'"):
        list(fit(config, tmp_path / "run"))


@pytest.mark.parametrize("damage", ["gone", "trained further"])
def test_a_start_that_is_not_what_it_was(start, tmp_path, damage):
    config, folders = continued(start), [tmp_path / "new", tmp_path / "begun"]
    for folder in folders:
        create_run(folder, resolve(config, store_of(config)), store_of(config))
    stop_after(config, folders[1], 5)
    if damage == "gone":
        shutil.rmtree(start[0])
    else:
        shutil.copytree(newest_folder(folders[1]), start[0] / "step-31")
        rewrite_step(start[0] / "step-31", 31)
    with pytest.raises(ArtifactError) as caught:
        list(resume(folders[0]))
    said = "is not a run folder" if damage == "gone" else f"was to start from {start[2][0][:12]}; restore them"
    assert said in str(caught.value)
    assert str(start[0]) in str(caught.value)
    list(resume(folders[1]))  # it has weights of its own by now
    assert load(folders[1]).step == 8


def newest_folder(run):
    return max(run.glob("step-*"), key=lambda path: int(path.name[5:]))


def rewrite_step(folder, step):
    manifest = disk.read_manifest(folder)
    contents = disk.read_files(folder, manifest)
    facts = {key: value for key, value in manifest.items() if key not in ("files", "format")}
    disk.write_folder(folder, contents, {**facts, "step": step}, replace=True)


def test_configs_without_a_start_are_what_they_were():
    """The fingerprint is of the version before there was a start: old runs keep their folders."""
    config = RunConfig(corpus="names")
    before = "37d7730e2d5605613e7889675d5de5662ecac3a04a53148613b9cd5adefb6c82"
    assert fingerprint(config, exclude=["seed"]) == before
    assert fingerprint(config.replace(start="runs/a"), exclude=["seed"]) != before
    assert override(config, ["start=runs/a"]).start == Start(run="runs/a")
    assert override(override(config, ["start=runs/a"]), ["start=none"]) == config


def test_arms_of_a_comparison_start_from_runs(reference):
    arms = resolve_arms(vary(continued(reference), [f"start=none,{reference[0]}"]))
    assert [arm.config.start and arm.config.start.weights_sha256 for arm in arms] == [None, reference[2][0]]
    assert arms[0].config.replace(start=None) == arms[1].config.replace(start=None)
    assert arms[0].key != arms[1].key
    _, trained = (dict(initial_model(arm.config).named_parameters()) for arm in arms)
    assert "; 0 of its" in pairing(arms, 1)[1]
    lr = resolve_arms(vary(continued(reference), ["optimizer.lr=1e-3,1e-2"]))
    n = sum(tensor.numel() for tensor in trained.values())
    assert f"; {n:,} of its {n:,} parameters" in pairing(lr, 1)[1]


def test_no_steps_at_all_keep_the_weights(reference, tmp_path):
    events = list(fit(continued(reference, None, "train.steps=0"), tmp_path / "run"))
    assert [type(event) for event in events[1:3]] == [Evaluation, Saved]
    assert final_hashes(tmp_path / "run")[0] == reference[2][0]


def test_an_altered_run_has_the_loss_that_was_measured(reference, tmp_path):
    altered = alter_run(reference[0], tmp_path / "altered", n_kv_heads=1, rotary=True, window=3)
    assert altered.before.loss == pytest.approx(dev_losses(reference[0])[-1], abs=1e-9)
    assert altered.after.loss != altered.before.loss
    model = altered.run.config.model
    assert (model.n_kv_heads, model.position, model.window) == (1, "rope", 3)
    shown = describe(altered.run.folder)
    assert (shown["state"], shown["step"], shown["steps"]) == ("altered", 0, 0)
    assert open_run(altered.run.folder).config.start.weights_sha256 == final_hashes(altered.run.folder)[0]
    assert shown["dev"]["scores"]["loss"] == altered.after.loss
    assert shown["record"]["altered_from"]["weights_sha256"] == reference[2][0]
    finish(continued((altered.run.folder,)), tmp_path / "further")
    assert dev_losses(tmp_path / "further")[0] == altered.after.loss
    with pytest.raises(ConfigError, match="nothing to alter"):
        alter_run(reference[0], tmp_path / "same")


def test_a_window_alone_keeps_the_weights_of_the_run(reference, tmp_path):
    altered = alter_run(reference[0], tmp_path / "altered", window=2)
    saved = load(altered.run.folder).model.state_dict()
    _, expected = to_window(open_run(reference[0]).config.model, load(reference[0]).model.state_dict(), 2)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)


def test_a_run_of_weights_is_whole_or_not_there(reference, tmp_path, monkeypatch):
    run, store = open_run(reference[0]), store_of(open_run(reference[0]).config)
    weights = newest_checkpoint(reference[0]).weights
    folder, wholes = tmp_path / "made" / "seed-0", []

    def make():
        create_with_weights(folder, run.config, weights, run.tokenizer, store, {"made": "imported"})

    for number in range(100):
        failing = FailingOs(number, errno.ENOSPC)
        patch_os(monkeypatch, failing)
        with suppress(SaveError):
            make()
        assert [path.name for path in folder.parent.iterdir()] in ([], ["seed-0"])  # nothing half done beside it
        if folder.exists():
            wholes.append(number)
            assert final_hashes(load(folder).run.folder)[0] == reference[2][0]
            if not failing.failed:
                break
            shutil.rmtree(folder)
    assert wholes == [number - 2, number - 1, number]  # after the rename only its parent is opened and synced
    assert number > 20
    with pytest.raises(ConfigError, match="nothing is written over it"):
        make()
