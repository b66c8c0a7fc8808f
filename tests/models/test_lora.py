"""LoRA: the same function at first, merged and unmerged the same function after, and only what it adds is trained."""

import pytest
import torch

from windtunnel.config import fingerprint, override
from windtunnel.errors import ConfigError
from windtunnel.models import ClassifierConfig, MLPConfig, TransformerConfig, TranslatorConfig, build
from windtunnel.models.lora import LoraConfig, LoraLinear, adapt, check_lora, merged, trained_note
from windtunnel.training.run_config import RunConfig

SMALL = {"vocab_size": 50, "context_length": 16, "n_layers": 2, "n_heads": 4, "d_model": 32, "dropout": 0.0}
MODELS = {
    "gpt2": TransformerConfig(**SMALL),
    "llama": TransformerConfig(
        **SMALL, n_kv_heads=2, position="rope", norm="rms", activation="swiglu", bias=False, tie_embeddings=False
    ),
    "one matrix a feed-forward": TransformerConfig(**SMALL, feed_forward_layers=1),
    "classifier": ClassifierConfig(
        vocab_size=50, context_length=16, n_labels=3, trunk=TransformerConfig(**{**SMALL, "causal": False})
    ),
}
IDS = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(0))


def shaken(model):
    """A, B and a head that were trained a little."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("targets", [None, "q,v", "k,narrow,linear", "out"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_at_first_nothing_changes_and_merged_it_is_the_same_function(config, targets):
    lora = LoraConfig(rank=3) if targets is None else LoraConfig(rank=3, alpha=12, targets=targets)
    plain, model = build(config, 0).eval(), adapt(build(config, 0), lora, 0).eval()
    assert torch.equal(model(IDS), plain(IDS))
    found = shaken(model)(IDS)
    assert (found - plain(IDS)).abs().max() > 0.01
    again = build(config, 1).eval()
    again.load_state_dict(merged(model.state_dict(), config, lora))
    torch.testing.assert_close(again(IDS), found, atol=2e-6, rtol=0)


def test_the_formula_of_the_paper_holds_for_each_part():
    config = MODELS["gpt2"]
    lora = LoraConfig(rank=2, alpha=5, targets=("q", "v"))
    model = shaken(adapt(build(config, 0), lora, 0))
    layer = model.blocks[1].attention.qkv
    assert isinstance(layer, LoraLinear)
    assert layer.lora_a.shape == (4, 32)
    assert layer.lora_b.shape == (64, 2)
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(3))
    q, k, v = (x @ layer.weight.T + layer.bias).split(32, dim=-1)
    q = q + 2.5 * x @ layer.lora_a[:2].T @ layer.lora_b[:32].T
    v = v + 2.5 * x @ layer.lora_a[2:].T @ layer.lora_b[32:].T
    torch.testing.assert_close(layer(x), torch.cat([q, k, v], dim=-1), atol=1e-5, rtol=0)
    assert not isinstance(model.blocks[1].attention.out, LoraLinear)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_only_the_thin_matrices_and_a_new_head_are_trained(config):
    model = adapt(build(config, 0), LoraConfig(rank=2), 0)
    model(IDS).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    heads = {"head.weight", "head.bias"} if config.family == "classifier" else set()
    assert {name for name in trained if "lora_" not in name} == heads
    assert {name.split("lora_")[0] for name in trained - heads} == {
        f"{name}." for name, layer in model.named_modules() if isinstance(layer, LoraLinear)
    }


def test_weights_drawn_for_a_are_a_function_of_seed_and_name_alone():
    config = MODELS["gpt2"]
    a, same, other = (adapt(build(config, 0), LoraConfig(rank=2), seed).blocks[0].attention.out for seed in (1, 1, 2))
    assert torch.equal(a.lora_a, same.lora_a)
    assert not torch.equal(a.lora_a, other.lora_a)
    assert 0.15 < a.lora_a.abs().max() <= 32**-0.5
    assert not a.lora_b.any()


def test_the_note_counts_what_torch_counts():
    config = TransformerConfig(**SMALL)
    model = adapt(build(config, 0), LoraConfig(rank=4), 0)
    attention = 3 * 4 * (32 + 32) + 4 * (32 + 32)
    n = 2 * (attention + 2 * 4 * (32 + 128))
    whole = config.n_parameters() + n
    said = f"LoRA of rank 4, alpha 8: {n:,} of {whole:,} parameters are trained ({n / whole:.2%})"
    assert trained_note(model, LoraConfig(rank=4)) == said
    assert trained_note(model, LoraConfig()) == ""


@pytest.mark.parametrize(("config", "lora", "message"), [
    (MODELS["gpt2"], {"rank": 33}, r"larger than the matrix q of blocks\.0\.attention\.qkv, 32 x 32; give at most 32"),
    (MODELS["llama"], {"rank": 20}, r"larger than the matrix k of blocks\.0\.attention\.qkv, 16 x 32; give at most 16"),
    (MODELS["gpt2"], {"rank": 2, "targets": "gate"}, r"names no matrix of this model; it has q, k, v, out, wid"),
    (MLPConfig(), {"rank": 2}, r"of the family mlp none are known; use a transformer or a classifier"),
    (TranslatorConfig(), {"rank": 2}, r"of the family translator none are known"),
])  # fmt: skip
def test_what_cannot_be_adapted_is_refused(config, lora, message):
    with pytest.raises(ConfigError, match=message):
        check_lora(config, LoraConfig(**lora))


def test_a_rank_that_fits_the_targets_is_no_larger_than_they_are():
    check_lora(MODELS["llama"], LoraConfig(rank=20, targets="q,out"))


def test_settings_say_the_targets_as_a_list_or_a_text_and_a_run_without_keeps_its_fingerprint():
    config = RunConfig(corpus="names")
    changed = override(config, ["lora.rank=2", "lora.targets=q,v"])
    assert changed.lora.targets == ("q", "v")
    assert changed == override(config, ["lora.rank=2", 'lora.targets=["q", "v"]'])
    assert fingerprint(config) != fingerprint(changed)
    assert fingerprint(config) == fingerprint(override(config, ["lora.rank=0"]))
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        override(config, ["lora.targets=q,w"])
