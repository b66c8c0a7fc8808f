"""Sites: what is recorded is what the model computes, and what is changed there changes the rest."""

import pytest
import torch

from windtunnel.config import parse
from windtunnel.errors import ConfigError
from windtunnel.inspect.attention import attention
from windtunnel.inspect.lens import attribution, gradients, lens
from windtunnel.inspect.sites import recorded, site_names, tapped
from windtunnel.models import build
from windtunnel.models.mlp import MLPConfig
from windtunnel.models.rnn import RNNConfig
from windtunnel.models.transformer import TransformerConfig
from windtunnel.models.translator import TranslatorConfig

IDS = [3, 1, 4, 1, 5, 9, 2, 6]
KINDS = [
    {},
    {"tie_embeddings": False, "head_bias": True},
    {"norm": "rms", "position": "rope", "n_kv_heads": 1, "activation": "swiglu", "bias": False},
    {"norm_position": "branch", "position": "alibi"},
    {"parallel": True, "position": "rope", "window": 3},
    {"norm": "none", "out_projection": False, "position": "none"},
    {"qk_norm": "head", "embedding_norm": True},
]


def model_of(**settings):
    """A small model whose every parameter is random, biases and norms too."""
    sizes = {"vocab_size": 11, "context_length": 8, "n_layers": 2, "n_heads": 2, "d_model": 8}
    model = build(parse(TransformerConfig, {**sizes, **settings}), 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([IDS]))


