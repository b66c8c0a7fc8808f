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

from windtunnel.config import Config
from windtunnel.errors import ConfigError
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.cache import Cache, StaticCache
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.embedding import lookup
from windtunnel.nn.feedforward import FEED_FORWARDS
from windtunnel.nn.init import initialise, uniform_biases
from windtunnel.nn.linear import Linear, linear
from windtunnel.nn.norms import NORMS
from windtunnel.nn.positions import POSITIONS, RopeScaling, Rotation, rotate


class TransformerConfig(Config):
    """A decoder-only transformer; the defaults are GPT-2's smallest model, 124,439,808 parameters."""

    added: ClassVar[frozenset[str]] = frozenset({"causal", "residual_scaling", "zero_biases"})
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
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}; possible are "
                f"{', '.join(str(g) for g in range(1, min(self.n_heads, 512) + 1) if self.n_heads % g == 0)}"
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
        """An example of a batch predicts all of its tokens but the first."""
        return False

    @property
    def targets_per_example(self) -> int:
        """How many tokens an example of a batch predicts, at most."""
        return self.context_length

    @property
    def widest(self) -> int:
        """Width of the vectors that most of the arithmetic is made of."""
        return self.d_model

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


class Attention(nn.Module):
    """Multi-head self-attention, causal by default; queries, keys and values come from one packed matrix."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.sizes = [config.n_heads * config.head_width] + 2 * [config.kv_heads * config.head_width]
        self.qkv = Linear(config.d_model, sum(self.sizes), bias=config.bias)
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


class Transformer(nn.Module):
    """ids (B, T) -> logits (B, T, V): token t's logits are the model's belief about token t + 1."""

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
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        final = config.norm if config.norm_position == "pre" else "none"
        self.norm = NORMS[final](config.d_model, config.norm_epsilon, config.bias)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor, cache: Cache | StaticCache | None = None, attend: Attend = attend) -> Tensor:
        """Logits (B, T, V).

        Args:
            ids_BT: token ids; with a cache, the tokens that follow those already in it.
            cache: keys and values of the tokens before, which is extended by these.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        length = ids_BT.shape[1]
        positions_T = torch.arange(length, device=ids_BT.device) if cache is None else cache.positions(length)
        x_BTD, table_VD = lookup(ids_BT, self.embedding.weight)
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


def build(config: TransformerConfig, seed: int) -> Transformer:
    """A freshly initialised model: matrices N(0, .02), biases zero, norms one (GPT-2).

    The two projections of a block that write into the residual stream get .02 / sqrt(2 n_layers), so that the
    stream's variance at the end does not grow with depth (Radford et al. 2019, section 2.3). Two settings turn
    either of these off: `residual_scaling`, `zero_biases`.
    """
    model = Transformer(config)

    def std(name: str, parameter: Tensor) -> float | None:
        if parameter.dim() < 2:
            return 0.0 if name.endswith("bias") else None
        writes_residual = name.endswith(("attention.out.weight", "feed_forward.narrow.weight"))
        return 0.02 / math.sqrt(2 * config.n_layers) if writes_residual and config.residual_scaling else 0.02

    initialise(model, seed, std)
    if not config.zero_biases:
        uniform_biases(model, seed)
    return model
