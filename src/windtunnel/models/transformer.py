"""The decoder-only transformer: GPT-2 with its defaults, and switchable in every part.

Radford et al. 2019 for the defaults; each alternative names its source where it is written, in `windtunnel.nn`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models.block import Block, BlocksConfig, Memory, Pass
from windtunnel.models.family import Model, ParameterRow, Reads
from windtunnel.nn.attention import Attend, Mask, attend
from windtunnel.nn.blocks import Blocks
from windtunnel.nn.cache import Cache, StaticCache
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.embedding import lookup
from windtunnel.nn.init import initialise, uniform_biases
from windtunnel.nn.linear import Linear, linear
from windtunnel.nn.norms import NORMS
from windtunnel.nn.positions import POSITIONS


class TransformerConfig(BlocksConfig):
    """A decoder-only transformer; the defaults are GPT-2's smallest model, 124,439,808 parameters."""

    added: ClassVar[frozenset[str]] = BlocksConfig.added | {"causal"}
    family: Literal["transformer"] = "transformer"
    causal: bool = True
    """False lets every token see those after it, which is what it is to predict: its loss is no prediction's."""

    @model_validator(mode="after")
    def _looks_one_way(self) -> Self:
        if not self.causal and (self.window is not None or self.position == "alibi"):
            what = "position=alibi" if self.position == "alibi" else f"window={self.window}"
            raise ValueError(f"causal=false does not go with {what}, which is measured back from each token")
        return self

    @property
    def is_causal(self) -> bool:
        return self.causal

    @property
    def reads(self) -> Reads:
        return "stream"

    def create(self) -> Transformer:
        return Transformer(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> Transformer:
        """As `fill` does it, GPT-2's way by default."""
        self.refuse_generator(generator)
        model = Transformer(self)
        fill(model, self, seed, {"": 2 * self.n_layers})
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        d, layers, v = self.d_model, self.n_layers, self.vocab_size
        q, kv = self.n_heads * self.head_width, self.kv_heads * self.head_width
        b, w = int(self.biases.qkv), norm_vectors(self)
        row = "(d_model + 1)" if b else "d_model"
        alone = (self.norm_position != "post") + self.embedding_norm
        norms, n_norms = f"2 * n_layers + {alone}" if alone else "2 * n_layers", 2 * layers + alone
        plus = " + 1" * self.head_bias
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
            self._qk_norm_row(),
            out_row("attention.out", self),
            self._feed_forward_row(),
            ParameterRow("norms", f"({norms}) * " + "2 * " * (w == 2) + "d_model", n_norms * w * d),
            ParameterRow("head", f"vocab_size * (d_model{plus})", v * (d + self.head_bias) * (not self.tie_embeddings)),
        ]
        return [row for row in rows if row.n_parameters]

    def _qk_norm_row(self) -> ParameterRow:
        formula = {"none": "0", "head": "2 * d_head", "whole": "(n_heads + n_kv_heads) * d_head"}[self.qk_norm]
        n = {"none": 0, "head": 2, "whole": self.n_heads + self.kv_heads}[self.qk_norm] * self.head_width
        return ParameterRow("attention.qk_norm", f"n_layers * {formula}", self.n_layers * n)

    def _feed_forward_row(self) -> ParameterRow:
        d, ff, b = self.d_model, self.ff_width, int(self.biases.feed_forward)
        if self.feed_forward_layers == 1:
            formula = f"n_layers * (d_model{' + 1' * b}) * d_model"
            return ParameterRow("feed_forward", formula, self.n_layers * (d + b) * d)
        n = feed_forward_matrices(self)
        biases = {2: " + d_ff + d_model", 3: " + 2 * d_ff + d_model"}[n] if b else ""
        n_parameters = self.n_layers * (n * d * ff + b * ((n - 1) * ff + d))
        return ParameterRow("feed_forward", f"n_layers * ({n} * d_model * d_ff{biases})", n_parameters)

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

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Attention is counted as all length x length scores, also those that the mask hides."""
        d, layers = self.d_model, self.n_layers
        q, kv = self.n_heads * self.head_width, self.kv_heads * self.head_width
        inside = d * d if self.feed_forward_layers == 1 else feed_forward_matrices(self) * d * self.ff_width
        return {
            "attention.qkv": layers * 2 * length * d * (q + 2 * kv),
            "attention.scores": layers * 2 * length * length * q,
            "attention.mix": layers * 2 * length * length * q,
            "attention.out": layers * 2 * length * q * d * self.out_projection,
            "feed_forward": layers * 2 * length * inside,
            "head": 2 * length * d * self.vocab_size,
        }

    def cache_elements_per_token(self) -> int:
        """A key and a value in every layer and key head. Windows do not shorten it: the cache keeps all tokens."""
        return 2 * self.n_layers * self.kv_heads * self.head_width


def feed_forward_matrices(config: BlocksConfig) -> int:
    """How many matrices of d_model x d_ff a feed-forward of two layers has."""
    return 3 if config.activation == "swiglu" else 2


def norm_vectors(config: BlocksConfig) -> int:
    """How many vectors of d_model a norm has."""
    return {"layer": 1 + config.biases.norms, "rms": 1, "none": 0}[config.norm]


def out_row(module: str, config: BlocksConfig) -> ParameterRow:
    """The matrices that take the heads of every layer to the residual stream."""
    d, q, b = config.d_model, config.n_heads * config.head_width, int(config.biases.out)
    formula = f"n_layers * (n_heads * d_head{' + 1' * b}) * d_model"
    return ParameterRow(module, formula, config.n_layers * (q + b) * d * config.out_projection)


def fill(model: Model, config: BlocksConfig, seed: int, writes: Mapping[str, int]) -> None:
    """Matrices N(0, .02), biases zero, norms one (GPT-2).

    The projections of a block that write into the residual stream get .02 / sqrt(number of writes), so that the
    stream's variance at the end does not grow with depth (Radford et al. 2019, section 2.3). Two settings turn either
    of these off: `residual_scaling`, `zero_biases`.

    Args:
        writes: how often, in the modules whose names begin so: twice a layer, with cross-attention three times.
    """

    def std(name: str, parameter: Tensor) -> float | None:
        return spread(config, name, parameter, next((n for start, n in writes.items() if name.startswith(start)), 1))

    initialise(model, seed, std)
    if not config.zero_biases:
        uniform_biases(model, seed)


def spread(config: BlocksConfig, name: str, parameter: Tensor, writes: int) -> float | None:
    """The standard deviation of a parameter of a stack of blocks, see `fill`; None leaves it as it was built."""
    writers = ("attention.out.weight", "feed_forward.narrow.weight", "feed_forward.linear.weight")
    if parameter.dim() < 2:
        return 0.0 if name.endswith("bias") else None
    return 0.02 / math.sqrt(writes) if name.endswith(writers) and config.residual_scaling else 0.02


class Transformer(Model):
    """ids (B, T) -> logits (B, T, V): token t's logits are the model's belief about token t + 1."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig, d_memory: int | None = None) -> None:
        """Args:
        d_memory: width of the vectors that every block's cross-attention reads; None is a model without.
        """
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = POSITIONS[config.position](
            config.context_length,
            config.d_model,
            config.n_heads,
            config.rotary_width,
            config.rope_base,
            config.rope_scaling,
        )
        norm, of_norms = NORMS[config.norm], (config.d_model, config.norm_epsilon, config.biases.norms)
        self.embedding_norm = norm(*of_norms) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)
        self.blocks = Blocks(Block(config, layer, d_memory) for layer in range(config.n_layers))
        self.norm = NORMS[config.norm if config.norm_position != "post" else "none"](*of_norms)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size, config.head_bias)

    def forward(
        self,
        ids: Tensor,
        cache: Cache | StaticCache | None = None,
        attend: Attend = attend,
        kept: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of `hidden`."""
        return self.logits(*self._read(ids, cache, attend, kept, memory))

    def logits(self, x_BTD: Tensor, table_VD: Tensor | None = None) -> Tensor:
        """What the head makes of the vectors of `hidden`, (B, T, V); a tied one takes the table, or the embedding's."""
        if self.head is not None:
            return self.head(x_BTD)
        return linear(x_BTD, self.embedding.weight if table_VD is None else table_VD)

    def hidden(
        self,
        ids: Tensor,
        cache: Cache | StaticCache | None = None,
        attend: Attend = attend,
        kept: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """The vectors (B, T, D) that the head reads.

        Args:
            ids: (B, T) token ids; with a cache, the tokens that follow those already in it.
            cache: keys and values of the tokens before, which is extended by these.
            attend: the attention function; inspection passes one that keeps its weights.
            kept: (B, S) bool, False where a token, of the cache or of the ids, is padding before or after a row's own.
                A row's own tokens get the vectors that they would have alone; those of padding mean nothing.
            memory: what cross-attention reads, where the blocks have it.
        """
        return self._read(ids, cache, attend, kept, memory)[0]

    def _read(
        self,
        ids_BT: Tensor,
        cache: Cache | StaticCache | None,
        attend: Attend,
        kept_BS: Tensor | None,
        memory: Memory | None,
    ) -> tuple[Tensor, Tensor]:
        """The hidden vectors (B, T, D), and the table (V, D) as a tied head is to use it; see `lookup`."""
        length = ids_BT.shape[1]
        positions_T = torch.arange(length, device=ids_BT.device) if cache is None else cache.positions(length)
        x_BTD, table_VD = lookup(ids_BT, self.embedding.weight)
        own = positions_T if kept_BS is None else (kept_BS.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]
        added = self.position.embed(own)
        if added is not None:
            x_BTD = x_BTD + added
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        x_BTD = self.dropout(x_BTD)
        # Rotations and slopes measure distances, which padding before a row leaves alone.
        mask = Mask(self.config.causal, slopes_H=self.position.slopes(), kept_BS=kept_BS)
        shared = Pass(mask, self.position.rotation(positions_T), cache, attend, memory)
        for block in self.blocks:
            x_BTD = block(x_BTD, shared)
        if cache is not None:
            cache.advance(length)
        return self.norm(x_BTD), table_VD

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
