"""What a decoder costs, by formula: parameters by module and matrix-multiply FLOPs."""

from __future__ import annotations

from windtunnel.models.transformer import TransformerConfig


def parameter_formulas(config: TransformerConfig) -> list[tuple[str, str, int]]:
    """Each kind of module with its formula in the config's own names and its number of parameters, all layers."""
    d, layers, v = config.d_model, config.n_layers, config.vocab_size
    kv, ff = config.kv_heads * config.d_head, config.ff_width
    b = int(config.bias)
    norm = {"layer": d + b * d, "rms": d, "none": 0}[config.norm]
    final = int(config.norm_position == "pre")
    matrices = 3 if config.activation == "swiglu" else 2
    plus = " + biases" if config.bias else ""
    rows = [
        ("embedding", "vocab_size * d_model", v * d),
        ("position", "context_length * d_model", config.context_length * d * (config.position == "learned")),
        ("attention.qkv", f"n_layers * d_model * (d_model + 2 * n_kv_heads * d_head){plus}",
         layers * (d + b) * (d + 2 * kv)),
        ("attention.out", f"n_layers * d_model * d_model{plus}", layers * (d + b) * d),
        ("feed_forward", f"n_layers * {matrices} * d_model * d_ff{plus}",
         layers * (matrices * d * ff + b * ((matrices - 1) * ff + d))),
        ("norms", f"(2 * n_layers + {final}) * {norm // d if norm else 0} * d_model", (2 * layers + final) * norm),
        ("head", "vocab_size * d_model", v * d * (not config.tie_embeddings)),
    ]  # fmt: skip
    return [row for row in rows if row[2]]


def flops_by_part(config: TransformerConfig, length: int) -> dict[str, int]:
    """Matrix-multiply FLOPs of one forward pass over a sequence, a multiply and an add counted as two.

    Attention is counted as it is computed, all length x length scores, also those that the mask hides.
    """
    d, layers, kv = config.d_model, config.n_layers, config.kv_heads * config.d_head
    matrices = 3 if config.activation == "swiglu" else 2
    return {
        "attention.qkv": layers * 2 * length * d * (d + 2 * kv),
        "attention.scores": layers * 2 * length * length * d,
        "attention.mix": layers * 2 * length * length * d,
        "attention.out": layers * 2 * length * d * d,
        "feed_forward": layers * matrices * 2 * length * d * config.ff_width,
        "head": 2 * length * d * config.vocab_size,
    }


def training_flops_per_token(config: TransformerConfig, length: int) -> float:
    """Forward and backward matrix-multiply FLOPs a token: the backward pass costs twice the forward."""
    return 3 * sum(flops_by_part(config, length).values()) / length
