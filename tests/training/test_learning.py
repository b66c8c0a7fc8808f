"""Training learns: a tiny model predicts names better than their letter frequencies can."""

from __future__ import annotations

import numpy as np

from windtunnel.config import override
from windtunnel.text.batches import IGNORED
from windtunnel.training.data import open_task
from windtunnel.training.events import Evaluation
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

CHANGES = [
    "model.n_layers=2",
    "model.d_model=32",
    "model.context_length=16",
    "train.steps=150",
    "train.batch_size=48",
    "train.eval_every=150",
    "train.eval_tokens=20000",
    "train.threads=1",
    "train.precision=fp32",
    "train.compile=false",
    "train.sample_tokens=0",
    "schedule.warmup=20",
    "optimizer.lr=0.01",
]


def test_a_tiny_model_beats_the_unigram_entropy_of_names(tmp_path):
    config = override(recipe("tiny", "names"), CHANGES)
    evaluations = [event for event in fit(config, tmp_path / "run") if isinstance(event, Evaluation)]
    run = load(tmp_path / "run").run
    store = run.store()
    task = open_task(run.config, store)
    counts = {name: np.zeros(store.tokenizer.vocab_size) for name in ("train", "dev")}
    for name, count in counts.items():
        for batch in task.examples(name).sweep(512):
            count += np.bincount(batch.targets[batch.targets != IGNORED].numpy(), minlength=len(count))
    chances = (counts["train"] + 1) / (counts["train"] + 1).sum()
    unigram = -(counts["dev"] * np.log(chances)).sum() / counts["dev"].sum()
    assert 2.5 < unigram < 3.0
    first, last = evaluations[0].loss, evaluations[-1].loss
    assert abs(first - np.log(store.tokenizer.vocab_size)) < 0.05  # it begins knowing nothing
    assert last < unigram - 0.25
