"""A trained model altered: what stays the same exactly, and what is averaged."""

import pytest
import torch
from test_export import LLAMA, model_of

from windtunnel.errors import ConfigError
from windtunnel.models.pretrained.alter import to_grouped_queries, to_rotary, to_window
from windtunnel.models.pretrained.huggingface import to_model

IDS = torch.randint(300, (2, 16), generator=torch.Generator().manual_seed(0))


def logits(config, weights):
    with torch.no_grad():
        return to_model(config, weights)(IDS)


def test_equal_key_heads_are_pooled_without_a_change():
    """Where the pooled heads were copies of one another, their mean is the same model."""
    model = model_of(n_kv_heads=2)
    weights = model.state_dict()
    copied = {name: copies(t) if ".attention.qkv." in name else t for name, t in weights.items()}
    full = model.config.replace(n_kv_heads=4)
    config, pooled = to_grouped_queries(full, copied, 2)
    assert config.n_kv_heads == 2
    assert all(torch.allclose(pooled[name], weights[name]) for name in weights)
    assert torch.allclose(logits(config, pooled), logits(full, copied), atol=1e-5)


def copies(packed):
    """Keys and values of 2 heads x 8 as 4 heads, each twice."""
    q, k, v = packed.split([32, 16, 16])
    return torch.cat([q, *(x.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1) for x in (k, v))])


def test_key_and_value_heads_are_averaged_in_groups():
    model = model_of()
    _, pooled = to_grouped_queries(model.config, model.state_dict(), 1)
    for part in ("weight", "bias"):
        q, k, v = model.state_dict()[f"blocks.1.attention.qkv.{part}"].split(32)
        expected = torch.cat([q, *(sum(x.split(8)) / 4 for x in (k, v))])
        assert torch.allclose(pooled[f"blocks.1.attention.qkv.{part}"], expected, atol=1e-6)
    with pytest.raises(ConfigError, match="4 key and value heads cannot become n_kv_heads=3; possible are 1, 2, 4"):
        to_grouped_queries(model.config, model.state_dict(), 3)


def test_as_many_heads_as_before_is_the_same_model():
    model = model_of(n_kv_heads=2)
    config, weights = to_grouped_queries(model.config, model.state_dict(), 2)
    assert torch.equal(logits(config, weights), logits(model.config, model.state_dict()))


def test_rotary_positions_replace_learned_ones():
    model = model_of()
    config, weights = to_rotary(model.config, model.state_dict(), rope_base=500.0)
    assert (config.position, config.rope_base) == ("rope", 500.0)
    assert model.state_dict().keys() - weights.keys() == {"position.embedding.weight"}
    assert not torch.allclose(logits(config, weights), logits(model.config, model.state_dict()), atol=0.1)
    with pytest.raises(ConfigError, match="rotary already"):
        to_rotary(config, weights)


def test_a_window_changes_only_what_lies_behind_it():
    model = model_of(**LLAMA)
    config, weights = to_window(model.config, model.state_dict(), 4)
    before, after = logits(model.config, model.state_dict()), logits(config, weights)
    assert torch.allclose(after[:, :4], before[:, :4], atol=1e-5)
    assert (after[:, 4:] - before[:, 4:]).abs().amax(-1).min() > 1e-4
    assert torch.equal(logits(*to_window(config, weights, None)), before)
    with pytest.raises(ConfigError, match="window"):
        to_window(model.config, weights, 0)


def test_the_given_weights_are_left_alone():
    model = model_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = model.state_dict()
    to_grouped_queries(model.config, weights, 2), to_rotary(model.config, weights), to_window(model.config, weights, 3)
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[name], before[name]) for name in before)
