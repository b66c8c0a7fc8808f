"""The doctor finds and names what was planted, and finds nothing where nothing is wrong."""

from __future__ import annotations

import copy
import dataclasses
import random
import re

import numpy as np
import pytest
import torch
from torch import nn

from windtunnel.config import override
from windtunnel.inspect.doctor.checks import judge
from windtunnel.inspect.doctor.data import copies
from windtunnel.inspect.doctor.exam import measure
from windtunnel.inspect.doctor.history import history
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.report.doctor import NOTHING, measurements
from windtunnel.text.store import Split
from windtunnel.training.events import Evaluation, Started, Step, Stopped
from windtunnel.training.recipes import mlp, tiny
from windtunnel.training.run_config import RunConfig

SMALL = [
    "model.n_layers=1", "model.n_heads=2", "model.d_model=16", "model.context_length=16", "train.batch_size=32",
    "train.threads=1", "train.precision=fp32", "train.compile=false",
]  # fmt: skip
TWO = ["model.n_layers=2"]
STEPS, TOKENS = 60, 2000


def config_of(*changes: str, corpus: str = "names") -> RunConfig:
    return override(tiny(corpus), [*SMALL, *changes])


def subject_of(*changes: str, corpus: str = "names") -> Subject:
    return recipe_subject("planted", config_of(*changes, corpus=corpus))


def mlp_subject(*changes: str) -> Subject:
    fixed = ["model.d_hidden=48", "train.threads=1", "train.precision=fp32", "train.compile=false"]
    return recipe_subject("planted", override(mlp("names"), [*fixed, *changes]))


def findings(subject: Subject) -> dict[str, str]:
    return {f.name: f.evidence for f in judge(measure(subject, STEPS, TOKENS))}


def with_model(change, *changes: str) -> Subject:
    """A subject whose model was changed in place."""
    subject = subject_of(*changes)
    with torch.no_grad():
        found = change(subject.model)
    return dataclasses.replace(subject, model=found if isinstance(found, nn.Module) else subject.model)


class Bench(nn.Module):
    """A second family: embeddings of the last three tokens, a hidden layer, a head."""

    def __init__(self, vocab_size: int, norm: nn.Module, act: nn.Module, scale: float = 0.15, d: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
        self.hidden, self.norm, self.act = nn.Linear(24, d), norm, act
        self.head = nn.Linear(d, vocab_size)
        nn.init.normal_(self.embedding.weight, std=1.0)
        nn.init.normal_(self.hidden.weight, std=scale)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, ids):
        x = self.embedding(ids)
        back = [nn.functional.pad(x, (0, 0, k, 0))[:, : x.shape[1]] for k in range(3)]
        h = self.hidden(torch.cat(back, dim=-1))
        return self.head(self.act(self.norm(h.transpose(1, 2)).transpose(1, 2)))


def bench(norm, act, scale: float = 0.15):
    """A change that puts a Bench in the place of the model."""
    torch.manual_seed(0)
    return lambda model: Bench(model.config.vocab_size, norm, act, scale)


PLAIN = ["model.batch_norm=false", "model.hidden_bias=true"]
NAIVE = [*PLAIN, *(f"model.init_{part}=1" for part in ("hidden", "hidden_bias", "output", "output_bias"))]
ZERO = [*PLAIN, *(f"model.init_{part}=0" for part in ("embedding", "hidden", "hidden_bias", "output"))]

