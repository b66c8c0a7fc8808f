"""Llama's relatives as transformers stores them: Qwen2, Qwen3, OLMo 2, Starcoder2, Arcee.

Each has Llama's rotary attention and a norm, a feed-forward or biases of its own.
"""

from __future__ import annotations

from typing import Any

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained import llama
from windtunnel.models.pretrained.fields import Fields
from windtunnel.models.transformer import TransformerConfig

_NO_WINDOW = ((False, None), "all layers see the whole text here")
_OBJECTS = llama.LLAMA.objects | {"layer_types"}
_LAYERS = {"layer_types": None}

QWEN2 = Fields(
    mapped={
        **llama.SHARED, **_LAYERS, "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
    needs={"attention_dropout": llama.NO_DROPOUT, "use_sliding_window": _NO_WINDOW},
    no_effect=frozenset({"sliding_window", "max_window_layers"}),
    objects=_OBJECTS,
)  # fmt: skip
QWEN3 = Fields(
    mapped={**QWEN2.mapped, "head_dim": 128, "attention_bias": False},
    needs=QWEN2.needs,
    no_effect=QWEN2.no_effect,
    objects=_OBJECTS,
)
OLMO2 = Fields(
    mapped={
        **llama.SHARED, "vocab_size": 50304, "intermediate_size": 11008, "num_key_value_heads": None,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "attention_bias": False,
    },
    needs={"attention_dropout": llama.NO_DROPOUT},
    objects=llama.LLAMA.objects,
)  # fmt: skip
STARCODER2 = Fields(
    mapped={
        **llama.SHARED, "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
        "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 4096, "norm_epsilon": 1e-5, "sliding_window": None, "use_bias": True,
        "tie_word_embeddings": True, "residual_dropout": 0.0, "embedding_dropout": 0.0, "attention_dropout": 0.0,
    },
    objects=llama.LLAMA.objects,
)  # fmt: skip
ARCEE = Fields(
    mapped={
        **llama.SHARED, "hidden_size": 2560, "intermediate_size": 18432, "num_key_value_heads": None,
        "hidden_act": "relu2", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "attention_bias": False,
        "mlp_bias": False,
    },
    needs={"attention_dropout": llama.NO_DROPOUT},
    objects=llama.LLAMA.objects,
)  # fmt: skip
PLAIN = {
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "relu2": "relu_squared",
}  # fmt: skip
"""Activations of a feed-forward without a gate."""
_WRITTEN = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "relu": "relu", "relu_squared": "relu2"}


def qwen2(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings: Llama's, with biases of queries, keys and values alone."""
    _same_layers(values, where)
    return {**llama.shared(values, where), **llama.gated(values, where), "bias": False, "qkv_bias": True}


def qwen3(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings: Llama's, with the queries and keys of each head normalised."""
    _same_layers(values, where)
    return {**llama.shared(values, where), **llama.gated(values, where), "qk_norm": "head", **_of_attention(values)}


def olmo2(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings: queries and keys are normalised whole, and what is added to the stream, not what is read of it."""
    own = {"qk_norm": "whole", "norm_position": "branch", **_of_attention(values)}
    return {**llama.shared(values, where), **llama.gated(values, where), **own}


def starcoder2(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings: layer norms, which always have biases, and a feed-forward without a gate."""
    dropouts = {values[f"{part}_dropout"] for part in ("residual", "embedding", "attention")}
    if len(dropouts) > 1:
        raise ArtifactError(f"{where}: dropouts {dropouts} differ; here is one, which acts in training only: set one")
    return {
        **llama.shared({**values, "rms_norm_eps": values["norm_epsilon"]}, where),
        "norm": "layer",
        "activation": _plain(values, where),
        "bias": bool(values["use_bias"]),
        "norm_bias": True,
        "dropout": dropouts.pop(),
    }


def arcee(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings: Llama's, with a feed-forward without a gate."""
    attention, feed_forward = bool(values["attention_bias"]), bool(values["mlp_bias"])
    own = {"activation": _plain(values, where), **llama.biases(attention, feed_forward)}
    return {**llama.shared(values, where), **own}


def qwen2_fields(config: TransformerConfig) -> dict[str, Any]:
    return {**llama.shared_fields(config, "qwen2", "Qwen2"), "use_sliding_window": False}


def qwen3_fields(config: TransformerConfig) -> dict[str, Any]:
    own = {"use_sliding_window": False, "attention_bias": config.biases.qkv}
    return {**llama.shared_fields(config, "qwen3", "Qwen3"), **own}


def olmo2_fields(config: TransformerConfig) -> dict[str, Any]:
    fields = {**llama.shared_fields(config, "olmo2", "Olmo2"), "attention_bias": config.biases.qkv}
    return {name: value for name, value in fields.items() if name != "head_dim"}


def starcoder2_fields(config: TransformerConfig) -> dict[str, Any]:
    fields = llama.shared_fields(config, "starcoder2", "Starcoder2")
    return {
        **{name: value for name, value in fields.items() if name not in ("rms_norm_eps", "head_dim")},
        "hidden_act": _WRITTEN.get(config.activation, "relu"),
        "norm_epsilon": config.norm_epsilon,
        "use_bias": config.biases.qkv,
        "sliding_window": config.windows[0],
        **{f"{part}_dropout": config.dropout for part in ("residual", "embedding", "attention")},
    }


def arcee_fields(config: TransformerConfig) -> dict[str, Any]:
    own: dict[str, Any] = {"attention_bias": config.biases.qkv, "mlp_bias": config.biases.feed_forward}
    own |= {"hidden_act": _WRITTEN.get(config.activation, "relu")}
    return {**llama.shared_fields(config, "arcee", "Arcee"), **own}


def _of_attention(values: dict[str, Any]) -> dict[str, Any]:
    return llama.biases(bool(values["attention_bias"]), False)


def _plain(values: dict[str, Any], where: object) -> str:
    if values["hidden_act"] not in PLAIN:
        raise ArtifactError(f"{where}: hidden_act={values['hidden_act']!r} is not one of {', '.join(PLAIN)}")
    return PLAIN[values["hidden_act"]]


def _same_layers(values: dict[str, Any], where: object) -> None:
    kinds = values["layer_types"] or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ArtifactError(f"{where}: layer_types={str(kinds)[:80]}; all layers are full_attention here")
