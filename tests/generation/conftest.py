"""Models as they come out of a run folder, without having been trained: their weights are random and large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from windtunnel.models import TransformerConfig, build
from windtunnel.text.store import TextConfig
from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer
from windtunnel.training.run import Run, TrainedModel
from windtunnel.training.run_config import RunConfig, TrainConfig

SMALL = {"context_length": 12, "n_layers": 2, "n_heads": 4, "d_model": 16}
FAMILY = {
    "gpt2": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "alibi": {"position": "alibi"},
    "no position": {"position": "none"},
    "grouped queries": {"n_kv_heads": 2, "position": "rope"},
    "one key head, window": {"n_kv_heads": 1, "window": 3, "position": "alibi"},
    "window in one layer": {"window": [None, 4]},
    "post norm, untied": {"norm_position": "post", "tie_embeddings": False},
    "rms, swiglu, no bias": {"norm": "rms", "activation": "swiglu", "bias": False},
}


def untrained(unit: str = "line", tokenizer=None, sample_tokens: int = 32, **model) -> TrainedModel:
    """A model of the alphabet "abc \\n" for a corpus of the given unit."""
    tokenizer = tokenizer or characters_tokenizer("abc \n", end=unit != "text")
    config = RunConfig(
        corpus="none",
        text=TextConfig(unit=unit),
        model=TransformerConfig(**{"vocab_size": tokenizer.vocab_size, **SMALL, **model}),
        train=TrainConfig(sample_tokens=sample_tokens),
        seed=3,
    )
    network = build(config.model, seed=1).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return TrainedModel(Run(Path("runs/untrained"), config, tokenizer, {}), network, tokenizer, 40, ())


@pytest.fixture(params=FAMILY, name="trained")
def _every_variant(request) -> TrainedModel:
    return untrained(**FAMILY[request.param])


@pytest.fixture(name="make")
def _make():
    return untrained


@pytest.fixture(name="bytes_model")
def _bytes_model() -> TrainedModel:
    return untrained(tokenizer=bytes_tokenizer(end=True))
