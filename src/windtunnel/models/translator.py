"""The encoder-decoder transformer of Vaswani et al. 2017 (arXiv 1706.03762): a source is read, then a target written.

Two transformers. The encoder sees all of the source; every block of the decoder attends to what the encoder made of it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import Config, parse
from windtunnel.errors import ConfigError
from windtunnel.models.block import BlocksConfig, Memory
from windtunnel.models.family import Model, ParameterRow, Reads
from windtunnel.models.transformer import (
    Transformer,
    TransformerConfig,
    fill,
    norm_vectors,
    out_row,
)
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.cache import Cache, StaticCache


class EncoderConfig(Config):
    """In what the encoder differs from the decoder; None is no difference."""

    n_layers: PositiveInt | None = None
    """Blocks; None is the decoder's."""
    n_heads: PositiveInt | None = None
    """Query heads; None is the decoder's."""
    n_kv_heads: PositiveInt | None = None
    """Key and value heads; None is the decoder's."""
    d_model: PositiveInt | None = None
    """Width of a token's vector; None is the decoder's."""
    d_head: PositiveInt | None = None
    """Width of one head; None is the decoder's."""
    d_ff: PositiveInt | None = None
    """Width of the feed-forward; None is the decoder's."""
    position: Literal["learned", "sinusoidal", "rope", "none"] | None = None
    """How the order of tokens is told; None is the decoder's."""
    norm: Literal["layer", "rms", "none"] | None = None
    """The kind of norm; None is the decoder's."""
    norm_position: Literal["pre", "post"] | None = None
    """Where the norms stand; None is the decoder's."""
    activation: Literal["gelu_tanh", "gelu", "quick_gelu", "relu", "relu_squared", "swiglu"] | None = None
    """Of the feed-forward; None is the decoder's."""
    bias: bool | None = None
    """Whether there are biases; None is the decoder's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of elements that training sets to 0; None is the decoder's."""


