"""A classifier: a trunk that reads a whole text, the vectors of its tokens pooled to one, and a linear layer."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from windtunnel.models.encoder import Pool, pool
from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.models.transformer import Transformer, TransformerConfig, fill
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.linear import Linear


class ClassifierConfig(ModelConfig):
    """A trunk and a head. The trunk's own vocab_size, context_length, tie_embeddings and head_bias are not used."""

    reads: ClassVar[Reads] = "text"
    has_blocks: ClassVar[bool] = True
    attends: ClassVar[bool] = True
    bias_setting: ClassVar[str] = "trunk.bias"
    family: Literal["classifier"] = "classifier"
    vocab_size: PositiveInt = 4096
    context_length: PositiveInt = 128
    n_labels: PositiveInt = 2
    pool: Pool = "mean"
    trunk: TransformerConfig = TransformerConfig(causal=False)

    @property
    def body(self) -> TransformerConfig:
        """The trunk's settings with the classifier's vocabulary and context, and without a head."""
        shared = {"vocab_size": self.vocab_size, "context_length": self.context_length}
        return self.trunk.replace(**shared, tie_embeddings=True, head_bias=False)

    @property
    def targets_per_example(self) -> int:
        return 1

    @property
    def widest(self) -> int:
        return self.trunk.widest

    @property
    def is_causal(self) -> bool:
        """False: a label is of the whole text."""
        return False

    def create(self) -> Classifier:
        return Classifier(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> Classifier:
        """As a transformer's, see `fill`."""
        self.refuse_generator(generator)
        model, body = Classifier(self), self.body
        fill(model, body, seed, {"trunk.": 2 * body.n_layers})
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        head = ParameterRow("head", "(d_model + 1) * n_labels", (self.trunk.d_model + 1) * self.n_labels)
        return [*self.body.parameter_rows(), head]

    def formula_names(self) -> dict[str, int]:
        return {**self.body.formula_names(), "n_labels": self.n_labels}

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Of one text of `length` tokens."""
        return self.body.flops_by_part(length) | {"head": 2 * self.trunk.d_model * self.n_labels}


class Classifier(Model):
    """ids (B, T) -> logits (B, 1, n_labels): one prediction a text."""

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Transformer(config.body)
        self.head = Linear(config.trunk.d_model, config.n_labels, bias=True)

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """The trunk's table."""
        return self.trunk.embedding

    def forward(self, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """Logits (B, 1, n_labels); the arguments are those of `pooled`."""
        logits_BL: Tensor = self.head(self.pooled(ids, kept, attend))
        return logits_BL[:, None]

    def pooled(self, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """One vector a text, (B, D).

        Args:
            ids: (B, T) token ids.
            kept: (B, T) bool, False where a token is padding, of which nothing depends; None is no padding.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        x_BTD = self.trunk.hidden(ids, attend=attend, kept=kept)
        return pool(x_BTD, kept, self.config.pool)