HEALTHY = {
    "two layers": lambda: subject_of(*TWO),
    "another seed": lambda: subject_of("seed=7"),
    "rope, rms, swiglu": lambda: subject_of(*TWO, "model.position=rope", "model.norm=rms", "model.activation=swiglu"),
    "bias and dropout": lambda: subject_of("model.bias=true", "model.dropout=0.1"),
    "untied": lambda: subject_of("model.tie_embeddings=false"),
    "post-norm, gelu": lambda: subject_of(*TWO, "model.norm_position=post", "model.activation=gelu_tanh", "seed=3"),
    "alibi": lambda: subject_of("model.position=alibi", "seed=4"),
    "no clip": lambda: subject_of("train.clip=none", "seed=5"),
    "bytes": lambda: subject_of("text.tokenizer=bytes", "seed=6"),
    "sgd": lambda: subject_of("optimizer.name=sgd", "optimizer.lr=0.3"),
    "pets": lambda: subject_of(corpus="pets"),
    "a tanh bench": lambda: with_model(bench(nn.Identity(), nn.Tanh())),
    "a relu bench with batch norm and a gain": lambda: with_model(
        lambda model: without_bias(bench(nn.BatchNorm1d(32), nn.ReLU())(model))
    ),
    "an mlp with batch norm": mlp_subject,
    "an mlp without batch norm": lambda: mlp_subject(*PLAIN, "seed=2"),
}


def without_bias(model):
    model.hidden.bias = None
    return model


@pytest.mark.parametrize("make", HEALTHY.values(), ids=HEALTHY)
def test_nothing_is_found_where_nothing_is_wrong(make):
    assert findings(make()) == {}


def scale(name: str, factor: float):
    def change(model):
        dict(model.named_parameters())[name].mul_(factor)

    return change


def fill(fragment: str, value: float):
    def change(model):
        for name, parameter in model.named_parameters():
            if fragment in name:
                parameter.fill_(value)

    return change


def freeze(model):
    model.blocks[0].attention.qkv.weight.requires_grad_(False)


def add_unused(model):
    model.extra = nn.Parameter(torch.ones(4, 4))


def grow_each_block(model):
    for block in model.blocks:
        block.feed_forward.narrow.weight.mul_(5000)


PLANTED = {
    "a head 50 times too large": (
        lambda: with_model(scale("head.weight", 50), "model.tie_embeddings=false"),
        "initial loss above ln V", "head.weight",
    ),
    "an embedding 100 times too large": (
        lambda: with_model(scale("embedding.weight", 100)),
        "initial loss above ln V", "embedding.weight",
    ),
    "biases that silence every relu": (
        lambda: with_model(fill("blocks.1.feed_forward.widen.bias", -10.0), *TWO, "model.bias=true"),
        "dead units", "blocks.1.feed_forward.narrow (input)",
    ),
    "a saturated tanh": (lambda: with_model(bench(nn.Identity(), nn.Tanh(), 3.0)), "saturated units", "act"),
    "lr x 100": (lambda: subject_of("optimizer.lr=0.5"), "learning rate too large", "lr 0.5"),
    "lr / 1000": (lambda: subject_of("optimizer.lr=5e-6"), "learning rate too small", "5e-05"),
    "sgd with lr x 100": (
        lambda: subject_of("optimizer.name=sgd", "optimizer.lr=30", "train.clip=none"),
        "learning rate too large", "Hessian",
    ),
    "a frozen matrix": (lambda: with_model(freeze), "frozen parameter", "blocks.0.attention.qkv.weight"),
    "a parameter that forward does not use": (lambda: with_model(add_unused), "unused parameter", "extra"),
    "a bias before batch norm": (
        lambda: with_model(bench(nn.BatchNorm1d(32), nn.Tanh())), "gradient that cancels", "hidden.bias",
    ),
    "a batch of one": (lambda: subject_of("train.batch_size=1"), "batch too small for its noise", "batch has 1"),
    "a zeroed block": (lambda: with_model(fill("blocks.1.", 0.0), *TWO), "layer without output", "blocks.1.att"),
    "all weights zero": (lambda: with_model(fill("weight", 0.0)), "zero gradient", "embedding.weight"),
    "a vocabulary far too large": (
        lambda: subject_of("model.vocab_size=1000"), "vocabulary mostly unused", "973 of 1,000",
    ),
    "a clip so small that adam sees nothing": (lambda: subject_of("train.clip=1e-8"), "clip too small", "epsilon"),
    "a clip so small that sgd does not move": (
        lambda: subject_of("optimizer.name=sgd", "optimizer.lr=0.3", "train.clip=1e-6"),
        "clip too small", "1e-06",
    ),
    "sgd that hardly moves": (
        lambda: subject_of("optimizer.name=sgd", "optimizer.lr=1e-7"), "weights hardly move", "one direction",
    ),
    "a stream that explodes": (
        lambda: with_model(grow_each_block, "model.norm=none", "model.n_layers=3"), "exploding scale", "blocks",
    ),
    "makemore's naive start": (lambda: mlp_subject(*NAIVE), "initial loss above ln V", "output.weight"),
    "makemore with a small last layer only": (
        lambda: mlp_subject(*NAIVE, "model.init_output=0.01", "model.init_output_bias=0"),
        "saturated units", "layers.0.tanh",
    ),
    "an mlp's bias before batch norm": (
        lambda: mlp_subject("model.hidden_bias=true"), "gradient that cancels", "layers.0.linear.bias",
    ),
    "running statistics that lag": (
        lambda: mlp_subject("train.steps=1000"), "running statistics lag behind", "36.8 %",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "name", "evidence"), PLANTED.values(), ids=PLANTED)
