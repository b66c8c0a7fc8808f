"""The attention weights shown are those of the model that the fast path runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.errors import DataError
from windtunnel.inspect.attention import attention
from windtunnel.models import TransformerConfig, build

SMALL = {"vocab_size": 20, "context_length": 16, "n_layers": 3, "n_heads": 4, "d_model": 32}
VARIANTS = {
    "gpt2": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "alibi": {"position": "alibi"},
    "grouped queries": {"n_kv_heads": 2},
    "one key head": {"n_kv_heads": 1, "position": "rope"},
    "window": {"window": 4},
    "window a layer": {"window": [None, 5, 2], "position": "alibi"},
    "post norm": {"norm_position": "post"},
    "rms, swiglu": {"norm": "rms", "activation": "swiglu", "bias": False},
}
IDS = np.random.default_rng(0).integers(0, 20, 16).tolist()


def large(**changes):
    """A model with weights large enough for its attention to be uneven."""
    model = build(TransformerConfig(**{**SMALL, **changes}), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.dim() > 1 else 1)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pass_that_is_shown_equals_the_fast_one(variant):
    found = attention(large(**VARIANTS[variant]), IDS)
    assert found.max_difference <= 1e-5
    assert found.weights.shape == (3, 4, 16, 16)
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-5)
    assert np.all(np.triu(found.weights, 1) == 0)
    assert found.weights[:, :, -1].std() > 0.01


def test_the_first_layer_is_the_textbook_formula():
    model = large(position="none", norm="none", bias=False)
    x_TD = model.embedding.weight[IDS].detach()
    q, k, _ = (x_TD @ model.blocks[0].attention.qkv.weight.detach().T).split(32, dim=-1)
    head = slice(8, 16)  # head 1 of width 8
    scores = (q[:, head] @ k[:, head].T / 8**0.5).masked_fill(~torch.ones(16, 16, dtype=torch.bool).tril(), -1e30)
    np.testing.assert_allclose(attention(model, IDS).weights[0, 1], scores.softmax(-1), atol=1e-6)


def test_a_window_shows_as_zeros():
    weights = attention(large(window=[None, 5, 2]), IDS).weights
    assert weights[0, :, -1, 0].min() > 0
    assert np.all(weights[1, :, -1, :11] == 0)
    assert weights[1, :, -1, 11].min() > 0
    assert np.all(weights[2, :, -1, :14] == 0)


def test_another_model_than_the_fast_ones_would_be_noticed(monkeypatch):
    """The stated difference is measured: with a wrong reference it is large."""
    from windtunnel.inspect import attention as module
    from windtunnel.nn.attention import attend_reference

    monkeypatch.setattr(module, "attend_reference", lambda q, *rest: attend_reference(q * 1.1, *rest))
    assert module.attention(large(), IDS).max_difference > 1e-3


def test_dropout_is_off_and_the_mode_is_put_back():
    model = large(dropout=0.5).train()
    assert attention(model, IDS).max_difference <= 1e-5
    assert model.training


@pytest.mark.parametrize(("ids", "cure"), [([], "longer"), ([*IDS, 0], "shorter")])
def test_a_text_that_does_not_fit_is_refused(ids, cure):
    with pytest.raises(DataError, match=f"{len(ids)} tokens.*1 to 16.*{cure}"):
        attention(large(), ids)
