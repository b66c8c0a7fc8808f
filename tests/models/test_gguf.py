"""GGUF files, read back with the gguf package's own reader: tensors in llama.cpp's layout, settings, tokenizer.

That llama.cpp gives the same greedy text was checked by hand with its Python bindings on each of these variants.
"""

import json

import numpy as np
import pytest
import torch
from test_export import LLAMA, model_of

from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.models.pretrained.gguf import FILE, gguf_files
from windtunnel.nn.positions import RopeScaling, rotate, rotation
from windtunnel.text.tokenizers import bytes_tokenizer, characters_tokenizer, train_bpe

gguf = pytest.importorskip("gguf")

BPE = train_bpe(["the wind tunnel hums and the wind hums too " * 4], 280)


def read(model, tokenizer, tmp_path):
    """The tensors and the settings of an exported model."""
    (tmp_path / FILE).write_bytes(gguf_files(model.config, model.state_dict(), tokenizer).files[FILE])
    reader = gguf.GGUFReader(tmp_path / FILE)
    settings = {name: field.contents() for name, field in reader.fields.items()}
    return {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in reader.tensors}, settings


def test_gpt2_has_llama_cpps_tensors_and_settings(tmp_path):
    model = model_of(tie_embeddings=False)
    tensors, settings = read(model, BPE, tmp_path)
    assert len(tensors) == len(model.state_dict())
    for theirs, ours in {
        "token_embd.weight": "embedding.weight",
        "position_embd.weight": "position.embedding.weight",
        "blk.1.attn_norm.bias": "blocks.1.norm_1.bias",
        "blk.1.attn_qkv.weight": "blocks.1.attention.qkv.weight",
        "blk.0.attn_output.bias": "blocks.0.attention.out.bias",
        "blk.0.ffn_norm.weight": "blocks.0.norm_2.weight",
        "blk.0.ffn_up.weight": "blocks.0.feed_forward.widen.weight",
        "blk.1.ffn_down.weight": "blocks.1.feed_forward.narrow.weight",
        "output_norm.weight": "norm.weight",
        "output.weight": "head.weight",
    }.items():
        assert torch.equal(tensors[theirs], model.state_dict()[ours]), theirs
    stated = {
        "architecture": "gpt2", "block_count": 2, "context_length": 32, "embedding_length": 32,
        "feed_forward_length": 128, "attention.head_count": 4, "attention.head_count_kv": 4, "vocab_size": 300,
    }  # fmt: skip
    for name, value in stated.items():
        assert settings[f"{'general' if name == 'architecture' else 'gpt2'}.{name}"] == value, name
    assert settings["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)


def test_llama_has_its_queries_and_keys_in_neighbouring_pairs(tmp_path):
    """Neighbours turned as llama.cpp turns them give the scores that halves give here."""
    model = model_of(**LLAMA, n_kv_heads=2, d_head=16, rope_base=700.0)
    tensors, settings = read(model, BPE, tmp_path)
    assert len(tensors) == len(model.state_dict()) + 2 * 2  # q, k and v are three tensors there
    assert "output.weight" not in tensors
    weights = model.state_dict()
    q, k, v = weights["blocks.1.attention.qkv.weight"].split([64, 32, 32])
    assert torch.equal(tensors["blk.1.attn_v.weight"], v)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    turn = rotation(torch.arange(5), 16, 700.0)

    def scores(q_rows, k_rows, turned):
        queries, keys = ((x @ rows.T).unflatten(-1, (-1, 16)).transpose(0, 1) for rows in (q_rows, k_rows))
        return turned(queries) @ turned(keys).repeat_interleave(2, 0).transpose(1, 2)

    def neighbours(heads):
        pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.complex(*turn)).flatten(-2)

    expected = scores(q, k, lambda heads: rotate(heads, turn))
    found = scores(tensors["blk.1.attn_q.weight"], tensors["blk.1.attn_k.weight"], neighbours)
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())
    stated = {
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
        "attention.value_length": 16, "rope.dimension_count": 16, "rope.freq_base": 700.0,
        "feed_forward_length": model.config.ff_width,
    }  # fmt: skip
    for name, value in stated.items():
        assert settings[f"llama.{name}"] == value, name


def test_scaled_rotary_rates_are_written_as_llama_cpp_reads_them(tmp_path):
    scaling = RopeScaling(kind="llama3", factor=8, original_context_length=16)
    tensors, settings = read(model_of(**LLAMA, rope_base=500.0, rope_scaling=scaling), BPE, tmp_path)
    # 16 / (2 pi) = 2.5 turns: between the two factors. 0.54, 0.11 and 0.02 turns: fully slowed.
    kept = (16 / (2 * np.pi) - 1) / 3
    assert tensors["rope_freqs.weight"].tolist() == pytest.approx([1 / ((1 - kept) / 8 + kept), 8, 8, 8])
    assert "llama.rope.scaling.type" not in settings
    _, settings = read(model_of(**LLAMA, rope_scaling=RopeScaling(kind="linear", factor=4)), BPE, tmp_path)
    assert (settings["llama.rope.scaling.type"], settings["llama.rope.scaling.factor"]) == ("linear", 4.0)


@pytest.mark.parametrize("tokenizer", [BPE, bytes_tokenizer(end=True), bytes_tokenizer(end=False)])
def test_the_tokenizer_is_kept(tokenizer, tmp_path):
    _, settings = read(model_of(), tokenizer, tmp_path)
    data = json.loads(tokenizer.to_json())
    tokens, kinds = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    assert (settings["tokenizer.ggml.model"], settings["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert {token: number for number, token in enumerate(tokens) if number < tokenizer.vocab_size} == data["model"][
        "vocab"
    ]
    assert len(tokens) == len(kinds) == 300
    assert set(kinds[tokenizer.vocab_size :]) == {gguf.TokenType.UNUSED}
    assert settings["tokenizer.ggml.merges"] == ([" ".join(pair) for pair in data["model"]["merges"]] or ["! !"])
    assert settings.get("tokenizer.ggml.eos_token_id") == tokenizer.end_id
    if tokenizer.end_id is not None:
        assert kinds[tokenizer.end_id] == gguf.TokenType.CONTROL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "gelu"}, "has not model.activation=gelu;"),
        ({**LLAMA, "window": 4}, "has not model.window=4;"),
        ({"position": "alibi"}, "has not model.position=alibi;"),
    ],
)
def test_what_llama_cpp_has_no_architecture_for_is_refused_by_name(changes, words):
    model = model_of(**changes)
    with pytest.raises(ConfigError) as caught:
        gguf_files(model.config, model.state_dict(), BPE)
    assert words in str(caught.value)


def test_a_tokenizer_that_llama_cpp_has_not_is_refused():
    model = model_of()
    with pytest.raises(ConfigError, match=r"text\.tokenizer=characters"):
        gguf_files(model.config, model.state_dict(), characters_tokenizer("abc", end=True))


def test_without_the_package_the_extra_is_named(monkeypatch):
    model = model_of()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install gguf"):
        gguf_files(model.config, model.state_dict(), BPE)