def test_what_was_planted_is_found_and_named(make, name, evidence):
    found = findings(make())
    assert name in found
    assert evidence in found[name]


def test_dead_units_too_few_for_a_finding_are_told_beside_the_limit():
    def silence_a_quarter(model):
        model.blocks[1].feed_forward.widen.bias[:16] = -10

    exam = measure(with_model(silence_a_quarter, *TWO, "model.bias=true"), 20, 500)
    assert "dead units" not in named(exam)
    told = dict(measurements(exam))["most dead units"]
    assert re.fullmatch(r"(2[5-9]|[34]\d)(\.\d+)? % of the units of blocks\.1\.feed_forward\.narrow \(input\) .*", told)
    assert "dead units (from 50 % of a layer on)" in NOTHING


def test_an_mlp_of_zeros_has_no_dead_units():
    """Zeros are what goes in; that nothing fires is not the units' own."""
    found = findings(mlp_subject(*ZERO))
    assert set(found) == {"zero gradient", "layer without output"}
    assert "embedding.weight, layers.0.linear.weight, layers.0.linear.bias, output.weight is" in found["zero gradient"]


def test_before_training_batch_norm_is_looked_at_with_the_statistics_of_data():
    exam = measure(mlp_subject("model.init_hidden=20"), 20, 500)
    norm = next(a for a in exam.activations_start if a.place == "layers.0.norm")
    assert norm.std == pytest.approx(1, abs=0.15)
    assert "saturated units" not in named(exam)
    assert exam.initial.loss.estimate == pytest.approx(exam.training.losses[0], abs=0.05)


def test_a_corpus_of_fifty_lines_is_learnt_by_heart(tmp_path):
    draw, path = random.Random(0), tmp_path / "fifty.txt"
    path.write_text("\n".join("".join(draw.choices("abcdefgh", k=12)) for _ in range(50)))
    changes = ["text.unit=line", "text.dev_fraction=0.3", "model.d_model=32", "train.batch_size=64"]
    subject = subject_of(*changes, corpus=str(path))
    found = {f.name: f for f in judge(measure(subject, 150, TOKENS))}
    assert "lost" in found["overfitting"].evidence


# ------------------------------------------------------- what a history or the data shows, beside one measured model


@pytest.fixture(scope="module")
def healthy():
    return measure(subject_of(), STEPS, TOKENS)


def events(losses, dev=(), reason="finished"):
    steps = [Step(i + 1, loss, 1e-3, 1.0, 100, 0.01) for i, loss in enumerate(losses)]
    looks = [Evaluation(step, "dev", {"loss": loss, "bits_per_byte": 3.0}, 5000, True) for step, loss in dev]
    started = Started(0, len(losses), 1000, 1.0, 1.0)
    return [started, *sorted([*steps, *looks], key=lambda e: e.step), Stopped(len(losses), reason)]