class TranslatorConfig(BlocksConfig):
    """An encoder-decoder; its own settings are the decoder's, and the encoder's where `encoder` does not differ.

    Source and target have tables of embeddings of their own; `tie_embeddings` makes the target's the head, too.
    """

    added: ClassVar[frozenset[str]] = BlocksConfig.added
    family: Literal["translator"] = "translator"
    context_length: PositiveInt = 1024
    """The most tokens of a source and of a target, each with its end mark."""
    encoder: EncoderConfig = EncoderConfig()

    @model_validator(mode="after")
    def _encoder_fits(self) -> Self:
        if self.parallel:
            raise ValueError("parallel=true is for a model of one stream; a translator attends to its source between")
        if self.position == "alibi" and self.encoder.position is None:
            raise ValueError("position=alibi looks back, as an encoder cannot; give model.encoder.position, too")
        try:
            assert self.parts
        except ConfigError as error:
            raise ValueError(f"the encoder: {error}") from None
        return self

    @property
    def parts(self) -> tuple[TransformerConfig, TransformerConfig]:
        """Encoder and decoder, each as a transformer."""
        decoder: dict[str, Any] = {name: getattr(self, name) for name in BlocksConfig.model_fields if name != "family"}
        changes = {name: value for name, value in self.encoder if value is not None}
        encoder = decoder | {"window": None, "tie_embeddings": True, "head_bias": False, "causal": False} | changes
        return parse(TransformerConfig, encoder), parse(TransformerConfig, decoder)

    @property
    def reads(self) -> Reads:
        return "pair"

    def create(self) -> Translator:
        return Translator(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> Translator:
        """As a transformer's, see `fill`; a block of the decoder writes into its stream three times."""
        self.refuse_generator(generator)
        model, (encoder, decoder) = Translator(self), self.parts
        fill(model, self, seed, {"encoder.": 2 * encoder.n_layers, "decoder.": 3 * decoder.n_layers})
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        encoder, decoder = self.parts
        of_encoder = [
            ParameterRow(f"encoder {row.module}", _of_encoder(row.formula), row.n_parameters, row.is_embedding)
            for row in encoder.parameter_rows()
        ]
        return [*of_encoder, *decoder.parameter_rows(), *self._cross_rows()]

    def _cross_rows(self) -> list[ParameterRow]:
        (encoder, decoder), b, n = self.parts, int(self.biases.qkv), norm_vectors(self)
        d, q, kv = self.d_model, self.n_heads * self.head_width, self.kv_heads * self.head_width
        plus, layers = " + 1" * b, decoder.n_layers
        rows = [
            ParameterRow("cross_attention.q", f"n_layers * (d_model{plus}) * n_heads * d_head", layers * (d + b) * q),
            ParameterRow(
                "cross_attention.kv",
                f"n_layers * (encoder_d_model{plus}) * 2 * n_kv_heads * d_head",
                layers * (encoder.d_model + b) * 2 * kv,
            ),
            out_row("cross_attention.out", self),
            ParameterRow("cross_norms", "n_layers * " + "2 * " * (n == 2) + "d_model", layers * n * d),
        ]
        return [row for row in rows if row.n_parameters]

    def formula_names(self) -> dict[str, int]:
        encoder, decoder = (part.formula_names() for part in self.parts)
        own = {f"encoder_{name}": n for name, n in encoder.items() if name not in SHARED}
        return decoder | own

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        (encoder, decoder), n_source = self.parts, length if source is None else source
        q, kv = self.n_heads * self.head_width, self.kv_heads * self.head_width
        of_encoder = {f"encoder {part}": n for part, n in encoder.flops_by_part(n_source).items() if part != "head"}
        per_layer = {
            "cross_attention.q": length * self.d_model * q,
            "cross_attention.kv": n_source * encoder.d_model * 2 * kv,
            "cross_attention.scores": length * n_source * q,
            "cross_attention.mix": length * n_source * q,
            "cross_attention.out": length * q * self.d_model * self.out_projection,
        }
        cross = {part: decoder.n_layers * 2 * n for part, n in per_layer.items()}
        return of_encoder | decoder.flops_by_part(length) | cross

    def cache_elements_per_token(self) -> int:
        """Of a token of the target; one of the source takes as many, for cross-attention."""
        return self.parts[1].cache_elements_per_token()


SHARED = ("vocab_size", "context_length")
"""What is the same in both halves."""


def _of_encoder(formula: str) -> str:
    """A formula with the encoder's own names."""
    return re.sub(r"[a-z]\w*", lambda name: name[0] if name[0] in SHARED else f"encoder_{name[0]}", formula)


class Translator(Model):
    """ids (B, T) of a target and its source (B, S) -> logits (B, T, V), each of the token after an id."""

    config: TranslatorConfig

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        encoder, decoder = config.parts
        self.config = config
        self.encoder = Transformer(encoder)
        self.decoder = Transformer(decoder, d_memory=encoder.d_model)

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """The target's table."""
        return self.decoder.embedding

    def forward(
        self,
        ids: Tensor,
        source: Tensor | None = None,
        source_kept: Tensor | None = None,
        cache: Cache | StaticCache | None = None,
        memory: Memory | None = None,
        attend: Attend = attend,
    ) -> Tensor:
        """Logits (B, T, V).

        Args:
            ids: (B, T) ids of the target; with a cache, those that follow the ones already in it.
            source: (B, S) ids of the sources; None where their memory is given.
            source_kept: (B, S) bool, False where a source is padding; None is no padding.
            cache: keys and values of the target's tokens before, which is extended by these.
            memory: what `encode` made of the sources.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        if memory is None:
            assert source is not None, "a translator reads a source, or its memory"
            memory = self.encode(source, source_kept, attend)
        return self.decoder(ids, cache, attend, memory=memory)

    def encode(self, source: Tensor, source_kept: Tensor | None = None, attend: Attend = attend) -> Memory:
        """What the decoder's cross-attention reads, (B, S, width of the encoder)."""
        return Memory(self.encoder.hidden(source, attend=attend, kept=source_kept), source_kept)

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """An empty cache for the target's tokens."""
        return self.decoder.new_cache(batch_size, capacity)
