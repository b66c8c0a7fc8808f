"""Write a model as GGUF, the file that llama.cpp opens: its architectures `gpt2` and `llama`, in float32.

Tensor names and metadata are those of llama.cpp's convert_hf_to_gguf.py. Its `llama` turns neighbouring columns
(x_2i, x_2i+1), as the RoFormer paper does, where Hugging Face and we turn halves: the rows of the query and key
matrices are put in that order, which changes no attention score.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from windtunnel.errors import ConfigError, MissingExtra
from windtunnel.models.pretrained.architectures import obstacles
from windtunnel.models.pretrained.export import Exported, adapt, refusal
from windtunnel.models.pretrained.gguf_tokenizer import NO_MERGE
from windtunnel.models.pretrained.marks import Marks, ids_of
from windtunnel.models.pretrained.parts import Part, linear, norm, scatter, single
from windtunnel.models.transformer import TransformerConfig
from windtunnel.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

FILE = "model.gguf"


def gguf_files(
    config: TransformerConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer, marks: Marks | None = None
) -> Exported:
    """`model.gguf` with weights, settings and tokenizer.

    Raises:
        ConfigError: when llama.cpp has no such architecture or tokenizer, naming the settings in the way.
        MissingExtra: when the package gguf is not installed.
    """
    architecture = gguf_architecture(config)
    if tokenizer.kind not in ("bytes", "bpe", "gpt2"):
        raise ConfigError(
            f"llama.cpp has no tokenizer like text.tokenizer={tokenizer.kind}; bytes, bpe and gpt2 can be exported "
            "as gguf, every kind with --format hf"
        )
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra("gguf", "writing GGUF")
    from gguf import GGUFWriter

    config, weights, notes = adapt(config, weights, architecture)
    tensors = scatter(gpt2_parts(config) if architecture == "gpt2" else llama_parts(config), weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        writer = GGUFWriter(path, architecture)
        _add_settings(writer, config, architecture)
        _add_tokenizer(writer, tokenizer, config.vocab_size, marks or Marks())
        for name, tensor in tensors.items():
            writer.add_tensor(name, _neighbours(name, tensor, config).float().contiguous().numpy())
        if config.rope_scaling and config.rope_scaling.kind == "llama3":
            writer.add_tensor("rope_freqs.weight", rope_divisors(config).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Exported({FILE: path.read_bytes()}, notes)


def gguf_architecture(config: TransformerConfig) -> str:
    """llama.cpp's architecture that has all of the model's settings: "gpt2" or "llama".

    Raises:
        ConfigError: when there is none, naming what stands in the way of each.
    """
    found = {name: obstacles(config, name) for name in ("gpt2", "llama")}
    if config.activation in ("gelu", "relu"):
        found["gpt2"]["activation"] = "gelu_tanh"
    nearest = min(found, key=lambda name: len(found[name]))
    if found[nearest]:
        raise ConfigError(refusal("architecture of llama.cpp that is written here", config, nearest, found[nearest]))
    return nearest


def _add_settings(writer: GGUFWriter, config: TransformerConfig, architecture: str) -> None:
    from gguf import LlamaFileType, RopeScalingType

    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.ff_width)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.kv_heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_base)
    if config.rope_scaling and config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int, marks: Marks) -> None:
    """A byte-level BPE with GPT-2's words; embedding rows without a token get names of their own."""
    from gguf import TokenType

    data: dict[str, Any] = json.loads(tokenizer.to_json())
    ids = {**data["model"]["vocab"], **{token["content"]: token["id"] for token in data["added_tokens"]}}
    names = {number: token for token, number in ids.items()}
    tokens = [names.get(number, f"<unused {number}>") for number in range(vocab_size)]
    kinds = [TokenType.NORMAL if number in names else TokenType.UNUSED for number in range(vocab_size)]
    if tokenizer.end_id is not None:
        kinds[tokenizer.end_id] = TokenType.CONTROL
    for name, add in (("bos", writer.add_bos_token_id), ("eos", writer.add_eos_token_id)):
        if found := ids_of(marks.ids.get(f"{name}_token_id")) or ids_of(tokenizer.end_id):
            add(found[0])
    if "chat_template" in marks.chat:
        writer.add_chat_template(marks.chat["chat_template"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges or [NO_MERGE])
    writer.add_add_bos_token(bool(tokenizer.front))


def gpt2_parts(config: TransformerConfig) -> Iterator[Part]:
    d, ff = config.d_model, config.ff_width
    yield single("embedding.weight", "token_embd.weight", config.vocab_size, d)
    yield single("position.embedding.weight", "position_embd.weight", config.context_length, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"blk.{layer}"
        yield from norm(f"{ours}.norm_1", f"{theirs}.attn_norm", d, bias=True)
        yield from linear(f"{ours}.attention.qkv", [f"{theirs}.attn_qkv"], d, [3 * d], True)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.attn_output"], d, [d], True)
        yield from norm(f"{ours}.norm_2", f"{theirs}.ffn_norm", d, bias=True)
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.ffn_up"], d, [ff], True)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.ffn_down"], ff, [d], True)
    yield from _end(config, bias=True)


def llama_parts(config: TransformerConfig) -> Iterator[Part]:
    d, ff, bias = config.d_model, config.ff_width, config.biases
    q, kv = config.n_heads * config.head_width, config.kv_heads * config.head_width
    yield single("embedding.weight", "token_embd.weight", config.vocab_size, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"blk.{layer}"
        yield from norm(f"{ours}.norm_1", f"{theirs}.attn_norm", d, bias=False)
        qkv = [f"{theirs}.attn_{name}" for name in "qkv"]
        yield from linear(f"{ours}.attention.qkv", qkv, d, [q, kv, kv], bias.qkv)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.attn_output"], q, [d], bias.out)
        yield from norm(f"{ours}.norm_2", f"{theirs}.ffn_norm", d, bias=False)
        yield from linear(f"{ours}.feed_forward.gate", [f"{theirs}.ffn_gate"], d, [ff], bias.feed_forward)
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.ffn_up"], d, [ff], bias.feed_forward)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.ffn_down"], ff, [d], bias.feed_forward)
    yield from _end(config, bias=False)


def _end(config: TransformerConfig, bias: bool) -> Iterator[Part]:
    """The last norm and the head; without a head llama.cpp takes the token embedding."""
    yield from norm("norm", "output_norm", config.d_model, bias)
    if not config.tie_embeddings:
        yield single("head.weight", "output.weight", config.vocab_size, config.d_model)


def _neighbours(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The rows of a query or key head from (first half, second half) to alternating, other tensors as they are."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return tensor
    return tensor.reshape(-1, 2, config.head_width // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def halves(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The inverse of what is written: the rows of a query or key head from alternating to (first half, second half)."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return tensor
    return tensor.reshape(-1, config.head_width // 2, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def rope_divisors(config: TransformerConfig) -> Tensor:
    """By what llama.cpp divides each rotary rate."""
    assert config.rope_scaling is not None
    rates = config.rope_base ** (-torch.arange(0, config.head_width, 2).float() / config.head_width)
    return config.rope_scaling.divisors(rates)
