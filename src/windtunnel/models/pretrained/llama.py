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
from windtunnel.models.pretrained.fields import OURS_ALONE, Fields
from windtunnel.models.pretrained.parts import Part, linear, listing, single
from windtunnel.models.transformer import TransformerConfig

PREFIX = "model."
BUFFERS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""The rotary rates, which older versions stored with the weights."""

_NO_DROPOUT = (
    (0, None),
    "there is one dropout here and Llama has only this one; it acts in training only: set it to 0",
)
_ROPE = {
    "rope_parameters": None, "rope_theta": None, "rope_scaling": None, "partial_rotary_factor": None,
    "original_max_position_embeddings": None,
}  # fmt: skip
_SHARED = {
    "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_act": "silu",
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "head_dim": None, **_ROPE,
}  # fmt: skip

LLAMA = Fields(
    mapped={
        **_SHARED, "intermediate_size": 11008, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "attention_bias": False, "mlp_bias": False,
    },
    needs={
        "attention_dropout": _NO_DROPOUT,
        "sliding_window": ((None,), "transformers' Llama ignores it; for a window the model_type must be mistral"),
        "layer_types": ((None,), "Llama's layers are all alike"),
    },
    no_effect=frozenset({"pretraining_tp"}),
    objects=frozenset({"rope_parameters", "rope_scaling"}),
)  # fmt: skip
MISTRAL = Fields(
    mapped={
        **_SHARED, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    needs={
        "attention_dropout": _NO_DROPOUT,
        "attention_bias": ((False, None), "Mistral has no biases"),
        "mlp_bias": ((False, None), "Mistral has no biases"),
        "layer_types": ((None,), "transformers' Mistral ignores it: all layers have the same window"),
    },
    objects=LLAMA.objects,
)  # fmt: skip


def settings(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings from Llama's or Mistral's fields.

    Raises:
        ArtifactError: for another activation, biases in one half of a block only, or rotary settings not built in.
    """
    if values["hidden_act"] not in ("silu", "swish"):
        raise ArtifactError(f"{where}: hidden_act={values['hidden_act']!r}; the gated feed-forward here has silu")
    if values.get("attention_bias") != values.get("mlp_bias"):
        raise ArtifactError(
            f"{where}: attention_bias={values['attention_bias']!r} and mlp_bias={values['mlp_bias']!r}; "
            "here both have biases or neither has"
        )
    base, scaling = rope(values, where)
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
        "activation": "swiglu",
        "bias": bool(values.get("attention_bias")),
        "tie_embeddings": values["tie_word_embeddings"],
        "dropout": 0.0,
    }


def rope(values: Mapping[str, Any], where: object) -> tuple[float, dict[str, Any] | None]:
    """The rotary base and scaling out of both spellings, with transformers' order of precedence.

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
    if partial not in (None, 1, 1.0):
        raise ArtifactError(f"{where}: partial_rotary_factor={partial!r}; the whole head is rotated here")
    if given.keys() != needed[kind]:
        wrong = listing(sorted(given.keys() ^ needed[kind]))
        raise ArtifactError(f"{where}: rope_type={kind!r} is given with wrong fields; missing or unknown: {wrong}")
    if kind == "default":
        return base, None
    return base, {"kind": kind, **given, **({"original_context_length": original} if kind == "llama3" else {})}


def obstacles(config: TransformerConfig) -> list[str]:
    """The settings that neither Llama's nor Mistral's architecture has, as `model.x=y`."""
    wanted: dict[str, Any] = {
        "position": "rope",
        "norm": "rms",
        "norm_position": "pre",
        "activation": "swiglu",
        "causal": True,
    }
    wanted |= OURS_ALONE
    found = [f"model.{name}={getattr(config, name)}" for name in wanted if getattr(config, name) != wanted[name]]
    if len(set(config.windows)) > 1:
        found.append(f"model.window={config.window} (one for all layers)")
    if config.bias and is_mistral(config):
        found.append("model.bias=True (with a window or a d_head of its own)")
    return found


def is_mistral(config: TransformerConfig) -> bool:
    """Whether it takes Mistral's architecture: for a window, or for heads that do not divide d_model."""
    return config.windows[0] is not None or config.d_model % config.n_heads > 0


def fields(config: TransformerConfig) -> dict[str, Any]:
    """Llama's or Mistral's fields for a config without obstacles."""
    mistral, scaling = is_mistral(config), None
    if config.rope_scaling:
        scaling = {"rope_type": config.rope_scaling.kind, **config.rope_scaling.model_dump(exclude={"kind"})}
        scaling["original_max_position_embeddings"] = scaling.pop("original_context_length")
        if config.rope_scaling.kind == "linear":
            scaling = {"rope_type": "linear", "factor": config.rope_scaling.factor}
    own = {"sliding_window": config.windows[0]} if mistral else {"attention_bias": config.bias, "mlp_bias": config.bias}
    return {
        "model_type": "mistral" if mistral else "llama",
        "architectures": ["MistralForCausalLM" if mistral else "LlamaForCausalLM"],
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
        **own,
    }


def parts(config: TransformerConfig) -> Iterator[Part]:
    """Llama's and Mistral's tensors; queries, keys and values are one matrix here and three there."""
    d, ff, bias = config.d_model, config.ff_width, config.bias
    q, kv = config.n_heads * config.head_width, config.kv_heads * config.head_width
    yield single("embedding.weight", "model.embed_tokens.weight", config.vocab_size, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        yield single(f"{ours}.norm_1.weight", f"{theirs}.input_layernorm.weight", d)
        qkv = [f"{theirs}.self_attn.{name}_proj" for name in "qkv"]
        yield from linear(f"{ours}.attention.qkv", qkv, d, [q, kv, kv], bias)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.self_attn.o_proj"], q, [d], bias)
        yield single(f"{ours}.norm_2.weight", f"{theirs}.post_attention_layernorm.weight", d)
        yield from linear(f"{ours}.feed_forward.gate", [f"{theirs}.mlp.gate_proj"], d, [ff], bias)
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.mlp.up_proj"], d, [ff], bias)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.mlp.down_proj"], ff, [d], bias)
    yield single("norm.weight", "model.norm.weight", d)
    if not config.tie_embeddings:
        yield single("head.weight", "lm_head.weight", config.vocab_size, d)
