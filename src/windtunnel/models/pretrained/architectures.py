"""The decoders of transformers that are read and written: one line each, and what each of them cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from windtunnel.config import parse
from windtunnel.errors import ConfigError
from windtunnel.models.pretrained import gpt2, llama, neox, relatives
from windtunnel.models.pretrained.fields import Fields, take_fields
from windtunnel.models.pretrained.parts import Part
from windtunnel.models.transformer import Transformer, TransformerConfig

Turn = Callable[[str, Tensor, TransformerConfig], Tensor]


def _as_it_is(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    return tensor


def _no_more(config: TransformerConfig) -> dict[str, Any]:
    return {}


def _all_biases(config: TransformerConfig) -> dict[str, Any]:
    """GPT-2's."""
    return {"bias": True, "norm_bias": None, "qkv_bias": None, "out_bias": None, "feed_forward_bias": None}


def _but_in_attention(config: TransformerConfig) -> dict[str, Any]:
    """GPT-NeoX's: queries, keys, values and what mixes them all have biases, or none has."""
    some = None if config.biases.qkv or config.biases.out else False
    return {"bias": True, "norm_bias": None, "qkv_bias": some, "out_bias": some, "feed_forward_bias": None}


def _biases_of_norms(config: TransformerConfig) -> dict[str, Any]:
    """Starcoder2's norms always have them; its matrices all have some, or none has."""
    some = any(config.biases[1:])
    return {"norm_bias": True, "qkv_bias": some, "out_bias": some, "feed_forward_bias": some}


@dataclass(frozen=True)
class Architecture:
    """How transformers stores one, in both directions.

    Attributes:
        settings: what the fields of its config.json mean here.
        write: its fields for our settings, as near as it comes.
        prefix: of the tensors of a model with a head.
        biases: those that it has at any rate; zeros are written for those that a model has not.
        inward, outward: the order of a tensor's rows, theirs to ours and back.
    """

    fields: Fields
    settings: Callable[[dict[str, Any], object], dict[str, Any]]
    write: Callable[[TransformerConfig], dict[str, Any]]
    parts: Callable[[TransformerConfig], Iterator[Part]]
    prefix: str = llama.PREFIX
    buffers: re.Pattern[str] = llama.BUFFERS
    biases: Callable[[TransformerConfig], dict[str, Any]] = _no_more
    inward: Turn = _as_it_is
    outward: Turn = _as_it_is


ARCHITECTURES = {
    "gpt2": Architecture(
        gpt2.FIELDS, gpt2.settings, gpt2.fields, gpt2.parts, gpt2.PREFIX, gpt2.BUFFERS, _all_biases
    ),
    "llama": Architecture(llama.LLAMA, llama.settings, llama.fields, llama.parts),
    "mistral": Architecture(llama.MISTRAL, llama.settings, llama.mistral_fields, llama.parts),
    "qwen2": Architecture(relatives.QWEN2, relatives.qwen2, relatives.qwen2_fields, llama.parts),
    "qwen3": Architecture(relatives.QWEN3, relatives.qwen3, relatives.qwen3_fields, llama.parts),
    "olmo2": Architecture(relatives.OLMO2, relatives.olmo2, relatives.olmo2_fields, llama.parts),
    "arcee": Architecture(relatives.ARCEE, relatives.arcee, relatives.arcee_fields, llama.parts),
    "starcoder2": Architecture(
        relatives.STARCODER2,
        relatives.starcoder2,
        relatives.starcoder2_fields,
        partial(llama.parts, plain=("c_fc", "c_proj")),
        biases=_biases_of_norms,
    ),
    "gpt_neox": Architecture(
        neox.FIELDS, neox.settings, neox.fields, neox.parts, neox.PREFIX, neox.BUFFERS, _but_in_attention,
        neox.inward,
        neox.outward,
    ),
}  # fmt: skip
"""In the order in which a model is written as the first that it is."""


def obstacles(config: TransformerConfig, name: str) -> dict[str, Any]:
    """Which of a model's settings the architecture has not, and what stands there instead: nothing is in the way if {}.

    They are found by writing the settings as the architecture's fields, and reading those again.
    """
    architecture = ARCHITECTURES[name]
    given = config.replace(**architecture.biases(config))
    values = take_fields(architecture.write(given), architecture.fields, name)
    try:
        again = parse(TransformerConfig, architecture.settings(values, name))
    except ConfigError:  # its heads have no width of their own, or it turns them
        return computes(TransformerConfig())
    ours, theirs = computes(given), computes(again)
    wrong = {setting: theirs.get(setting) for setting, value in ours.items() if theirs.get(setting) != value}
    return {name: value for name, value in wrong.items() if "position" not in wrong or not name.startswith("ro")}


def with_biases(
    config: TransformerConfig, weights: Mapping[str, Tensor], name: str
) -> tuple[TransformerConfig, dict[str, Tensor], bool]:
    """The same function with all biases that the architecture has; whether zeros had to be added."""
    config = config.replace(**ARCHITECTURES[name].biases(config))
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in Transformer(config).named_parameters()}
    zeros = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in weights}
    return config, {**weights, **zeros}, bool(zeros)


def computes(config: TransformerConfig) -> dict[str, Any]:
    """The settings that decide the logits, by name, with what they leave open filled in."""
    rotary = ("rope_base", "rope_scaling", "rotary_fraction") if config.position == "rope" else ()
    plain = (
        "vocab_size", "context_length", "n_layers", "n_heads", "d_model", "position", "norm", "norm_position",
        "norm_epsilon", "embedding_norm", "activation", "qk_norm", "parallel", "tie_embeddings", "out_projection",
        "feed_forward_layers", "head_bias", "causal", *rotary,
    )  # fmt: skip
    windows = tuple(None if w is None or w >= config.context_length else w for w in config.windows)
    norms, qkv, out, feed_forward = config.biases
    return {
        **{name: getattr(config, name) for name in plain},
        "n_kv_heads": config.kv_heads,
        "d_head": config.head_width,
        "d_ff": config.ff_width,
        "window": windows[0] if len(set(windows)) == 1 else windows,
        "norm_bias": norms and config.norm == "layer",
        "qkv_bias": qkv,
        "out_bias": out,
        "feed_forward_bias": feed_forward,
    }
