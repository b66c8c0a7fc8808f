"""What a model costs, by formula: parameters by module, matrix-multiply FLOPs, and the cache's size."""

from __future__ import annotations

from windtunnel.models import mlp
from windtunnel.models.mlp import MLPConfig
from windtunnel.models.transformer import TransformerConfig

AnyConfig = TransformerConfig | MLPConfig


def parameter_formulas(config: AnyConfig) -> list[tuple[str, str, int]]:
    """Each kind of module with its formula and its number of parameters, all layers together.

    The names in a formula are those of `formula_names`; evaluated with them it gives the number. Modules without
    parameters are left out.
    """
    if isinstance(config, MLPConfig):
        return mlp.parameter_formulas(config)
    d, layers, v = config.d_model, config.n_layers, config.vocab_size
    q, kv, ff = config.n_heads * config.head_width, config.kv_heads * config.head_width, config.ff_width
    b = int(config.bias)
    row = "(d_model + 1)" if config.bias else "d_model"
    matrices = 3 if config.activation == "swiglu" else 2
    ff_bias = {2: " + d_ff + d_model", 3: " + 2 * d_ff + d_model"}[matrices] if config.bias else ""
    vectors = {"layer": 1 + b, "rms": 1, "none": 0}[config.norm]
    norms = "2 * n_layers + 1" if config.norm_position == "pre" else "2 * n_layers"
    n_norms = 2 * layers + (config.norm_position == "pre")
    rows = [
        ("embedding", "vocab_size * d_model", v * d),
        ("position", "context_length * d_model", config.context_length * d * (config.position == "learned")),
        ("attention.qkv", f"n_layers * {row} * (n_heads + 2 * n_kv_heads) * d_head", layers * (d + b) * (q + 2 * kv)),
        ("attention.out", f"n_layers * (n_heads * d_head{' + 1' * b}) * d_model", layers * (q + b) * d),
        ("feed_forward", f"n_layers * ({matrices} * d_model * d_ff{ff_bias})",
         layers * (matrices * d * ff + b * ((matrices - 1) * ff + d))),
        ("norms", f"({norms}) * " + "2 * " * (vectors == 2) + "d_model", n_norms * vectors * d),
        ("head", "vocab_size * d_model", v * d * (not config.tie_embeddings)),
    ]  # fmt: skip
    return [row for row in rows if row[2]]


def formula_names(config: AnyConfig) -> dict[str, int]:
    """The values of the names in the formulas, with what the config leaves open filled in."""
    if isinstance(config, MLPConfig):
        names = ("vocab_size", "context_length", "n_layers", "d_embedding", "d_hidden")
        return {name: getattr(config, name) for name in names}
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.kv_heads,
        "d_model": config.d_model,
        "d_head": config.head_width,
        "d_ff": config.ff_width,
    }


def flops_by_part(config: AnyConfig, length: int) -> dict[str, int]:
    """Matrix-multiply FLOPs of predicting `length` tokens in a row, a multiply and an add counted as two.

    Attention is counted as all length x length scores, also those that the mask hides.
    """
    if isinstance(config, MLPConfig):
        return mlp.flops_by_part(config, length)
    d, layers = config.d_model, config.n_layers
    q, kv = config.n_heads * config.head_width, config.kv_heads * config.head_width
    matrices = 3 if config.activation == "swiglu" else 2
    return {
        "attention.qkv": layers * 2 * length * d * (q + 2 * kv),
        "attention.scores": layers * 2 * length * length * q,
        "attention.mix": layers * 2 * length * length * q,
        "attention.out": layers * 2 * length * q * d,
        "feed_forward": layers * matrices * 2 * length * d * config.ff_width,
        "head": 2 * length * d * config.vocab_size,
    }


def training_flops_per_token(config: AnyConfig, length: int) -> float:
    """Forward and backward matrix-multiply FLOPs a token: the backward pass costs twice the forward."""
    return 3 * sum(flops_by_part(config, length).values()) / length


def cache_elements_per_token(config: AnyConfig) -> int:
    """Numbers that the KV cache keeps for each token: a key and a value in every layer and key head.

    Windows do not shorten it: the cache keeps all tokens. An mlp has none.
    """
    if isinstance(config, MLPConfig):
        return 0
    return 2 * config.n_layers * config.kv_heads * config.head_width