@pytest.mark.parametrize("settings", KINDS)
def test_recording_changes_nothing_and_sees_what_is_computed(settings):
    model = model_of(**settings)
    alone = logits(model)
    with recorded(model, ["*"]) as seen:
        assert torch.allclose(logits(model), alone, atol=1e-6)
    assert set(seen) == set(site_names(model))
    assert torch.equal(logits(model), alone)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(seen["blocks.0.resid"], seen["blocks.1.in"])
    assert torch.equal(seen["blocks.1.resid"], seen["norm.in"])
    patterns = torch.stack([seen[f"blocks.{i}.attention.pattern"][0] for i in range(2)])
    assert torch.allclose(patterns, torch.from_numpy(attention(model, IDS).weights), atol=1e-6)
    attend = model.blocks[0].attention
    v_BHSK = seen["blocks.0.attention.v"].repeat_interleave(2 // (1 if settings.get("n_kv_heads") else 2), 1)
    heads = seen["blocks.0.attention.pattern"] @ v_BHSK
    assert torch.allclose(heads, seen["blocks.0.attention.heads"], atol=1e-5)
    assert torch.allclose(attend.out(heads.transpose(1, 2).flatten(2)), seen["blocks.0.attention"], atol=1e-5)


def test_a_translator_has_sites_on_both_sides():
    config = parse(TranslatorConfig, {"vocab_size": 11, "context_length": 8, "n_layers": 1, "n_heads": 2, "d_model": 8})
    model = build(config, 0).eval()
    with torch.no_grad(), recorded(model, ["*"]) as seen:
        model(ids=torch.tensor([IDS]), source=torch.tensor([IDS[:5]]), source_kept=torch.ones(1, 5, dtype=torch.bool))
    assert set(site_names(model)) - set(seen) == {"encoder", "encoder.in"}  # its parts are called, not it
    with pytest.raises(ConfigError, match="no pass has gone through encoder since recording began; recorded are"):
        seen["encoder"]
    assert seen["decoder.blocks.0.cross_attention.pattern"].shape == (1, 2, 8, 5)
    assert seen["encoder.blocks.0.resid"].shape == (1, 5, 8)


@pytest.mark.parametrize("config", [RNNConfig(vocab_size=11, d_model=8, n_layers=2), MLPConfig(vocab_size=11)])
def test_a_model_without_blocks_has_the_sites_of_its_modules(config):
    model = build(config, 0).eval()
    with torch.no_grad(), recorded(model, ["*"]) as seen:
        model(torch.tensor([IDS]))
    assert set(seen) == set(site_names(model))
    assert all(value.shape[0] == 1 for value in seen.values())


def test_a_site_that_there_is_not_is_answered_with_the_nearest():
    with (
        pytest.raises(ConfigError, match=r"no site 'block.0.resid'; did you mean blocks.0.resid\?"),
        recorded(model_of(), ["block.0.resid"]),
    ):
        pass


@pytest.mark.parametrize("site", ["blocks.0.attention.pattern", "blocks.1.resid", "blocks.0.attention.q", "norm.in"])
def test_what_a_tap_returns_takes_the_place(site):
    model = model_of()
    with recorded(model, [site]) as seen:
        alone = logits(model)
    with tapped(model, {site: lambda value: seen[site].clone()}):
        assert torch.allclose(logits(model), alone, atol=1e-6)
    with tapped(model, {site: lambda value: value * value}):
        assert (logits(model) - alone).abs().max() > 1e-3


def test_a_head_without_its_values_is_a_head_without_its_columns():
    model = model_of()

    def without(heads_BHTK):
        heads_BHTK = heads_BHTK.clone()
        heads_BHTK[:, 1] = 0
        return heads_BHTK

    with tapped(model, {"blocks.1.attention.heads": without}):
        found = logits(model)
    with torch.no_grad():
        model.blocks[1].attention.out.weight[:, 4:] = 0
    assert torch.allclose(found, logits(model), atol=1e-6)


@pytest.mark.parametrize("settings", KINDS)
def test_the_lens_ends_at_the_logits(settings):
    model = model_of(**settings)
    found = lens(model, IDS)
    assert found.shape == (3, len(IDS), 11)
    assert torch.allclose(found[-1], logits(model)[0], atol=1e-5)
    shorter = model_of(**settings)
    shorter.blocks = shorter.blocks[:1]  # what it would say, had it ended there
    assert torch.allclose(found[1], logits(shorter)[0], atol=1e-5)


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("position", [-1, 2])
def test_what_the_parts_add_is_the_logit(settings, position):
    model = model_of(**settings)
    for id in (None, 7):
        found = attribution(model, IDS, id, position)
        assert found.logit == pytest.approx(float(logits(model)[0, position, found.id]), abs=1e-6)
        assert sum(found.parts.values()) == pytest.approx(found.logit, abs=2e-5)
    assert found.id == 7
    assert attribution(model, IDS).id == int(logits(model)[0, -1].argmax())


def test_a_head_adds_what_is_lost_without_it():
    """With no norm between, taking a head's values away lowers the logit by what it was said to add."""
    model = model_of(norm="none", position="none", n_layers=1, activation="relu")
    with torch.no_grad():
        for parameter in model.blocks[0].feed_forward.parameters():
            parameter.zero_()
    found = attribution(model, IDS, 5)

    def without(heads_BHTK):
        return heads_BHTK * torch.tensor([0.0, 1.0])[None, :, None, None]

    with tapped(model, {"blocks.0.attention.heads": without}):
        less = float(logits(model)[0, -1, 5])
    assert found.logit - less == pytest.approx(found.parts["blocks.0.attention.heads.0"], abs=1e-5)


def test_norms_after_the_sums_are_refused():
    with pytest.raises(ConfigError, match="norm_position=post"):
        attribution(model_of(norm_position="post"), IDS)


def test_gradients_are_those_of_finite_differences():
    model = model_of().double()
    found = gradients(model, IDS)
    row = torch.tensor([IDS])

    def loss(shift):
        with torch.no_grad(), tapped(model, {"blocks.0.in": lambda value: value + shift}):
            log = model(row)[0, :-1].log_softmax(-1)
        return float(-log.gather(1, row[0, 1:, None]).sum())

    for t, d in ((0, 0), (3, 5), (7, 2)):
        shift = torch.zeros(1, 8, 8, dtype=torch.float64)
        shift[0, t, d] = 1e-5
        assert float(found[t, d]) == pytest.approx((loss(shift) - loss(-shift)) / 2e-5, abs=1e-6)
    assert not found[7].any()  # the last token predicts nothing
