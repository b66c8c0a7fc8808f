"""The decoder: what it counts, what it may see, and that decoding with a cache changes nothing."""

import pytest
import torch

from windtunnel.config import fingerprint, parse
from windtunnel.errors import ConfigError
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.nn.attention import attend_reference
from windtunnel.training.recipes import recipe

BASE = TransformerConfig(vocab_size=29, context_length=12, n_layers=2, n_heads=4, d_model=32, dropout=0.0)

VARIANTS = {
    "gpt2": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "alibi": {"position": "alibi"},
    "no position": {"position": "none"},
    "rms": {"norm": "rms"},
    "no norm": {"norm": "none"},
    "post norm": {"norm_position": "post"},
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
    "relu squared": {"activation": "relu_squared"},
    "swiglu": {"activation": "swiglu"},
    "no bias": {"bias": False},
    "untied": {"tie_embeddings": False},
    "grouped": {"n_kv_heads": 2},
    "multi-query": {"n_kv_heads": 1},
    "window": {"window": 3},
    "window a layer": {"window": (2, None)},
    "alibi, window, grouped": {"position": "alibi", "window": 4, "n_kv_heads": 2},
    "heads of their own width": {"d_head": 12, "n_kv_heads": 2},
    "d_model that the heads do not divide": {"d_model": 30, "d_head": 8, "position": "rope"},
    "rope, scaled": {"position": "rope", "rope_scaling": {"kind": "llama3", "factor": 4, "original_context_length": 8}},
    "llama": {
        "position": "rope", "norm": "rms", "activation": "swiglu", "bias": False, "n_kv_heads": 2,
        "tie_embeddings": False,
    },
}  # fmt: skip

variants = pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)


def model_of(changes, seed=0):
    """A model in evaluation mode, with weights large enough that attention is not uniform."""
    model = build(BASE.replace(**changes), seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return model


def random_ids(rows=2, length=12, seed=3):
    return torch.randint(29, (rows, length), generator=torch.Generator().manual_seed(seed))


def n_parameters(**changes):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Transformer(TransformerConfig(**changes)).parameters())


# ------------------------------------------------------------------------------------------- parameter counts


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 124_439_808),
        ({"position": "rope"}, 123_653_376),
        ({"n_kv_heads": 1}, 111_446_784),
        ({"n_kv_heads": 2}, 112_627_968),
        ({"n_kv_heads": 4}, 114_990_336),
        ({"n_kv_heads": 6}, 117_352_704),
        ({"n_kv_heads": 12}, 124_439_808),
        ({"window": 128}, 124_439_808),
        ({"tie_embeddings": False}, 124_439_808 + 50257 * 768),
    ],
)
def test_gpt2_small_has_its_number_of_parameters(changes, expected):
    assert n_parameters(**changes) == expected


@variants
def test_the_cost_by_formula_is_that_of_the_model(changes):
    config = BASE.replace(**changes)
    rows, counted = config.parameter_rows(), sum(p.numel() for p in Transformer(config).parameters())
    assert sum(row.n_parameters for row in rows) == counted
    for row in rows:
        assert eval(row.formula, {"__builtins__": {}}, config.formula_names()) == row.n_parameters  # noqa: S307
    cache = Transformer(config).new_cache(batch_size=1, capacity=1)
    assert cache.keys.numel() + cache.values.numel() == config.cache_elements_per_token()


def test_the_llama_recipe_has_gpt2s_size():
    model = recipe("llama", "shakespeare").model
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Transformer(model).parameters()) == 114_114_048
    assert (model.position, model.norm, model.activation, model.bias, model.kv_heads) == (
        "rope",
        "rms",
        "swiglu",
        False,
        4,
    )


def test_a_config_from_before_heads_had_a_width_means_the_same():
    """What format 1 kept in config.json, before d_head and rope_scaling were settings."""
    kept = {
        "family": "transformer", "vocab_size": 65, "context_length": 64, "n_layers": 4, "n_heads": 4,
        "n_kv_heads": None, "d_model": 128, "d_ff": None, "position": "rope", "rope_base": 10000.0, "window": None,
        "norm": "layer", "norm_position": "pre", "norm_epsilon": 1e-05, "activation": "gelu_tanh", "bias": False,
        "tie_embeddings": True, "dropout": 0.0,
    }  # fmt: skip
    config = parse(TransformerConfig, kept)
    assert (config.head_width, config.d_head, config.rope_scaling) == (32, None, None)
    assert {name: getattr(config, name) for name in kept} == kept


# ----------------------------------------------------------------------------------- what GPT-2 does not leave out


