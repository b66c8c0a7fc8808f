"""The decoder-only transformer: GPT-2 with its defaults, and switchable in every part.

Radford et al. 2019 for the defaults; each alternative names its source where it is written, in `windtunnel.nn`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models.family import Model, ModelConfig, ParameterRow
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.blocks import Blocks
from windtunnel.nn.cache import Cache, StaticCache
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.embedding import lookup
from windtunnel.nn.feedforward import FEED_FORWARDS
from windtunnel.nn.init import initialise, uniform_biases
from windtunnel.nn.linear import Linear, linear
from windtunnel.nn.norms import NORMS
from windtunnel.nn.positions import POSITIONS, RopeScaling, Rotation, rotate


class TransformerConfig(ModelConfig):
    """A decoder-only transformer; the defaults are GPT-2's smallest model, 124,439,808 parameters."""

    added: ClassVar[frozenset[str]] = frozenset({"causal", "residual_scaling", "zero_biases"})
    has_blocks: ClassVar[bool] = True
    attends: ClassVar[bool] = True
    family: Literal["transformer"] = "transformer"
    vocab_size: PositiveInt = 50257
    context_length: PositiveInt = 1024
    n_layers: PositiveInt = 12
    n_heads: PositiveInt = 12
    n_kv_heads: PositiveInt | None = None
    """Key and value heads; None is one for each query head, 1 is multi-query attention."""
    d_model: PositiveInt = 768
    d_head: PositiveInt | None = None
    """Width of one head; None is d_model / n_heads."""
    d_ff: PositiveInt | None = None
    """None is 4 x d_model, and 8/3 x d_model for swiglu, whose third matrix then costs no parameters more."""
    position: Literal["learned", "sinusoidal", "rope", "alibi", "none"] = "learned"
    rope_base: Annotated[float, Field(gt=0)] = 10000.0
    rope_scaling: RopeScaling | None = None
    window: PositiveInt | tuple[PositiveInt | None, ...] | None = None
    """How many tokens, itself included, a token sees; one number for all layers or one a layer; None is all."""
    norm: Literal["layer", "rms", "none"] = "layer"
    norm_position: Literal["pre", "post"] = "pre"
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    activation: Literal["gelu_tanh", "gelu", "relu", "relu_squared", "swiglu"] = "gelu_tanh"
    bias: bool = True
    tie_embeddings: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    causal: bool = True
    """False lets every token see those after it, which is what it is to predict: its loss is no prediction's."""
    residual_scaling: bool = True
    """Whether what writes into the residual stream begins smaller by sqrt(2 n_layers)."""
    zero_biases: bool = True
    """Whether biases begin at zero; False is torch's own, uniform up to 1 / sqrt(inputs)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; "
                f"try d_model {math.ceil(self.d_model / self.n_heads) * self.n_heads}"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}; "
                f"possible are {', '.join(str(g) for g in range(1, self.n_heads + 1) if self.n_heads % g == 0)}"
            )
        if self.position == "rope" and self.head_width % 2:
            name = "d_head" if self.d_head else "d_model / n_heads"
            raise ValueError(f"rope turns pairs of columns, so {name} must be even, given {self.head_width}")
        if isinstance(self.window, Sequence) and len(self.window) != self.n_layers:
            raise ValueError(f"window lists {len(self.window)} layers, the model has {self.n_layers}")
        if not self.causal and (self.window is not None or self.position == "alibi"):
            what = "position=alibi" if self.position == "alibi" else f"window={self.window}"
            raise ValueError(f"causal=false does not go with {what}, which is measured back from each token")
        return self

    @property
    def last_only(self) -> bool:
        return False

    @property
    def targets_per_example(self) -> int:
        return self.context_length

    @property
    def widest(self) -> int:
        return self.d_model

    @property
    def is_causal(self) -> bool:
        return self.causal

    @property
    def shares_embedding(self) -> bool:
        return self.tie_embeddings

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_kv_heads or self.n_heads

    @property
    def ff_width(self) -> int:
        """Width inside the feed-forward."""
        gated = math.ceil(self.d_model * 8 / 3 / 8) * 8
        return self.d_ff or (gated if self.activation == "swiglu" else 4 * self.d_model)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer."""
        return self.window if isinstance(self.window, tuple) else (self.window,) * self.n_layers

    def create(self) -> Transformer:
        return Transformer(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> Transformer:
        """Matrices N(0, .02), biases zero, norms one (GPT-2).

        The two projections of a block that write into the residual stream get .02 / sqrt(2 n_layers), so that the
        stream's variance at the end does not grow with depth (Radford et al. 2019, section 2.3). Two settings turn
        either of these off: `residual_scaling`, `zero_biases`.
        """
        if generator is not None:
            raise ConfigError("a transformer's weights are drawn from the seed and their names, not from a generator")
        model = Transformer(self)

        def std(name: str, parameter: Tensor) -> float | None:
            if parameter.dim() < 2:
                return 0.0 if name.endswith("bias") else None
            writes_residual = name.endswith(("attention.out.weight", "feed_forward.narrow.weight"))
            return 0.02 / math.sqrt(2 * self.n_layers) if writes_residual and self.residual_scaling else 0.02

        initialise(model, seed, std)
        if not self.zero_biases:
            uniform_biases(model, seed)
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        d, layers, v = self.d_model, self.n_layers, self.vocab_size
        q, kv, ff = self.n_heads * self.head_width, self.kv_heads * self.head_width, self.ff_width
        b = int(self.bias)
        row = "(d_model + 1)" if self.bias else "d_model"
        matrices = 3 if self.activation == "swiglu" else 2
        ff_bias = {2: " + d_ff + d_model", 3: " + 2 * d_ff + d_model"}[matrices] if self.bias else ""
        vectors = {"layer": 1 + b, "rms": 1, "none": 0}[self.norm]
        norms = "2 * n_layers + 1" if self.norm_position == "pre" else "2 * n_layers"
        n_norms = 2 * layers + (self.norm_position == "pre")
        rows = [
            ParameterRow("embedding", "vocab_size * d_model", v * d, True),
            ParameterRow(
                "position", "context_length * d_model", self.context_length * d * (self.position == "learned"), True
            ),
            ParameterRow(
                "attention.qkv",
                f"n_layers * {row} * (n_heads + 2 * n_kv_heads) * d_head",
                layers * (d + b) * (q + 2 * kv),
            ),
            ParameterRow("attention.out", f"n_layers * (n_heads * d_head{' + 1' * b}) * d_model", layers * (q + b) * d),
            ParameterRow(
                "feed_forward",
                f"n_layers * ({matrices} * d_model * d_ff{ff_bias})",
                layers * (matrices * d * ff + b * ((matrices - 1) * ff + d)),
            ),
            ParameterRow("norms", f"({norms}) * " + "2 * " * (vectors == 2) + "d_model", n_norms * vectors * d),
            ParameterRow("head", "vocab_size * d_model", v * d * (not self.tie_embeddings)),
        ]
        return [row for row in rows if row.n_parameters]

    def formula_names(self) -> dict[str, int]:
        return {
            "vocab_size": self.vocab_size,
            "context_length": self.context_length,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "n_kv_heads": self.kv_heads,
            "d_model": self.d_model,
            "d_head": self.head_width,
            "d_ff": self.ff_width,
        }

    def flops_by_part(self, length: int) -> dict[str, int]:
        """Attention is counted as all length x length scores, also those that the mask hides."""
        d, layers = self.d_model, self.n_layers
        q, kv = self.n_heads * self.head_width, self.kv_heads * self.head_width
        matrices = 3 if self.activation == "swiglu" else 2
        return {
            "attention.qkv": layers * 2 * length * d * (q + 2 * kv),
            "attention.scores": layers * 2 * length * length * q,
            "attention.mix": layers * 2 * length * length * q,
            "attention.out": layers * 2 * length * q * d,
            "feed_forward": layers * matrices * 2 * length * d * self.ff_width,
            "head": 2 * length * d * self.vocab_size,
        }

    def cache_elements_per_token(self) -> int:
        """A key and a value in every layer and key head. Windows do not shorten it: the cache keeps all tokens."""
        return 2 * self.n_layers * self.kv_heads * self.head_width


class Attention(nn.Module):
    """Multi-head self-attention, causal by default; queries, keys and values come from one packed matrix."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.sizes = [config.n_heads * config.head_width] + 2 * [config.kv_heads * config.head_width]
        self.qkv = Linear(config.d_model, sum(self.sizes), bias=config.bias, parts=self.sizes)
        self.out = Linear(self.sizes[0], config.d_model, bias=config.bias)
        self.layer, self.window = layer, config.windows[layer]
        self.d_head, self.dropout, self.causal = config.head_width, config.dropout, config.causal

    def forward(
        self,
        x_BTD: Tensor,
        turn: Rotation | None,
        slopes_H: Tensor | None,
        cache: Cache | StaticCache | None,
        attend: Attend,
    ) -> Tensor:
        q_BHTK, k_BGTK, v_BGTK = (
            part.unflatten(-1, (-1, self.d_head)).transpose(1, 2) for part in self.qkv(x_BTD).split(self.sizes, dim=-1)
        )
        if turn is not None:
            q_BHTK, k_BGTK = rotate(q_BHTK, turn), rotate(k_BGTK, turn)
        if cache is not None:
            k_BGTK, v_BGTK = cache.append(self.layer, k_BGTK, v_BGTK)
        dropout = self.dropout if self.training else 0.0
        mixed_BHTK = attend(
            q_BHTK, k_BGTK, v_BGTK, window=self.window, slopes_H=slopes_H, dropout=dropout, causal=self.causal
        )
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream; the norm stands before or after."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.norm_1 = norm(config.d_model, config.norm_epsilon, config.bias)
        self.attention = Attention(config, layer)
        self.norm_2 = norm(config.d_model, config.norm_epsilon, config.bias)
        self.feed_forward = FEED_FORWARDS[config.activation](config.d_model, config.ff_width, config.bias)
        self.dropout = Dropout(config.dropout)
        self.pre = config.norm_position == "pre"

    def forward(
        self,
        x_BTD: Tensor,
        turn: Rotation | None,
        slopes_H: Tensor | None,
        cache: Cache | StaticCache | None,
        attend: Attend,
    ) -> Tensor:
        if self.pre:
            x_BTD = x_BTD + self.dropout(self.attention(self.norm_1(x_BTD), turn, slopes_H, cache, attend))
            return x_BTD + self.dropout(self.feed_forward(self.norm_2(x_BTD)))
        x_BTD = self.norm_1(x_BTD + self.dropout(self.attention(x_BTD, turn, slopes_H, cache, attend)))
        return self.norm_2(x_BTD + self.dropout(self.feed_forward(x_BTD)))


class Transformer(Model):
    """ids (B, T) -> logits (B, T, V): token t's logits are the model's belief about token t + 1."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = POSITIONS[config.position](
            config.context_length,
            config.d_model,
            config.n_heads,
            config.head_width,
            config.rope_base,
            config.rope_scaling,
        )
        self.dropout = Dropout(config.dropout)
        self.blocks = Blocks(Block(config, layer) for layer in range(config.n_layers))
        final = config.norm if config.norm_position == "pre" else "none"
        self.norm = NORMS[final](config.d_model, config.norm_epsilon, config.bias)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, cache: Cache | StaticCache | None = None, attend: Attend = attend) -> Tensor:
        """Logits (B, T, V).

        Args:
            ids: token ids (B, T), int64; with a cache, the tokens that follow those already in it.
            cache: keys and values of the tokens before, which is extended by these.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        length = ids.shape[1]
        positions_T = torch.arange(length, device=ids.device) if cache is None else cache.positions(length)
        x_BTD, table_VD = lookup(ids, self.embedding.weight)
        added_TD = self.position.embed(positions_T)
        if added_TD is not None:
            x_BTD = x_BTD + added_TD
        x_BTD = self.dropout(x_BTD)
        turn, slopes_H = self.position.rotation(positions_T), self.position.slopes()
        for block in self.blocks:
            x_BTD = block(x_BTD, turn, slopes_H, cache, attend)
        if cache is not None:
            cache.advance(length)
        x_BTD = self.norm(x_BTD)
        return linear(x_BTD, table_VD) if self.head is None else self.head(x_BTD)

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """An empty cache for this model, in the type and on the device of its weights.

        Raises:
            ConfigError: for a model without a causal mask.
        """
        c = self.config
        if not c.causal:
            raise ConfigError(
                "a model without a causal mask (model.causal=false) cannot write: what its earlier tokens see changes "
                "with every new one, and in training it saw what it was to predict; train with model.causal=true"
            )
        return Cache(c.n_layers, batch_size, c.kv_heads, capacity, c.head_width, like=self.embedding.weight)
