"""An encoder: it reads a whole text and gives a vector for each token, or one for all. BERT's shape by default.

Devlin et al. 2018 (arXiv 1810.04805). It is a transformer without a causal mask and without a head.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.models.transformer import Transformer, TransformerConfig, fill
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.linear import Linear

Pool = Literal["mean", "last", "first"]
"""Which vector stands for a text: the mean of its tokens', its last token's, or its first token's."""

BERT = TransformerConfig(causal=False, norm_position="post", embedding_norm=True, activation="gelu", norm_epsilon=1e-12)


def pool(x_BTD: Tensor, kept_BT: Tensor | None, how: Pool) -> Tensor:
    """One vector a text, (B, D); kept is False where a token is padding, None is no padding."""
    kept_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device) if kept_BT is None else kept_BT
    if how == "mean":
        n_B1 = kept_BT.sum(dim=1, keepdim=True)
        return (x_BTD * kept_BT[..., None]).sum(dim=1) / n_B1
    places = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    at_B = torch.where(kept_BT, places, -1).argmax(1) if how == "last" else kept_BT.int().argmax(1)
    return x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), at_B]


class TextModelConfig(ModelConfig):
    """A trunk that reads whole texts, and what stands on it."""

    reads: ClassVar[Reads] = "text"
    has_blocks: ClassVar[bool] = True
    attends: ClassVar[bool] = True
    bias_setting: ClassVar[str] = "trunk.bias"
    trunk: TransformerConfig
    """What reads a text. Its own vocab_size, context_length, tie_embeddings and head_bias are not used."""

    @property
    def body(self) -> TransformerConfig:
        """The trunk's settings with the model's vocabulary and context, and without a head."""
        shared = {"vocab_size": self.vocab_size, "context_length": self.context_length}
        return self.trunk.replace(**shared, tie_embeddings=True, head_bias=False)

    @property
    def trunk_names(self) -> tuple[str, ...]:
        return ("trunk",)

    @property
    def targets_per_example(self) -> int:
        return 1

    @property
    def widest(self) -> int:
        return self.trunk.widest

    @property
    def is_causal(self) -> bool:
        """False: what it gives is of the whole text."""
        return False

    def build(self, seed: int, generator: torch.Generator | None = None) -> Model:
        """As a transformer's, see `fill`."""
        self.refuse_generator(generator)
        model, body = self.create(), self.body
        fill(model, body, seed, {"trunk.": 2 * body.n_layers})
        return model

    def formula_names(self) -> dict[str, int]:
        return self.body.formula_names()


class TextModel(Model):
    """ids (B, T) -> vectors of the trunk, or what is made of them."""

    trunk: Transformer

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """The trunk's table."""
        return self.trunk.embedding


class EncoderConfig(TextModelConfig):
    """A trunk alone, and perhaps BERT's pooler."""

    family: Literal["encoder"] = "encoder"
    vocab_size: PositiveInt = 30522
    context_length: PositiveInt = 512
    pooler: bool = False
    """Whether it has BERT's pooler: tanh(linear(x)) of the first token's vector."""
    trunk: TransformerConfig = BERT

    def create(self) -> Encoder:
        return Encoder(self)

    def parameter_rows(self) -> list[ParameterRow]:
        d = self.trunk.d_model
        return [
            *self.body.parameter_rows(),
            *[ParameterRow("pooler", "(d_model + 1) * d_model", (d + 1) * d)] * self.pooler,
        ]

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Of one text of `length` tokens; the pooler, which is asked for apart, is not counted."""
        return {part: n for part, n in self.body.flops_by_part(length).items() if part != "head"}


class Encoder(TextModel):
    """ids (B, T) -> a vector for each token, (B, T, D)."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Transformer(config.body)
        d = config.trunk.d_model
        self.head = Linear(d, d, bias=True) if config.pooler else None

    def forward(self, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """The vectors (B, T, D) of the last layer.

        Args:
            ids: (B, T) token ids, with the marks that the encoder was trained with.
            kept: (B, T) bool, False where a token is padding, of which nothing depends; None is no padding.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        return self.trunk.hidden(ids, attend=attend, kept=kept)

    def pooled(self, ids: Tensor, kept: Tensor | None = None, how: Pool | Literal["pooler"] = "mean") -> Tensor:
        """One vector a text, (B, D). Raises ValueError when the pooler is asked for and there is none."""
        x_BTD = self(ids, kept)
        if how != "pooler":
            return pool(x_BTD, kept, how)
        if self.head is None:
            raise ValueError("this encoder has no pooler; take mean or first")
        pooled_BD: Any = torch.tanh(self.head(pool(x_BTD, kept, "first")))
        return pooled_BD
