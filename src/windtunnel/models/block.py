"""The block that encoders and decoders are made of: attention, cross-attention where there is a memory, feed-forward.

Vaswani et al. 2017 (arXiv 1706.03762), and Radford et al. 2019 for the defaults; each alternative names its source
where it is written, in `windtunnel.nn`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.models.family import ModelConfig
from windtunnel.nn.attention import Attend, Mask
from windtunnel.nn.cache import Cache, StaticCache
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.feedforward import ACTIVATIONS, FEED_FORWARDS, OneLayer
from windtunnel.nn.linear import Linear
from windtunnel.nn.norms import NORMS, RMSNorm
from windtunnel.nn.positions import RopeScaling, Rotation, rotate


class Biases(NamedTuple):
    """Which parts of a block have biases."""

    norms: bool
    qkv: bool
    out: bool
    feed_forward: bool


class BlocksConfig(ModelConfig):
    """The switches of a stack of blocks; the defaults are those of GPT-2's smallest model."""

    added: ClassVar[frozenset[str]] = frozenset(
        {
            "residual_scaling", "zero_biases", "out_projection", "feed_forward_layers", "head_bias", "embedding_norm",
            "norm_bias", "qkv_bias", "out_bias", "feed_forward_bias", "qk_norm", "rotary_fraction", "parallel",
        }
    )  # fmt: skip
    has_blocks: ClassVar[bool] = True
    attends: ClassVar[bool] = True
    vocab_size: PositiveInt = 50257
    context_length: PositiveInt = 1024
    n_layers: PositiveInt = 12
    """Blocks, one after another."""
    n_heads: PositiveInt = 12
    """Query heads of each attention."""
    n_kv_heads: PositiveInt | None = None
    """Key and value heads; None is one for each query head, 1 is multi-query attention."""
    d_model: PositiveInt = 768
    """Width of a token's vector between the blocks."""
    d_head: PositiveInt | None = None
    """Width of one head; None is d_model / n_heads."""
    d_ff: PositiveInt | None = None
    """Width of the feed-forward; None is 4 x d_model, and 8/3 x d_model for swiglu, whose third matrix then costs no
    parameters more."""
    position: Literal["learned", "sinusoidal", "rope", "alibi", "none"] = "learned"
    """How the order of tokens is told: by vectors added to the embeddings (learned, sinusoidal), by turning queries and
    keys (rope), by a penalty on distance (alibi), or not at all."""
    rope_base: Annotated[float, Field(gt=0)] = 10000.0
    """For rope: the slowest pair of columns turns about 1 / rope_base radians a token."""
    rope_scaling: RopeScaling | None = None
    """For rope: slower angles, e.g. {"kind": "linear", "factor": 2}, so that the model reads further; None is none."""
    rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How much of a head is turned, its first columns; 1 is all of it."""
    window: PositiveInt | tuple[PositiveInt | None, ...] | None = None
    """How many tokens, itself included, a token sees; one number for all layers or one a layer; None is all."""
    norm: Literal["layer", "rms", "none"] = "layer"
    """Layer norm, RMS norm (no mean is subtracted), or none."""
    norm_position: Literal["pre", "post", "branch"] = "pre"
    """pre is x + f(norm(x)), post is norm(x + f(x)) as in Vaswani et al. 2017, branch is x + norm(f(x)) as in OLMo 2
    (arXiv 2501.00656)."""
    embedding_norm: bool = False
    """Whether the embeddings are normalised before the first block, as in BERT."""
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """Added to the variance that a norm divides by."""
    activation: Literal["gelu_tanh", "gelu", "quick_gelu", "relu", "relu_squared", "swiglu"] = "gelu_tanh"
    """Of the feed-forward; swiglu has a gate, and so a third matrix."""
    bias: bool = True
    """Whether the linear layers and norms of the blocks have biases."""
    norm_bias: bool | None = None
    """Whether norms have a bias; None is as `bias` says."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values have a bias; None is as `bias` says."""
    out_bias: bool | None = None
    """Whether the matrix that mixes the heads has a bias; None is as `bias` says."""
    feed_forward_bias: bool | None = None
    """Whether the feed-forward has biases; None is as `bias` says."""
    qk_norm: Literal["none", "head", "whole"] = "none"
    """RMS norm of queries and keys before they are turned: of each head's, as in Qwen3, or of all heads' together."""
    parallel: bool = False
    """Whether attention and feed-forward read the same vector, and both are added to it, as in GPT-NeoX."""
    tie_embeddings: bool = True
    """Whether the head's matrix is the table of embeddings."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of elements that training sets to 0, in embeddings, attention weights and what each block adds."""
    residual_scaling: bool = True
    """Whether what writes into the residual stream begins smaller by sqrt(2 n_layers)."""
    zero_biases: bool = True
    """Whether biases begin at zero; False is torch's own, uniform up to 1 / sqrt(inputs)."""
    out_projection: bool = True
    """Whether a matrix mixes the heads' outputs; False needs n_heads * d_head to be d_model."""
    feed_forward_layers: Literal[1, 2] = 2
    """1 is activation(linear(x)) of width d_model, without a second matrix."""
    head_bias: bool = False
    """Whether the logits have a bias; it needs a head of its own: tie_embeddings=false."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; give "
                f"{_heads_that_fit(self.d_model, self.n_heads)}"
            )
        if self.n_heads % self.kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}; possible are "
                f"{', '.join(str(g) for g in range(1, min(self.n_heads, 512) + 1) if self.n_heads % g == 0)}"
            )
        if self.position == "rope" and (self.rotary_width % 2 or not self.rotary_width):
            name = "d_head" if self.d_head else "d_model / n_heads"
            name += " * rotary_fraction" * (self.rotary_fraction < 1)
            raise ValueError(f"rope turns pairs of columns, so {name} must be even, given {self.rotary_width}")
        if self.parallel and self.norm_position != "pre":
            raise ValueError(f"parallel=true goes with norm_position=pre only, given {self.norm_position}")
        if isinstance(self.window, Sequence) and len(self.window) != self.n_layers:
            raise ValueError(f"window lists {len(self.window)} layers, the model has {self.n_layers}")
        if not self.out_projection and self.n_heads * self.head_width != self.d_model:
            raise ValueError(
                f"out_projection=false adds the heads to the stream as they are, so n_heads * d_head must be d_model, "
                f"given {self.n_heads} * {self.head_width} and {self.d_model}"
            )
        if self.feed_forward_layers == 1 and self.activation == "swiglu":
            raise ValueError("feed_forward_layers=1 has no second matrix for a gate to act on; give activation=relu")
        if self.head_bias and self.tie_embeddings:
            raise ValueError("head_bias=true needs a head of its own; give tie_embeddings=false, too")
        return self

    @property
    def targets_per_example(self) -> int:
        return self.context_length

    @property
    def widest(self) -> int:
        return self.d_model

    @property
    def shares_embedding(self) -> bool:
        return self.tie_embeddings

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def rotary_width(self) -> int:
        """How many columns of a head are turned, where positions are rotary."""
        return int(self.head_width * self.rotary_fraction)

    @property
    def biases(self) -> Biases:
        """Which parts have biases."""
        parts = (self.norm_bias, self.qkv_bias, self.out_bias, self.feed_forward_bias)
        return Biases(*(self.bias if part is None else part for part in parts))

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


def _heads_that_fit(d_model: int, n_heads: int) -> str:
    """The numbers of heads next to this one that divide d_model, and the nearest d_model; heads stay even."""
    fit = [n for n in range(1, min(d_model, 512) + 1) if d_model % n == 0 and d_model // n % 2 == d_model % 2]
    nearest = [max((n for n in fit if n < n_heads), default=None), min((n for n in fit if n > n_heads), default=None)]
    width = max(1, round(d_model / (2 * n_heads))) * 2 * n_heads
    return f"n_heads {' or '.join(str(n) for n in nearest if n)}, or d_model {width}"


class Memory(NamedTuple):
    """What an encoder made of sources, for cross-attention to read."""

    hidden_BSE: Tensor
    kept_BS: Tensor | None = None
    """False where a source is padding; None is no padding."""

    def select(self, rows_B: Tensor) -> Memory:
        """Row i of the result is row rows_B[i] of this."""
        kept = None if self.kept_BS is None else self.kept_BS[rows_B]
        return Memory(self.hidden_BSE[rows_B], kept)


class Pass(NamedTuple):
    """What all blocks of one forward pass share."""

    mask: Mask
    rotary: Rotation | None
    cache: Cache | StaticCache | None
    attend: Attend
    memory: Memory | None = None


def heads(x_BTN: Tensor, d_head: int) -> Tensor:
    """Heads that lie side by side, (B, T, H * K), apart: (B, H, T, K)."""
    return torch.unflatten(x_BTN, -1, (-1, d_head)).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, causal by default; queries, keys and values come from one packed matrix."""

    def __init__(self, config: BlocksConfig, layer: int) -> None:
        super().__init__()
        self.sizes = [config.n_heads * config.head_width] + 2 * [config.kv_heads * config.head_width]
        self.qkv = Linear(config.d_model, sum(self.sizes), bias=config.biases.qkv, parts=self.sizes)
        self.each_head = config.qk_norm == "head"
        self.q_norm = self.k_norm = None
        if config.qk_norm != "none":
            widths = 2 * [config.head_width] if self.each_head else self.sizes
            self.q_norm = RMSNorm(widths[0], config.norm_epsilon, bias=False)
            self.k_norm = RMSNorm(widths[1], config.norm_epsilon, bias=False)
        self.out = out_projection(config)
        self.layer, self.window = layer, config.windows[layer]
        self.n_heads, self.d_head, self.dropout = config.n_heads, config.head_width, config.dropout

    def forward(self, x_BTD: Tensor, shared: Pass) -> Tensor:
        q, k, v = self.qkv(x_BTD).split(self.sizes, dim=-1)
        if self.q_norm is not None and self.k_norm is not None and not self.each_head:
            q, k = self.q_norm(q), self.k_norm(k)
        q_BHTK, k_BGTK, v_BGTK = (heads(part, self.d_head) for part in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None and self.each_head:
            q_BHTK, k_BGTK = self.q_norm(q_BHTK), self.k_norm(k_BGTK)
        if shared.rotary is not None:
            q_BHTK, k_BGTK = rotate(q_BHTK, shared.rotary), rotate(k_BGTK, shared.rotary)
        if shared.cache is not None:
            k_BGTK, v_BGTK = shared.cache.append(self.layer, k_BGTK, v_BGTK)
        dropout = self.dropout if self.training else 0.0
        mixed_BHTK = shared.attend(q_BHTK, k_BGTK, v_BGTK, shared.mask._replace(window=self.window), dropout)
        mixed_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return mixed_BTD


class CrossAttention(nn.Module):
    """Multi-head attention whose queries are of the target and whose keys and values are of the memory, all of it."""

    def __init__(self, config: BlocksConfig, layer: int, d_memory: int) -> None:
        super().__init__()
        sizes = 2 * [config.kv_heads * config.head_width]
        self.q = Linear(config.d_model, config.n_heads * config.head_width, bias=config.biases.qkv)
        self.kv = Linear(d_memory, sum(sizes), bias=config.biases.qkv, parts=sizes)
        self.out = out_projection(config)
        self.layer, self.n_heads = layer, config.n_heads
        self.d_head, self.dropout = config.head_width, config.dropout

    def forward(self, x_BTD: Tensor, shared: Pass) -> Tensor:
        assert shared.memory is not None
        q_BHTK = heads(self.q(x_BTD), self.d_head)
        k_BGSK, v_BGSK = self._keys_and_values(shared.memory, shared.cache)
        mask = Mask(causal=False, kept_BS=shared.memory.kept_BS)
        mixed_BHTK = shared.attend(q_BHTK, k_BGSK, v_BGSK, mask, self.dropout if self.training else 0.0)
        mixed_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return mixed_BTD

    def _keys_and_values(self, memory: Memory, cache: Cache | StaticCache | None) -> tuple[Tensor, Tensor]:
        """Of the memory, each (B, G, S, K); with a cache they are computed for the first token and kept."""
        kept = cache.of_memory if isinstance(cache, Cache) else {}
        if self.layer not in kept:
            keys, values = self.kv(memory.hidden_BSE).chunk(2, dim=-1)
            kept[self.layer] = heads(keys, self.d_head), heads(values, self.d_head)
        return kept[self.layer]


def out_projection(config: BlocksConfig) -> Linear | nn.Identity:
    """What takes the heads, side by side, to the width of the residual stream."""
    if not config.out_projection:
        return nn.Identity()
    return Linear(config.n_heads * config.head_width, config.d_model, bias=config.biases.out)


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream; the norm stands before or after.

    With the width of a memory, cross-attention stands between the two.
    """

    def __init__(self, config: BlocksConfig, layer: int, d_memory: int | None = None) -> None:
        super().__init__()
        norm, biases = NORMS[config.norm], config.biases
        self.norm_1 = norm(config.d_model, config.norm_epsilon, biases.norms)
        self.attention = Attention(config, layer)
        self.norm_2 = norm(config.d_model, config.norm_epsilon, biases.norms)
        if config.feed_forward_layers == 1:
            self.feed_forward: nn.Module = OneLayer(config.d_model, biases.feed_forward, ACTIVATIONS[config.activation])
        else:
            feed_forward = FEED_FORWARDS[config.activation]
            self.feed_forward = feed_forward(config.d_model, config.ff_width, biases.feed_forward)
        self.dropout = Dropout(config.dropout)
        self.residual, self.parallel = RESIDUALS[config.norm_position], config.parallel
        self.cross_attention = None
        if d_memory is not None:
            self.cross_norm = norm(config.d_model, config.norm_epsilon, biases.norms)
            self.cross_attention = CrossAttention(config, layer, d_memory)

    def forward(self, x_BTD: Tensor, shared: Pass) -> Tensor:
        def attention(x_BTD: Tensor) -> Tensor:
            mixed_BTD: Tensor = self.attention(x_BTD, shared)
            return mixed_BTD

        if self.parallel:
            mixed_BTD = self.dropout(attention(self.norm_1(x_BTD)))
            return x_BTD + mixed_BTD + self.dropout(self.feed_forward(self.norm_2(x_BTD)))
        x_BTD = self.residual(x_BTD, self.norm_1, attention, self.dropout)
        if self.cross_attention is not None:
            cross = self.cross_attention
            x_BTD = self.residual(x_BTD, self.cross_norm, lambda x_BTD: cross(x_BTD, shared), self.dropout)
        return self.residual(x_BTD, self.norm_2, self.feed_forward, self.dropout)


Function = Callable[[Tensor], Tensor]


def _pre(x_BTD: Tensor, norm: Function, f: Function, dropout: Function) -> Tensor:
    return x_BTD + dropout(f(norm(x_BTD)))


def _post(x_BTD: Tensor, norm: Function, f: Function, dropout: Function) -> Tensor:
    return norm(x_BTD + dropout(f(x_BTD)))


def _branch(x_BTD: Tensor, norm: Function, f: Function, dropout: Function) -> Tensor:
    return x_BTD + dropout(norm(f(x_BTD)))


RESIDUALS: dict[str, Callable[[Tensor, Function, Function, Function], Tensor]] = {
    "pre": _pre,
    "post": _post,
    "branch": _branch,
}
"""How a part f of a block is added to the residual stream, by `norm_position`."""
