"""What every recipe, schedule and optimizer keeps: each test runs over all entries of a registry."""

import json
import math
import random
from itertools import pairwise
from typing import get_args

import pytest
import torch
from PIL import Image

from shapes import NAMES, Shapes
from windtunnel.config import fingerprint, override, parse, to_json
from windtunnel.models import TransformerConfig, build
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import Batch
from windtunnel.training.data import open_store
from windtunnel.training.events import Step, Stopped
from windtunnel.training.loop import fit
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
from windtunnel.training.recipes import RECIPES
from windtunnel.training.run import resolve
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import CURVES, ScheduleConfig, learning_rate
from windtunnel.training.step import gradients, update

LARGE = {
    "medium": ["model.n_layers=1", "model.d_model=48"],
    "gpt2": ["model.n_layers=1", "model.d_model=48"],
    "llama": ["model.n_layers=1", "model.d_model=48"],
}
"""What is taken from recipes whose step is no matter of a second; the rest of them is kept."""
OPTIMIZERS = get_args(OptimizerConfig.model_fields["name"].annotation)
ENDS = {"cosine": 0.2, "linear": 0.2, "constant": 1.0, "step": 0.2**2}
"""With final_fraction=0.2 and two drops."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """2,000 words, enough for one window of 1,024 tokens."""
    draw, path = random.Random(0), tmp_path_factory.mktemp("corpus") / "words.txt"
    words = [" ".join(draw.choices(["an", "old", "cat", "saw", "nobody", "else"], k=5)) for _ in range(400)]
    path.write_text("\n".join(words))
    pairs = [f"{word}\t{word[::-1]}" for word in words[:200]]
    path.with_name("pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]))
    labels = [f"{word}\t{word.split()[0]}" for word in words]
    path.with_name("labels.tsv").write_text("\n".join(["text\tlabel", *labels]))
    photos = path.with_name("photos")
    photos.mkdir()
    for name in NAMES[:40]:
        Image.fromarray(Shapes().draw(name, 16)).save(photos / f"{name}.png")
    return str(path)


FETCHED = ("clip-frozen", "clip-tuned")
"""Recipes that need nets which are fetched."""


def corpus_for(name, corpus):
    others = {"translate": "pairs.tsv", "classify": "labels.tsv", **dict.fromkeys(("clip", *FETCHED), "photos")}
    return corpus.replace("words.txt", others.get(name, "words.txt"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_a_config_that_can_be_read_again(name, corpus):
    config = RECIPES[name](corpus_for(name, corpus))
    resolved = resolve(config, open_store(config))
    assert resolved.model.vocab_size >= 2
    assert "auto" not in (resolved.train.precision, resolved.train.compile, resolved.text.unit, resolved.text.tokenizer)
    again = parse(RunConfig, json.loads(to_json(resolved)))
    assert (again, fingerprint(again)) == (resolved, fingerprint(resolved))


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in FETCHED])
def test_a_recipe_trains(name, corpus, tmp_path):
    cheap = ["train.steps=2", "train.batch_size=4", "train.compile=false", "train.threads=1", "train.precision=fp32"]
    events = list(
        fit(override(RECIPES[name](corpus_for(name, corpus)), [*cheap, *LARGE.get(name, [])]), tmp_path / "run")
    )
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert events[-1] == Stopped(2, "finished")
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("steps", [1, 2, 20, 101])
@pytest.mark.parametrize("curve", CURVES)
def test_a_schedule_stays_within_the_peak(curve, steps, warmup):
    config = ScheduleConfig(curve=curve, warmup=warmup, final_fraction=0.2, drops=(0.5, 0.75))
    rates = [learning_rate(step, steps, 3.0, config) for step in range(steps)]
    assert all(0 <= rate <= 3.0 * (1 + 1e-12) for rate in rates)
    after = rates[max(0, warmup - 1) :]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(after))


@pytest.mark.parametrize("curve", CURVES)
def test_a_schedule_ends_where_it_says(curve):
    assert ENDS.keys() == CURVES.keys()
    config = ScheduleConfig(curve=curve, warmup=5, final_fraction=0.2, drops=(0.5, 0.75))
    assert learning_rate(99, 100, 3.0, config) == pytest.approx(3.0 * ENDS[curve])
    assert learning_rate(5, 100, 3.0, config) == pytest.approx(3.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_lowers_the_loss_and_moves_every_parameter(name):
    config = TransformerConfig(vocab_size=7, context_length=6, n_layers=2, n_heads=2, d_model=16, dropout=0.0)
    model = build(config, 0)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.01))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids = torch.arange(24).view(4, 6) % 7
    rows = Batch({"ids": ids}, (ids + 1) % 7)
    losses = []
    for step in range(30):
        losses.append(gradients(lambda some: loss_sum(model(**some.inputs), some.targets), rows, 1, 0, step))
        update(model, optimizer, 0.01, 1.0)
    assert losses[-1] < 0.9 * losses[0]
    assert [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])] == []