def curve(n=400, seed=0):
    """3.3 falling to 2.1 like 1 / steps, with noise."""
    return 2.1 + 1.2 / (1 + np.arange(n) / 10) + np.random.default_rng(seed).normal(0, 0.05, n)


def of_run(exam, losses, dev=(), reason="finished"):
    return dataclasses.replace(exam, is_run=True, history=history(events(losses.tolist(), dev, reason)))


def named(exam):
    return {f.name: f.evidence for f in judge(exam)}


def test_a_healthy_history_shows_nothing(healthy):
    for seed in range(20):
        assert named(of_run(healthy, curve(seed=seed), [(100, 2.4), (200, 2.3), (400, 2.2)])) == {}


def test_a_spike_is_found_at_its_step(healthy):
    losses = curve()
    losses[249:253] += [0.9, 0.7, 0.5, 0.4]
    assert "the first at step 250" in named(of_run(healthy, losses))["loss spike"]


def test_divergence_is_found_in_losses_and_in_the_way_a_run_ended(healthy):
    losses = curve()
    losses[300:] += np.linspace(0, 1.5, 100)
    assert "divergence" in named(of_run(healthy, losses))
    assert "the run ended diverged" in named(of_run(healthy, curve(), reason="diverged"))["divergence"]


def test_a_dev_loss_that_rises_while_train_falls_is_overfitting(healthy):
    dev = [(100, 2.4), (200, 2.3), (300, 2.5), (400, 2.7)]
    assert "rose from 2.3000 at step 200 to 2.7000 at step 400" in named(of_run(healthy, curve(), dev))["overfitting"]


def test_a_straight_fall_until_the_end_is_underfitting(healthy):
    losses = np.linspace(3.3, 2.1, 400) + np.random.default_rng(1).normal(0, 0.05, 400)
    assert "underfitting" in named(of_run(healthy, losses))


def test_the_entropy_floor_is_known_from_both_sides(healthy):
    dev = healthy.fit.dev.estimate
    assert "below the entropy floor" in named(dataclasses.replace(healthy, floor=dev + 0.5))
    exam = dataclasses.replace(of_run(healthy, curve(), [(50, dev), (200, dev), (400, dev)]), floor=dev)
    assert "as close at step 50 of 400" in named(exam)["at the entropy floor"]
    assert named(dataclasses.replace(healthy, floor=dev - 0.5)) == {}


def test_dev_documents_that_are_also_in_train_are_counted(healthy):
    splits = subject_of().store.splits
    train, dev = splits["train"], splits["dev"]
    ids, ends = np.asarray(dev.ids), np.asarray(dev.offsets)
    joined = Split(
        np.concatenate([ids[: ends[300]], train.ids]),
        np.concatenate([ends[:300], np.asarray(train.offsets) + ends[300]]), 0,
    )  # fmt: skip
    assert copies(train, dev) == (0, len(ends) - 1)
    assert copies(joined, dev) == (300, len(ends) - 1)
    found = named(dataclasses.replace(healthy, copies=copies(joined, dev)))
    assert "300 of 1,562 dev documents (19.2 %)" in found["dev in train"]


def test_windows_of_running_text_that_are_also_in_train_are_counted():
    draw = np.random.default_rng(0)
    train, dev = draw.integers(0, 30, 20_000), draw.integers(0, 30, 2_000)
    train[7_003:7_603] = dev[500:1_100]
    assert copies(Split(train, None, 0), Split(dev, None, 0)) == (12, 40)
    assert copies(Split(train[:7_000], None, 0), Split(dev, None, 0)) == (0, 40)


def test_the_model_is_left_as_it_was(healthy):
    subject = subject_of("model.n_layers=1")
    before = copy.deepcopy(subject.model.state_dict())
    measure(subject, 20, 500)
    after = subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in subject.model.parameters())
