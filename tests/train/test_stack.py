"""Seeds that train stacked against each of them alone, and what happens to one does not happen to the others."""

from __future__ import annotations

import os
import random

import pytest
import torch
from tiny_runs import final_hashes, losses

from windtunnel.compare.seeds import create_seeds
from windtunnel.config import override
from windtunnel.train.events import Evaluation, Saved, Started, Step, Stopped
from windtunnel.train.loop import resume
from windtunnel.train.recipes import makemore, mlp
from windtunnel.train.run import load, open_run
from windtunnel.train.stack import resume_together

SEEDS = 3
ADAMW = ["optimizer.name=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1", "train.clip=0.5"]
MOMENTUM = ["optimizer.momentum=0.9", "optimizer.lr=0.02", "optimizer.weight_decay=0.01", "train.clip=1.0",
            "schedule.warmup=10", "schedule.curve=cosine"]  # fmt: skip


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the run folders of a recipe's seeds 0, 1, ... below a folder, some settings changed."""
    draw, corpus = random.Random(1), tmp_path_factory.mktemp("corpus") / "names.txt"
    corpus.write_text("\n".join("".join(draw.choices("aabbcdefghij", k=draw.randint(2, 9))) for _ in range(400)))
    short = ["train.steps=60", "train.eval_every=30", "train.save_every=20", "train.sample_tokens=0", "train.threads=1",
             "text.dev_fraction=0.1", "model.d_hidden=50"]  # fmt: skip
    return lambda folder, recipe, *changes, seeds=SEEDS: create_seeds(
        override(recipe(str(corpus)), [*short, *changes]), range(seeds), folder
    )


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (makemore, []),
        (mlp, ADAMW),
        (mlp, [*MOMENTUM, "model.batch_norm=false", "model.n_layers=2", "model.direct=true"]),
        (mlp, ["train.n_examples=100"]),
    ],
    ids=["makemore", "adamw", "momentum", "few examples"],
)
def test_stacked_equals_alone(make, tmp_path, recipe, changes):
    stacked, alone = make(tmp_path / "stacked", recipe, *changes), make(tmp_path / "alone", recipe, *changes)
    events = list(resume_together(stacked))
    for place, (run, oracle) in enumerate(zip(stacked, alone, strict=True)):
        expected, own = list(resume(oracle)), [event for i, event in events if i == place]
        assert [(type(e), e.step) for e in own] == [(type(e), e.step) for e in expected]
        assert own == open_run(run).events()
        for kind, fields in {Step: ("loss", "lr", "grad_norm", "n_tokens"), Evaluation: ("loss", "bits_per_byte")}.items():
            for field in fields:
                numbers = [[getattr(e, field) for e in some if isinstance(e, kind)] for some in (own, expected)]
                assert numbers[0] == pytest.approx(numbers[1], abs=1e-5, rel=1e-4), field
        assert own[0].note == "one of 3 seeds that train together"
        a, b = (load(folder).model.state_dict() for folder in (run, oracle))
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in oracle.iterdir())
    assert losses(stacked[0]) != losses(stacked[1])