def test_settings_that_came_later_leave_fingerprints_alone():
    other = {"causal": False, "residual_scaling": False, "zero_biases": False, "out_projection": False,
             "feed_forward_layers": 1, "head_bias": True, "embedding_norm": True, "norm_bias": True, "qkv_bias": True,
             "out_bias": True, "feed_forward_bias": True, "qk_norm": "head", "rotary_fraction": 0.5,
             "parallel": True}  # fmt: skip
    assert other.keys() == TransformerConfig.added
    base = BASE.replace(tie_embeddings=False)
    same = base.replace(**{name: TransformerConfig.model_fields[name].default for name in other})
    assert fingerprint(same) == fingerprint(base)
    assert (
        len({fingerprint(base.replace(**{name: value})) for name, value in other.items()} | {fingerprint(base)})
        == len(other) + 1
    )


def test_without_a_causal_mask_every_token_sees_the_last():
    model, ids = model_of({"causal": False}), random_ids()
    last = ids.clone()
    last[:, -1] = (last[:, -1] + 1) % 29
    with torch.no_grad():
        assert (model(last) - model(ids)).abs().amax(dim=-1).min() > 1e-4
        slow = model(ids, attend=attend_reference)
        assert torch.allclose(model(ids), slow, atol=1e-4)


def test_a_model_without_a_causal_mask_cannot_be_given_a_cache():
    with pytest.raises(ConfigError, match=r"model\.causal=false.* cannot write"):
        model_of({"causal": False}).new_cache(1, 4)


@pytest.mark.parametrize("changes", [{"window": 4}, {"position": "alibi"}])
def test_what_is_measured_back_from_each_token_needs_a_causal_mask(changes):
    with pytest.raises(ConfigError, match="causal=false does not go with"):
        BASE.replace(causal=False, **changes)


def test_unscaled_writers_into_the_residual_stream():
    scaled, plain = (build(BASE.replace(residual_scaling=s), 0).state_dict() for s in (True, False))
    for name in scaled:
        writes = name.endswith(("attention.out.weight", "feed_forward.narrow.weight"))
        assert torch.equal(plain[name], scaled[name] * 2 if writes else scaled[name]), name  # sqrt(2 n_layers) = 2


def test_biases_as_torch_begins_them():
    model, other = build(BASE.replace(zero_biases=False), 0), build(BASE, 0)
    biases = model.blocks[0].attention.qkv.bias
    assert 0.9 * 32**-0.5 < biases.abs().max() < 32**-0.5
    assert abs(biases.std().item() * 96**0.5 - 1) < 0.2  # a uniform's deviation is its bound / sqrt(3)
    assert model.blocks[0].feed_forward.narrow.bias.abs().max() < 128**-0.5
    assert torch.equal(build(BASE.replace(zero_biases=False), 0).blocks[0].attention.qkv.bias, biases)
    assert not torch.equal(build(BASE.replace(zero_biases=False), 1).blocks[0].attention.qkv.bias, biases)
    assert torch.equal(model.blocks[0].attention.qkv.weight, other.blocks[0].attention.qkv.weight)
    assert torch.equal(model.norm.bias, other.norm.bias)


# ------------------------------------------------------------------------------ the contract of every variant


@variants
def test_the_future_has_no_influence_at_all(changes):
    model, ids = model_of(changes), random_ids()
    altered = ids.clone()
    altered[:, 7:] = (altered[:, 7:] + 1) % 29
    last = ids.clone()
    last[:, -1] = (last[:, -1] + 1) % 29
    with torch.no_grad():
        logits = model(ids)
        assert torch.equal(model(altered)[:, :7], logits[:, :7])
        assert torch.equal(model(last)[:, :-1], logits[:, :-1])
        assert (model(last)[:, -1] - logits[:, -1]).abs().max() > 1e-3


@variants
def test_the_future_has_no_influence_in_bfloat16_training(changes):
    model, ids = model_of(changes).train(), random_ids()
    last = ids.clone()
    last[:, -1] = (last[:, -1] + 1) % 29
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(last)[:, :-1], model(ids)[:, :-1])


@variants
@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_decoding_with_a_cache_equals_the_full_forward(changes, chunk):
    model, ids = model_of(changes), random_ids()
    cache = model.new_cache(batch_size=2, capacity=12)
    with torch.no_grad():
        parts = [model(ids[:, start : start + chunk], cache) for start in range(0, 12, chunk)]
        full = model(ids)
    assert cache.length == 12
    assert torch.allclose(torch.cat(parts, dim=1), full, atol=2e-5 * full.abs().max().item())


