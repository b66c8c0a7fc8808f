"""GPT-2 as transformers stores it (GPT2Config, GPT2LMHeadModel): its fields and tensors, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from windtunnel.errors import ArtifactError
from windtunnel.models.pretrained.fields import Fields
from windtunnel.models.pretrained.parts import Part, linear, norm, single
from windtunnel.models.transformer import TransformerConfig

PREFIX = "transformer."
BUFFERS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
"""The causal mask, which older versions stored with the weights."""

ACTIVATIONS = {
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu",
}  # fmt: skip
WRITTEN = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}

FIELDS = Fields(
    mapped={
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "reorder_and_upcast_attn": False,
    },
    needs={
        "scale_attn_weights": ((True,), "attention scores are always divided by the root of the head's width"),
        "scale_attn_by_inverse_layer_idx": ((False,), "attention scores are scaled alike in all layers"),
    },
    no_effect=frozenset(
        {"summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"}
    ),
    spellings={
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
)  # fmt: skip


def settings(values: dict[str, Any], where: object) -> dict[str, Any]:
    """Our settings from GPT-2's fields.

    Raises:
        ArtifactError: for an activation that is not built in, or dropouts that differ.
    """
    activation = values["activation_function"]
    if activation not in ACTIVATIONS:
        raise ArtifactError(f"{where}: activation_function={activation!r} is not one of {', '.join(ACTIVATIONS)}")
    dropouts = {name: values[name] for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop")}
    if len(set(dropouts.values())) > 1:
        listed = ", ".join(f"{name}={value!r}" for name, value in dropouts.items())
        raise ArtifactError(
            f"{where}: {listed} differ, and there is one dropout here; it acts in training only: set one"
        )
    return {
        "vocab_size": values["vocab_size"],
        "context_length": values["n_positions"],
        "n_layers": values["n_layer"],
        "n_heads": values["n_head"],
        "d_model": values["n_embd"],
        "d_ff": values["n_inner"],
        "activation": ACTIVATIONS[activation],
        "norm_epsilon": values["layer_norm_epsilon"],
        "tie_embeddings": values["tie_word_embeddings"],
        "dropout": values["resid_pdrop"],
    }


def notes(values: dict[str, Any]) -> Iterator[str]:
    """What was understood and is worth saying."""
    if values["reorder_and_upcast_attn"]:
        yield "reorder_and_upcast_attn changes the rounding of mixed precision only; in float32 the logits are the same"


def fields(config: TransformerConfig) -> dict[str, Any]:
    """GPT-2's fields."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": WRITTEN.get(config.activation, "relu"),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tie_embeddings,
    }


def parts(config: TransformerConfig) -> Iterator[Part]:
    """GPT-2's tensors: Conv1D stores matrices transposed, c_attn is query, key and value in one, as ours."""
    d, ff = config.d_model, config.ff_width
    yield single("embedding.weight", "transformer.wte.weight", config.vocab_size, d)
    yield single("position.embedding.weight", "transformer.wpe.weight", config.context_length, d)
    for layer in range(config.n_layers):
        ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
        yield from norm(f"{ours}.norm_1", f"{theirs}.ln_1", d, True)
        yield from linear(f"{ours}.attention.qkv", [f"{theirs}.attn.c_attn"], d, [3 * d], True, transposed=True)
        yield from linear(f"{ours}.attention.out", [f"{theirs}.attn.c_proj"], d, [d], True, transposed=True)
        yield from norm(f"{ours}.norm_2", f"{theirs}.ln_2", d, True)
        yield from linear(f"{ours}.feed_forward.widen", [f"{theirs}.mlp.c_fc"], d, [ff], True, transposed=True)
        yield from linear(f"{ours}.feed_forward.narrow", [f"{theirs}.mlp.c_proj"], ff, [d], True, transposed=True)
    yield from norm("norm", "transformer.ln_f", d, True)
    if not config.tie_embeddings:
        yield single("head.weight", "lm_head.weight", config.vocab_size, d)
