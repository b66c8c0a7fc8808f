"""What the alterations of GPT-2 share (rows 000-T1 and 000-T2a to c): a small GPT-2, and the cost of writing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, Steps, table
from windtunnel.experiments.training import Says, trained, verdicts
from windtunnel.inspect.speed import DECODED, decoding, take_turns
from windtunnel.models import TransformerConfig, build
from windtunnel.runs.arms import Arm
from windtunnel.text.store import TextConfig
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig

SEEDS = 5
FLOAT32 = 4
"""Bytes of a number in the cache, which has the type of the weights."""


def small_gpt2(at: Setting, **model: Any) -> RunConfig:
    """GPT-2 in 2 layers x 64 on the bytes of Python's standard library, 1/100 of its files held out."""
    n_layers, d_model, context_length, batch_size, steps = at.size((2, 64, 128, 8, 400), quick=(1, 16, 16, 4, 5))
    shape = {"context_length": context_length, "n_layers": n_layers, "n_heads": 4, "d_model": d_model, "dropout": 0.0}
    every = {"eval_every": steps, "eval_tokens": at.size(None, quick=1000), "save_every": steps}
    return RunConfig(
        corpus="python",
        text=TextConfig(tokenizer="bytes", dev_fraction=at.size(0.01, quick=0.005), test_fraction=0.0),
        model=TransformerConfig(**{**shape, **model}),
        optimizer=OptimizerConfig(lr=3e-3, beta_2=0.99),
        schedule=ScheduleConfig(warmup=50),
        train=TrainConfig(steps=steps, batch_size=batch_size, sample_tokens=0, **every),
        seed=at.seed,
    )


def transformer_of(config: RunConfig) -> TransformerConfig:
    """The model of these experiments."""
    assert isinstance(config.model, TransformerConfig)
    return config.model


def writing(at: Setting, arms: Sequence[Arm]) -> Findings:
    """What writing costs at the end of the context; models with random weights take turns.

    One without a causal mask has no cache and cannot write.
    """
    yield Progress("timing writing")
    models = {arm.name: transformer_of(arm.config).replace(vocab_size=257) for arm in arms}
    able = {name: build(c, 0).eval() for name, c in models.items() if c.causal}
    calls = {name: decoding(model, model.config.context_length - DECODED) for name, model in able.items()}
    seconds = take_turns(calls, at.size(15, quick=3))
    rows = [
        (name, FLOAT32 * c.cache_elements_per_token(), f"{DECODED / median(seconds[name]):,.0f}") if name in able
        else (name, None, None) for name, c in models.items()
    ]  # fmt: skip
    yield table("Writing at the end of the context, as fast as it was here", ("arm", "KV bytes/token", "tok/s"), rows)


def altered(at: Setting, row: Row, what: str, arms: Sequence[Arm], says: Says) -> Steps[Comparison]:
    """Train alterations of a small GPT-2 on paired seeds, say what is claimed of each, and time how they write."""
    base, model = arms[0].config, transformer_of(arms[0].config)
    shape = f"{model.n_layers} layers x {model.d_model}, {model.n_heads} heads, context {model.context_length} bytes"
    training = f"{base.train.steps} steps of {base.train.batch_size} windows, lr {base.optimizer.lr:g}"
    yield Given({"corpus": base.corpus, "model": shape, "training": training})
    found = yield from trained(at, what, arms, at.seeds(SEEDS))
    yield from verdicts(row, found, says)
    yield from writing(at, arms)
    return found
