"""GPT-NeoX, the architecture of Pythia, as transformers stores it, in both directions.

It keeps query, key and value of a head side by side, head after head, where here all queries come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained import llama
from windtunnel.models.pretrained.fields import Fields
from windtunnel.models.pretrained.gpt2 import ACTIVATIONS, WRITTEN
from windtunnel.models.pretrained.parts import Part, linear, norm, single
from windtunnel.models.transformer import TransformerConfig

PREFIX = "gpt_neox."
BUFFERS = re.compile(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)")

FIELDS = Fields(
    mapped={
        "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "hidden_act": "gelu", "attention_dropout": 0.0, "hidden_dropout": 0.0,
        "max_position_embeddings": 2048, "layer_norm_eps": 1e-5, "tie_word_embeddings": False,
        "use_parallel_residual": True, "attention_bias": True, **llama.ROPE, "rotary_pct": None,
        "rotary_emb_base": None,
    },
    no_effect=frozenset({"classifier_dropout"}),
    objects=llama.LLAMA.objects,
)  # fmt: skip


def settings(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings from GPT-NeoX's fields.

    Raises:
        ArtifactError: for an activation that is not built in, or dropouts that differ.
    """
    if values["hidden_act"] not in ACTIVATIONS:
        raise ArtifactError(f"{where}: hidden_act={values['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}")
    if values["hidden_dropout"] != values["attention_dropout"]:
        both = f"{values['hidden_dropout']} and {values['attention_dropout']}"
        raise ArtifactError(f"{where}: dropouts {both} differ; here is one, which acts in training only: set one")
    theta = values["rope_theta"] or values["rotary_emb_base"]
    base, scaling, fraction = llama.rope({**values, "rope_theta": theta}, where)
    attention = bool(values["attention_bias"])
    return {
        "vocab_size": values["vocab_size"],
        "context_length": values["max_position_embeddings"],
        "n_layers": values["num_hidden_layers"],
        "n_heads": values["num_attention_heads"],
        "d_model": values["hidden_size"],
        "d_ff": values["intermediate_size"],
        "position": "rope",
        "rope_base": base,
        "rope_scaling": scaling,
        "rotary_fraction": fraction or values["rotary_pct"] or 0.25,
        "norm_epsilon": values["layer_norm_eps"],
        "activation": ACTIVATIONS[values["hidden_act"]],
        "parallel": bool(values["use_parallel_residual"]),
        "tie_embeddings": values["tie_word_embeddings"],
        "dropout": values["hidden_dropout"],
        **({} if attention else {"qkv_bias": False, "out_bias": False}),
    }


def fields(config: TransformerConfig) -> dict[str, Any]:
    """GPT-NeoX's fields, the rotary ones in both spellings."""
    rope = {"rope_theta": config.rope_base, "rope_type": "default", "partial_rotary_factor": config.rotary_fraction}
    return {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.ff_width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "hidden_act": WRITTEN.get(config.activation, "relu"),
        "layer_norm_eps": config.norm_epsilon,
        "rope_parameters": rope,
        "rotary_pct": config.rotary_fraction,
        "rotary_emb_base": config.rope_base,
        "use_parallel_residual": config.parallel,
        "attention_bias": config.biases.qkv,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }


def parts(config: TransformerConfig) -> Iterator[Part]:
    """GPT-NeoX's tensors."""
    d, ff, bias = config.d_model, config.ff_width, config.biases
    yield single("embedding.weight", "gpt_neox.embed_in.weight", config.vocab_size, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
        yield from norm(f"{ours}.norm_1", f"{theirs}.input_layernorm", d, True)
        yield from linear(f"{ours}.attention.qkv", [f"{theirs}.attention.query_key_value"], d, [3 * d], bias.qkv)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.attention.dense"], d, [d], bias.out)
        yield from norm(f"{ours}.norm_2", f"{theirs}.post_attention_layernorm", d, True)
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.mlp.dense_h_to_4h"], d, [ff], True)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.mlp.dense_4h_to_h"], ff, [d], True)
    yield from norm("norm", "gpt_neox.final_layer_norm", d, True)
    if not config.tie_embeddings:
        yield single("head.weight", "lm_head.weight", config.vocab_size, d)


def inward(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The rows of the packed matrix from (head, part) to (part, head); other tensors as they are."""
    if ".query_key_value." not in name:
        return tensor
    return torch.unflatten(tensor, 0, (config.n_heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def outward(name: str, tensor: Tensor, config: TransformerConfig) -> Tensor:
    """The inverse of `inward`."""
    if ".query_key_value." not in name:
        return tensor
    return torch.unflatten(tensor, 0, (3, config.n_heads, -1)).transpose(0, 1).flatten(0, 2).contiguous()
