"""Runs that train with LoRA: they begin as the other run ended, resume bit for bit, and are used as any other run."""

from __future__ import annotations

import pytest
import torch
from test_classification import table
from tiny_runs import config_of, final_hashes, finish, names_file, stop_after, store_of

from windtunnel.comparison.pairing import pairing
from windtunnel.config import override
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.inspect.cost import cost
from windtunnel.inspect.doctor.subject import run_subject
from windtunnel.models import Classifier
from windtunnel.models.lora import LoraLinear
from windtunnel.runs.arms import resolve_arms, vary
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Started
from windtunnel.training.exports import export_run
from windtunnel.training.imports import alter_run, continue_from
from windtunnel.training.loop import fit
from windtunnel.training.run import create_run, initial_model, load, open_run, resolve

SETTINGS = ["train.steps=12", "train.precision=fp32", "train.threads=1", "train.compile=false", "lora.rank=4"]


def adapted(reference, *changes):
    """A run that goes on from the reference with LoRA."""
    folder = reference[0]
    return override(continue_from(folder, open_run(folder).config.corpus), [*SETTINGS, "optimizer.lr=0.01", *changes])


def dev_losses(folder):
    return [e.loss for e in open_run(folder).events() if isinstance(e, Evaluation)]


@pytest.fixture(scope="module")
def run(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    finish(adapted(reference), folder)
    return folder


def test_it_begins_as_the_other_ended_and_leaves_the_base_alone(reference, run):
    losses = dev_losses(run)
    assert losses[0] == dev_losses(reference[0])[-1]
    assert losses[-1] != losses[0]
    base, own = newest_checkpoint(reference[0]).weights, newest_checkpoint(run)
    assert all(torch.equal(own.weights[name], tensor) for name, tensor in base.items())
    added = own.weights.keys() - base.keys()
    assert {name.rpartition(".")[2] for name in added} == {"lora_a", "lora_b"}
    assert {key.partition("/")[2] for key in own.optimizer} == added
    assert open_run(run).config.start.weights_sha256 == reference[2][0]


def test_it_says_how_many_parameters_are_trained(run):
    model = initial_model(open_run(run).config)
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    started = next(e for e in open_run(run).events() if isinstance(e, Started))
    assert f"LoRA of rank 4, alpha 8: {n:,} of {started.n_parameters:,} parameters are trained" in started.note


def test_stopped_and_resumed_it_ends_the_same(reference, run, tmp_path):
    stop_after(adapted(reference), tmp_path / "cut", 7)
    finish(adapted(reference), tmp_path / "cut")
    assert final_hashes(tmp_path / "cut") == final_hashes(run)
    assert dev_losses(tmp_path / "cut") == dev_losses(run)


def test_loaded_it_is_one_plain_model_that_evaluates_and_writes(run):
    trained = load(run)
    assert not any(isinstance(module, LoraLinear) for module in trained.model.modules())
    task = open_task(trained.run.config, trained.run.store())
    found = evaluate(trained.model, task, "dev", trained.step)
    assert found.loss == pytest.approx(dev_losses(run)[-1], abs=1e-6)
    ids = next(iter(task.examples("dev").sweep(4))).inputs["ids"]
    raw = initial_model(trained.run.config)
    raw.load_state_dict(newest_checkpoint(run).weights)
    torch.testing.assert_close(trained.model(ids), raw.eval()(ids), atol=1e-5, rtol=0)


def test_another_run_goes_on_from_what_it_learned(run, tmp_path):
    config = override(continue_from(run, open_run(run).config.corpus), SETTINGS[:-1])
    assert config.lora.rank == 0
    finish(config, tmp_path / "on")
    assert dev_losses(tmp_path / "on")[0] == pytest.approx(dev_losses(run)[-1], abs=1e-6)
    again = override(config, ["lora.rank=2"])
    finish(again, tmp_path / "again")
    assert dev_losses(tmp_path / "again")[0] == dev_losses(tmp_path / "on")[0]


def test_a_classifier_trains_thin_matrices_and_its_head(reference, tmp_path):
    base = config_of(names_file(tmp_path), "model.context_length=40", "text.tokenizer=bytes")
    finish(base, tmp_path / "base")
    quick = ["train.steps=60", "train.batch_size=16", "train.eval_every=20", "train.threads=1", "optimizer.lr=0.02"]
    config = override(
        continue_from(tmp_path / "base", table(tmp_path)), [*quick, "train.precision=fp32", "lora.rank=2"]
    )
    list(fit(config, tmp_path / "run"))
    first, trained = initial_model(open_run(tmp_path / "run").config), load(tmp_path / "run")
    assert isinstance(trained.model, Classifier)
    own = newest_checkpoint(tmp_path / "run", trained.step).weights
    for name, parameter in first.named_parameters():
        assert torch.equal(own[name], parameter) != parameter.requires_grad, name
    scores = [e.scores["accuracy"] for e in open_run(tmp_path / "run").events() if isinstance(e, Evaluation)]
    task = open_task(trained.run.config, trained.run.store())
    assert max(scores) > 0.8
    assert evaluate(trained.model, task, "dev", 0).scores["accuracy"] == max(scores)


@pytest.mark.parametrize(("changes", "message"), [
    (["train.freeze=1"], r"lora\.rank=4 leaves all weights as they are, so train\.freeze=1 says nothing"),
    (["train.freeze=all"], r"train\.freeze=all says nothing; give one of the two"),
    (["lora.rank=17"], r"larger than the matrix q of blocks\.0\.attention\.qkv, 16 x 16"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(reference, changes, message):
    config = adapted(reference, *changes)
    with pytest.raises(ConfigError, match=message):
        resolve(config, store_of(config))


def test_what_muon_would_leave_to_adamw_is_called_adamw(reference):
    config = adapted(reference, "optimizer.name=muon")
    assert resolve(config, store_of(config)).optimizer.name == "adamw"
    whole = override(config, ["lora.rank=0"])
    assert resolve(whole, store_of(whole)).optimizer.name == "muon"


def test_a_run_that_is_altered_is_no_run_with_lora_any_more(run, tmp_path):
    made = alter_run(run, tmp_path / "altered", window=4).run
    assert open_run(made.folder).config.lora.rank == 0
    with pytest.raises(ConfigError, match="was not trained with LoRA"):
        export_run(made.folder, tmp_path / "adapter", "peft")


def test_random_weights_and_a_change_in_python_are_refused(reference, config, tmp_path):
    with pytest.raises(ConfigError, match=r"begins with random weights; give --from RUN"):
        resolve(override(config, ["lora.rank=2"]), store_of(config))
    change = tmp_path / "idea.py"
    change.write_text("def same(setup):\n    return setup\n")
    with pytest.raises(ConfigError, match=r"idea\.py:same changes what is trained, and so does lora\.rank=4"):
        list(fit(adapted(reference), tmp_path / "run", change=f"{change}:same"))


def test_check_refuses_it_and_says_what_to_check(run):
    with pytest.raises(ConfigError, match="check the run that it begins with"):
        run_subject(run)


def test_a_plan_says_how_many_parameters_an_arm_trains(reference):
    arms = resolve_arms(vary(adapted(reference), ["lora.rank=0,2"]))
    assert "LoRA of rank 2, alpha 4: 1,152 of 8,048 parameters are trained (14.31%)" in pairing(arms, 30)[1]


def test_an_altered_base_is_refused(reference, tmp_path):
    config = adapted(reference)
    other = config.start.replace(weights_sha256="0" * 64)
    with pytest.raises(ArtifactError, match="this run was to start from 000000000000"):
        create_run(tmp_path / "run", resolve(config.replace(start=other), store_of(config)), store_of(config))


def test_the_cost_counts_gradients_and_optimizer_of_what_is_trained(run):
    config = open_run(run).config
    model = initial_model(config)
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plain, found = cost(override(config, ["lora.rank=0"])), cost(config)
    assert found.memory.gradients == 4 * n
    assert found.memory.weights == plain.memory.weights + 4 * n
    assert found.memory.optimizer == 4 * (2 * n + sum(p.requires_grad for p in model.parameters()))
    assert any("parameters are trained" in note for note in found.notes)
    assert not any("trained" in note for note in plain.notes)
