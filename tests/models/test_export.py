"""Out to Hugging Face and back: stock classes load it, the logits are the same, and nothing is lost on the way."""

import json
import logging.handlers

import pytest
import torch
from foreign_models import CONFIGS, change_config, make, save
from transformers import AutoModelForCausalLM, AutoTokenizer

from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.models import TransformerConfig, build
from windtunnel.models.pretrained.export import huggingface_files, stock_architecture
from windtunnel.models.pretrained.huggingface import read_huggingface, to_model
from windtunnel.models.pretrained.proof import compare_with_transformers
from windtunnel.nn.positions import RopeScaling
from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer, train_bpe
from windtunnel.training.recipes import RECIPES
from windtunnel.training.run_config import RunConfig

TEXT = "Hello, wörld! It's 12 o'clock,\n\n  and the wind-tunnel hums."
LLAMA = {"position": "rope", "norm": "rms", "activation": "swiglu", "bias": False}
QUICK = {"position": "rope", "norm": "rms", "activation": "relu_squared", "bias": False}
SMALL = {"vocab_size": 300, "context_length": 32, "n_layers": 2, "n_heads": 4, "d_model": 32, "dropout": 0.0}

MODELS = {
    "gpt2": ({}, "gpt2"),
    "gpt2 without bias, untied": ({"bias": False, "tie_embeddings": False, "dropout": 0.3}, "gpt2"),
    "gpt2 with relu and its own width": ({"activation": "relu", "d_ff": 40}, "gpt2"),
    "gpt2 with a window of the whole context": ({"activation": "gelu", "window": 32}, "gpt2"),
    "llama": ({**LLAMA, "n_kv_heads": 2, "norm_epsilon": 1e-3}, "llama"),
    "llama with biases": ({**LLAMA, "bias": True, "tie_embeddings": False, "d_head": 16}, "llama"),
    "llama 3": (
        {**LLAMA, "rope_base": 500.0, "rope_scaling": RopeScaling(kind="llama3", factor=8, original_context_length=16)},
        "llama",
    ),
    "llama scaled": ({**LLAMA, "rope_scaling": RopeScaling(kind="linear", factor=4)}, "llama"),
    "mistral": ({**LLAMA, "n_kv_heads": 1, "window": 5}, "mistral"),
    "mistral with heads of their own width": ({**LLAMA, "d_model": 30, "d_head": 12}, "mistral"),
    "llama with biases in one half": ({**LLAMA, "feed_forward_bias": True}, "llama"),
    "the recipe small": ({"position": "rope", "bias": False}, "starcoder2"),
    "starcoder2 with a window": ({"position": "rope", "window": 5, "qkv_bias": False, "dropout": 0.1}, "starcoder2"),
    "the recipe quick": (QUICK, "arcee"),
    "arcee with heads of their own width": ({**QUICK, "d_head": 12, "feed_forward_bias": True}, "arcee"),
    "qwen2": ({**LLAMA, "qkv_bias": True, "n_kv_heads": 2}, "qwen2"),
    "qwen3": ({**LLAMA, "qk_norm": "head", "d_head": 16, "tie_embeddings": False}, "qwen3"),
    "olmo 2": ({**LLAMA, "qk_norm": "whole", "norm_position": "branch", "n_kv_heads": 2}, "olmo2"),
    "gpt-neox": ({"position": "rope", "rotary_fraction": 0.5, "parallel": True, "activation": "gelu"}, "gpt_neox"),
    "gpt-neox without biases": (
        {"position": "rope", "rotary_fraction": 0.25, "bias": False, "rope_base": 500.0, "tie_embeddings": False},
        "gpt_neox",
    ),
}


def model_of(**changes):
    """A model with random biases and norms too."""
    model = build(TransformerConfig(**{**SMALL, **changes}), seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def write(exported, folder):
    folder.mkdir(exist_ok=True)
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("changes", "architecture"), MODELS.values(), ids=MODELS)
def test_transformers_loads_it_with_the_same_logits(changes, architecture, tmp_path):
    model, tokenizer = model_of(**changes), bytes_tokenizer(end=True)
    exported = huggingface_files(model.config, model.state_dict(), tokenizer)
    folder = write(exported, tmp_path)
    assert json.loads((folder / "config.json").read_text())["model_type"] == architecture
    proof = compare_with_transformers(model, folder, tokenizer)
    assert proof.holds, proof
    assert proof.loss > 3
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.config.eos_token_id == tokenizer.end_id
    back = read_huggingface(folder)
    assert torch.equal(
        to_model(back.config, back.weights)(torch.arange(32)[None]), to_model_on(back, model)(torch.arange(32)[None])
    )


def test_transformers_has_nothing_to_say_of_a_small_vocabulary(tmp_path):
    """GPT-2's own end mark, 50256, is no token of it. Each warning comes once, and other models have 300 tokens."""
    model, tokenizer = model_of(vocab_size=299), bytes_tokenizer(end=True)
    folder = write(huggingface_files(model.config, model.state_dict(), tokenizer), tmp_path)
    said = logging.handlers.BufferingHandler(1000)
    logging.getLogger("transformers").addHandler(said)
    try:
        assert compare_with_transformers(model, folder, tokenizer).holds
    finally:
        logging.getLogger("transformers").removeHandler(said)
    assert [record.getMessage() for record in said.buffer] == []


