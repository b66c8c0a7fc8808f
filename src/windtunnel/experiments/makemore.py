"""The arms that the rows of document 003 share: the lecture's ladder of initialisations, as settings of an mlp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windtunnel.inspect.doctor.short_training import beginning, train_copy
from windtunnel.inspect.doctor.subject import Subject
from windtunnel.models import MLP
from windtunnel.text.batches import Examples
from windtunnel.training.recipes import mlp
from windtunnel.training.run_config import RunConfig

GENERATOR = 2147483647
"""The seed of the published script; its weights do not depend on the corpus."""
CORPUS = "names"
HERE = f"measured on `{CORPUS}`"
REPLAY = "windtunnel train PATH/names.txt --recipe makemore"

_NAIVE = {
    "batch_norm": False, "hidden_bias": True,
    "init_hidden": 1.0, "init_hidden_bias": 1.0, "init_output": 1.0, "init_output_bias": 1.0,
}  # fmt: skip
_OUTPUT = {**_NAIVE, "init_output": 0.01, "init_output_bias": 0.0}
_TANH = {**_OUTPUT, "init_hidden": 0.2, "init_hidden_bias": 0.01}
_KAIMING = {**_TANH, "init_hidden": "kaiming"}

LADDER: Mapping[str, Mapping[str, Any]] = {
    "naive": _NAIVE,
    "output fix": _OUTPUT,
    "tanh fix": _TANH,
    "Kaiming": _KAIMING,
    "batch norm": {**_KAIMING, "batch_norm": True, "hidden_bias": False},
}
"""Settings of the model on each rung. naive: all N(0, 1). output fix: W2 x .01, b2 = 0. tanh fix: W1 x .2, b1 x .01.
Kaiming: W1 x 5/3 / sqrt(30)."""
PUBLISHED_DEV = {"naive": 2.1682, "output fix": 2.13, "tanh fix": 2.1027, "Kaiming": 2.1070, "batch norm": 2.1048}
"""Dev losses printed in the lecture's notebook, one run of 200,000 steps each on names.txt."""


def config_of(settings: Mapping[str, Any], steps: int = 20_000, evaluations: int = 10) -> RunConfig:
    """The recipe `mlp` with these settings of its model and this number of steps.

    In fewer than 10,000 the running statistics of batch norm follow faster, or they would still be what they began as.
    """
    config = mlp(CORPUS)
    model = {"batch_norm_momentum": max(0.001, 10 / steps), **settings}
    train = {"steps": steps, "eval_every": max(1, steps // evaluations), "save_every": max(1, steps // 4)}
    fixed = {"sample_tokens": 0, "precision": "fp32"}
    return config.replace(model=config.model.replace(**model), train=config.train.replace(**fixed, **train))


def examples_of(subject: Subject, split: str = "train") -> Examples:
    """All examples of a split: three characters and the next."""
    return subject.task.examples(split)


def descended(subject: Subject, steps: int, model: MLP | None = None) -> tuple[MLP, tuple[float, ...]]:
    """A model, the subject's own by default, after the first steps of its training, and the loss of each step."""
    rate = beginning(subject.config, steps)
    done = train_copy(model or subject.model, subject.config, subject.task, steps, rate)
    assert isinstance(done.model, MLP)
    return done.model, done.losses