@variants
def test_logits_through_the_open_attention_are_the_same(changes):
    model, ids = model_of(changes), random_ids()
    with torch.no_grad():
        fast = model(ids)
        slow = model(ids, attend=attend_reference)
    assert torch.allclose(fast, slow, atol=1e-5 * fast.abs().max().item())


@variants
def test_every_parameter_has_a_gradient(changes):
    model = model_of(changes)
    model(random_ids()).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("qkv.bias"):  # the key part of it has none: softmax ignores what all keys share
            assert parameter.grad.abs().max() > 0, name


@variants
def test_a_row_does_not_depend_on_its_neighbours(changes):
    model, ids = model_of(changes), random_ids(rows=3)
    with torch.no_grad():
        assert torch.allclose(model(ids)[1], model(ids[1:2])[0], atol=1e-5)


# ------------------------------------------------------------------------------------------ grouped and windowed


def test_as_many_key_heads_as_query_heads_is_full_attention():
    ids = random_ids()
    with torch.no_grad():
        assert torch.equal(model_of({"n_kv_heads": 4})(ids), model_of({})(ids))


def test_grouped_queries_are_full_attention_with_repeated_keys_and_values():
    grouped, full = model_of({"n_kv_heads": 2}), model_of({})
    with torch.no_grad():
        full.load_state_dict({**grouped.state_dict(), **{
            name: repeat_keys_and_values(tensor) for name, tensor in grouped.state_dict().items() if "qkv" in name
        }})  # fmt: skip
        ids = random_ids()
        assert torch.allclose(grouped(ids), full(ids), atol=1e-5)


def repeat_keys_and_values(packed):
    """(q 32, k 16, v 16) rows of 2 key heads x 8 -> 32 rows each, every head twice."""
    q, k, v = packed.split([32, 16, 16])
    return torch.cat([q] + [part.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v)])


@pytest.mark.parametrize("window", [12, 100, (12, None)])
def test_a_window_of_the_whole_context_is_full_attention(window):
    ids = random_ids()
    with torch.no_grad():
        assert torch.equal(model_of({"window": window})(ids), model_of({})(ids))


@pytest.mark.parametrize(("n_layers", "window"), [(1, 1), (1, 4), (2, 3), (3, 3), (3, 4), (2, (2, 5))])
def test_the_receptive_field_is_layers_times_window_less_one_plus_one(n_layers, window):
    """L * (w - 1) + 1 tokens, and with a window for each layer the sum of their w - 1, plus one."""
    model = model_of({"n_layers": n_layers, "window": window})
    embedded = []
    model.dropout.register_forward_hook(lambda module, given, made: embedded.append(made))
    model(random_ids(rows=1))[0, -1].square().sum().backward(inputs=embedded_leaf(embedded))
    reached = embedded[0].grad[0].abs().sum(-1).nonzero().flatten().tolist()
    field = n_layers * (window - 1) + 1 if isinstance(window, int) else sum(window) - n_layers + 1
    assert reached == list(range(12 - field, 12))


def embedded_leaf(embedded):
    embedded[0].retain_grad()
    return embedded


def test_dropout_acts_in_training_only():
    model, ids = build(BASE.replace(dropout=0.5), 0), random_ids()
    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


# --------------------------------------------------------------------------------------------- settings that clash


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"d_model": 100, "n_heads": 12},
            "d_model 100 is not divisible by n_heads 12; give n_heads 10 or 25, or d_model 96",
        ),
        ({"n_kv_heads": 5}, "n_heads 12 is not divisible by n_kv_heads 5; possible are 1, 2, 3, 4, 6, 12"),
        ({"n_kv_heads": 24}, "n_heads 12 is not divisible by n_kv_heads 24; possible are 1, 2, 3, 4, 6, 12"),
        ({"position": "rope", "d_model": 60}, "d_model / n_heads must be even, given 5"),
        ({"position": "rope", "d_head": 5}, "so d_head must be even, given 5"),
        ({"rope_scaling": {"kind": "yarn", "factor": 2}}, "rope_scaling.kind: input should be 'linear' or 'llama3'"),
        (
            {"rope_scaling": {"kind": "llama3", "factor": 2, "low_freq_factor": 4}},
            "high_freq_factor 4.0 must be greater than low_freq_factor 4.0",
        ),
        ({"window": (8, 8)}, "window lists 2 layers, the model has 12"),
        ({"window": 0}, "window"),
        ({"dropout": 1.0}, "dropout"),
        ({"position": "rotary"}, "'learned', 'sinusoidal', 'rope', 'alibi' or 'none'"),
        ({"n_kv_head": 4}, "there is no setting n_kv_head; did you mean n_kv_heads?"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_cure(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse(TransformerConfig, settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