def to_model_on(back, model):
    """The exported model itself, or with the zero biases that it was given."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in back.weights.items() if name.endswith("bias")}
    return to_model(back.config, {**zeros, **model.state_dict()})


def test_what_was_adapted_is_said():
    model = model_of(bias=False)
    notes = huggingface_files(model.config, model.state_dict(), None).notes
    assert notes == ("gpt2 has more biases: they were written as zeros, which gives the same logits",)
    model = model_of(**LLAMA, dropout=0.2)
    notes = huggingface_files(model.config, model.state_dict(), None).notes
    assert notes == ("dropout 0.2, which acts in training only, was left out: llama has none",)


@pytest.mark.parametrize("name", CONFIGS)
def test_read_written_and_read_again_is_the_same(name, tmp_path):
    first = read_huggingface(save(make(name), tmp_path / "a"))
    exported = huggingface_files(first.config, first.weights, first.tokenizer)
    assert exported.notes == ()
    second = read_huggingface(write(exported, tmp_path / "b"))
    assert (second.config, second.origin) == (first.config, first.origin)
    assert second.weights.keys() == first.weights.keys()
    assert all(torch.equal(second.weights[name], first.weights[name]) for name in first.weights)
    assert second.tokenizer.to_json() == first.tokenizer.to_json()
    again = huggingface_files(second.config, second.weights, second.tokenizer)
    assert again.files == exported.files


@pytest.mark.parametrize(
    "tokenizer",
    [
        bytes_tokenizer(end=False),
        bytes_tokenizer(end=True),
        characters_tokenizer(TEXT, end=True),
        train_bpe([TEXT * 3], 300),
    ],
    ids=lambda tokenizer: tokenizer.kind,
)
@pytest.mark.parametrize("changes", [{}, LLAMA, {**LLAMA, "window": 4}], ids=["gpt2", "llama", "mistral"])
def test_auto_tokenizer_encodes_as_we_do(tokenizer, changes, tmp_path):
    model = model_of(**changes)
    theirs = AutoTokenizer.from_pretrained(
        write(huggingface_files(model.config, model.state_dict(), tokenizer), tmp_path)
    )
    assert theirs.encode(TEXT) == tokenizer.encode(TEXT).tolist()
    assert theirs.decode(theirs.encode(TEXT)) == TEXT
    assert theirs.eos_token_id == tokenizer.end_id


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"position": "alibi"}, ["gpt2, has not model.position=alibi;", "--set model.position=learned"]),
        ({"position": "sinusoidal"}, ["has not model.position=sinusoidal;"]),
        ({"position": "none", "norm": "none"}, ["has not model.position=none, model.norm=none;"]),
        ({"norm_position": "post"}, ["has not model.norm_position=post;", "train with --set model.norm_position=pre"]),
        ({"causal": False}, ["has not model.causal=False;", "--set model.causal=true"]),
        ({"n_kv_heads": 2}, ["has not model.n_kv_heads=2;"]),
        ({"window": 4}, ["has not model.window=4;", "--set model.window=none"]),
        ({"d_head": 16}, ["has not model.d_head=16;"]),
        (
            {"embedding_norm": True, "head_bias": True, "tie_embeddings": False},
            ["model.embedding_norm=True, model.head"],
        ),
        ({"parallel": True}, ["gpt2, has not model.parallel=True;"]),
        ({**LLAMA, "window": (4, None)}, ["llama, has not model.window=(4, None);", "--set model.window=none"]),
        ({**QUICK, "window": 4}, ["mistral, has not model.activation=relu_squared;"]),
    ],
)
def test_what_no_stock_architecture_has_is_refused_by_name(changes, named):
    with pytest.raises(ConfigError) as caught:
        stock_architecture(TransformerConfig(**{**SMALL, **changes}))
    assert "\n" not in str(caught.value)
    for words in named:
        assert words in str(caught.value)


def test_what_a_refusal_says_cures_it():
    for changes in ({"position": "alibi"}, {"norm": "none"}, {"window": 4, "d_head": 16}, {**QUICK, "parallel": True}):
        config = RunConfig(corpus="names", model=TransformerConfig(**{**SMALL, **changes}))
        with pytest.raises(ConfigError) as caught:
            stock_architecture(config.model)

        cured = override(config, str(caught.value).split("train with --set ")[1].split(" --set "))
        assert stock_architecture(cured.model)


@pytest.mark.parametrize("name", [name for name, make in RECIPES.items() if make("x").model.family == "transformer"])
def test_every_recipe_of_a_transformer_can_be_written(name):
    assert stock_architecture(RECIPES[name]("names").model)


def test_the_config_that_is_written_is_what_decides(tmp_path):
    """That the comparison would notice: the same weights under another rotary base are another model."""
    model = model_of(**LLAMA)
    folder = write(huggingface_files(model.config, model.state_dict(), None), tmp_path)
    assert compare_with_transformers(model, folder).holds
    assert not compare_with_transformers(model, change_config(folder, rope_theta=100.0)).holds
