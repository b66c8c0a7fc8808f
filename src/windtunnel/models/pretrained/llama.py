"""Llama and Mistral as transformers stores them: their fields and tensors, in both directions.

Mistral is Llama with a sliding window and without biases. Both write their rotary settings in two spellings:
`rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before; we read both and write the older one,
which every version reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.fields import Fields
from windtunnel.models.pretrained.parts import Part, linear, listing, norm, single
from windtunnel.models.transformer import TransformerConfig

PREFIX = "model."
BUFFERS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""The rotary rates, which older versions stored with the weights."""

NO_DROPOUT = (
    (0, None),
    "there is one dropout here and Llama has only this one; it acts in training only: set it to 0",
)
ROPE = {
    "rope_parameters": None, "rope_theta": None, "rope_scaling": None, "partial_rotary_factor": None,
    "original_max_position_embeddings": None,
}  # fmt: skip
SHARED = {
    "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "head_dim": None, **ROPE,
}  # fmt: skip

LLAMA = Fields(
    mapped={
        **SHARED, "intermediate_size": 11008, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "attention_bias": False, "mlp_bias": False,
    },
    needs={
        "attention_dropout": NO_DROPOUT,
        "sliding_window": ((None,), "transformers' Llama ignores it; for a window the model_type must be mistral"),
        "layer_types": ((None,), "Llama's layers are all alike"),
    },
    no_effect=frozenset({"pretraining_tp"}),
    objects=frozenset({"rope_parameters", "rope_scaling"}),
)  # fmt: skip
MISTRAL = Fields(
    mapped={
        **SHARED, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    needs={
        "attention_dropout": NO_DROPOUT,
        "attention_bias": ((False, None), "Mistral has no biases"),
        "mlp_bias": ((False, None), "Mistral has no biases"),
        "layer_types": ((None,), "transformers' Mistral ignores it: all layers have the same window"),
    },
    objects=LLAMA.objects,
)  # fmt: skip


def settings(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings from Llama's or Mistral's fields.

    Raises:
        ArtifactError: for another activation, or rotary settings not built in.
    """
    own = biases(bool(values.get("attention_bias")), bool(values.get("mlp_bias")))
    return {**shared(values, where), **gated(values, where), **own}


def biases(attention: bool, feed_forward: bool) -> dict[str, bool]:
    """Our settings of them; an RMS norm has none."""
    if attention == feed_forward:
        return {"bias": attention}
    return {"bias": False, "qkv_bias": attention, "out_bias": attention, "feed_forward_bias": feed_forward}


def gated(values: Mapping[str, Any], where: object) -> dict[str, str]:
    """The setting of a gated feed-forward. Raises ArtifactError for another activation than silu."""
    if values["hidden_act"] not in ("silu", "swish"):
        raise ArtifactError(f"{where}: hidden_act={values['hidden_act']!r}; the gated feed-forward here has silu")
    return {"activation": "swiglu"}


def shared(values: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The settings that Llama and its relatives have in common. Raises ArtifactError as `rope` does."""
    base, scaling, fraction = rope(values, where)
    if fraction not in (None, 1, 1.0):
        raise ArtifactError(f"{where}: partial_rotary_factor={fraction!r}; the whole head is rotated here")
    d_model, n_heads, head_dim = values["hidden_size"], values["num_attention_heads"], values["head_dim"]
    usual = isinstance(head_dim, int) and isinstance(n_heads, int) and head_dim * n_heads == d_model
    return {
        "vocab_size": values["vocab_size"],
        "context_length": values["max_position_embeddings"],
        "n_layers": values["num_hidden_layers"],
        "n_heads": n_heads,
        "n_kv_heads": values["num_key_value_heads"],
        "d_model": d_model,
        "d_head": None if usual else head_dim,
        "d_ff": values["intermediate_size"],
        "position": "rope",
        "rope_base": base,
        "rope_scaling": scaling,
        "window": values.get("sliding_window"),
        "norm": "rms",
        "norm_epsilon": values["rms_norm_eps"],
        "tie_embeddings": values["tie_word_embeddings"],
        "dropout": 0.0,
    }


def rope(values: Mapping[str, Any], where: object) -> tuple[float, dict[str, Any] | None, float | None]:
    """The rotary base, scaling and part of a head out of both spellings, with transformers' order of precedence.

    Raises:
        ArtifactError: for a kind or a part of it that is not built in.
    """
    given = values["rope_scaling"] or values["rope_parameters"] or {}
    if not isinstance(given, dict):
        raise ArtifactError(f"{where}: rope_scaling={given!r} is not an object with rope_type and factor")
    given = {name: value for name, value in given.items() if value is not None}
    kind = str(given.pop("rope_type", given.get("type", "default")))
    given.pop("type", None)
    base = given.pop("rope_theta", values["rope_theta"] or 10000.0)
    partial = given.pop("partial_rotary_factor", values["partial_rotary_factor"])
    original = given.pop("original_max_position_embeddings", values["max_position_embeddings"])
    original = values["original_max_position_embeddings"] or original
    needed = {"default": set(), "linear": {"factor"}, "llama3": {"factor", "low_freq_factor", "high_freq_factor"}}
    if kind not in needed:
        raise ArtifactError(f"{where}: rope_type={kind!r} is not built in; known are {', '.join(needed)}")
    if given.keys() != needed[kind]:
        wrong = listing(sorted(given.keys() ^ needed[kind]))
        raise ArtifactError(f"{where}: rope_type={kind!r} is given with wrong fields; missing or unknown: {wrong}")
    if kind == "default":
        return base, None, partial
    scaling = {"kind": kind, **given, **({"original_context_length": original} if kind == "llama3" else {})}
    return base, scaling, partial


def fields(config: TransformerConfig) -> dict[str, Any]:
    """Llama's fields."""
    own: dict[str, Any] = {"attention_bias": config.biases.qkv, "mlp_bias": config.biases.feed_forward}
    own |= {"head_dim": None} if config.d_model % config.n_heads else {}  # which transformers' Llama refuses
    return {**shared_fields(config, "llama", "Llama"), **own}


def mistral_fields(config: TransformerConfig) -> dict[str, Any]:
    """Mistral's fields."""
    return {**shared_fields(config, "mistral", "Mistral"), "sliding_window": config.windows[0]}


def shared_fields(config: TransformerConfig, model_type: str, name: str) -> dict[str, Any]:
    """The inverse of `shared`, for an architecture of this model_type and name of class."""
    scaling = None
    if config.rope_scaling:
        scaling = {"rope_type": config.rope_scaling.kind, **config.rope_scaling.model_dump(exclude={"kind"})}
        scaling["original_max_position_embeddings"] = scaling.pop("original_context_length")
        if config.rope_scaling.kind == "linear":
            scaling = {"rope_type": "linear", "factor": config.rope_scaling.factor}
    return {
        "model_type": model_type,
        "architectures": [f"{name}ForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.ff_width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_scaling": scaling,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
    }


def parts(config: TransformerConfig, plain: tuple[str, str] = ("up_proj", "down_proj")) -> Iterator[Part]:
    """The tensors of Llama and its relatives; queries, keys and values are one matrix here and three there.

    Args:
        plain: the names of the two matrices of a feed-forward without a gate.
    """
    d, ff, bias = config.d_model, config.ff_width, config.biases
    q, kv = config.n_heads * config.head_width, config.kv_heads * config.head_width
    after, norm_bias = config.norm_position == "branch", config.norm == "layer"
    norms = ["input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm"][after : after + 2]
    yield single("embedding.weight", "model.embed_tokens.weight", config.vocab_size, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        yield from norm(f"{ours}.norm_1", f"{theirs}.{norms[0]}", d, norm_bias)
        qkv = [f"{theirs}.self_attn.{name}_proj" for name in "qkv"]
        yield from linear(f"{ours}.attention.qkv", qkv, d, [q, kv, kv], bias.qkv)
        if config.qk_norm != "none":
            whole = config.qk_norm == "whole"
            for name, n in (("q_norm", q), ("k_norm", kv)):
                width = n if whole else config.head_width
                yield single(f"{ours}.attention.{name}.weight", f"{theirs}.self_attn.{name}.weight", width)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.self_attn.o_proj"], q, [d], bias.out)
        yield from norm(f"{ours}.norm_2", f"{theirs}.{norms[1]}", d, norm_bias)
        gated = config.activation == "swiglu"
        if gated:
            yield from linear(f"{ours}.feed_forward.gate", [f"{theirs}.mlp.gate_proj"], d, [ff], bias.feed_forward)
        up, down = ("up_proj", "down_proj") if gated else plain
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.mlp.{up}"], d, [ff], bias.feed_forward)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.mlp.{down}"], ff, [d], bias.feed_forward)
    yield from norm("norm", "model.norm", d, norm_bias)
    if not config.tie_embeddings:
        yield single("head.weight", "lm_head.weight", config.vocab_size, d)
