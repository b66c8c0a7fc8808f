"""What the experiments on translation share: the blocks of the course and newer ones, and how they are trained."""

from __future__ import annotations

from typing import Any

from windtunnel.experiments.frame import Setting
from windtunnel.models import ModelConfig
from windtunnel.tasks import TranslationConfig
from windtunnel.text.store import TextConfig
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig

CONTEXT = 96
SOME = 1e-9
"""A difference that is not larger is none: two runs without a single word right are equally good."""
COURSE: dict[str, Any] = {
    "context_length": CONTEXT, "norm": "none", "n_heads": 1, "out_projection": False, "feed_forward_layers": 1,
    "activation": "relu", "position": "sinusoidal", "tie_embeddings": False, "head_bias": True, "dropout": 0.0,
}  # fmt: skip
"""One head without an output projection, one feed-forward layer, no norms."""
MODERN: dict[str, Any] = {
    "context_length": CONTEXT, "n_heads": 2, "activation": "relu", "position": "rope", "bias": False, "dropout": 0.0,
}  # fmt: skip
"""Those of the recipe `translate` with two heads."""


def translating(at: Setting, corpus: str, model: ModelConfig, steps: int, lr: float, **train: Any) -> RunConfig:
    """A run on pairs that is evaluated and saved at its end; one word in five is held out, in a quick run one in 50."""
    every = {"eval_every": steps, "save_every": steps, "sample_tokens": 0, "compile": False}
    return RunConfig(
        corpus=corpus,
        task=TranslationConfig(),
        text=TextConfig(dev_fraction=at.size(0.2, quick=0.02), test_fraction=0.0),
        model=model,
        optimizer=OptimizerConfig(lr=lr, beta_2=0.99),
        schedule=ScheduleConfig(warmup=min(100, steps // 10)),
        train=TrainConfig(**{"steps": steps, "batch_size": at.size(64, quick=16), **every, **train}),
        seed=at.seed,
    )
