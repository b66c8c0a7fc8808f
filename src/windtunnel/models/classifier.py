"""A classifier: a trunk that reads a whole text, the vectors of its tokens pooled to one, and a linear layer."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt
from torch import Tensor

from windtunnel.models.encoder import Pool, TextModel, TextModelConfig, pool
from windtunnel.models.family import ParameterRow
from windtunnel.models.transformer import Transformer, TransformerConfig
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.linear import Linear


class ClassifierConfig(TextModelConfig):
    """A trunk and a head."""

    family: Literal["classifier"] = "classifier"
    vocab_size: PositiveInt = 4096
    context_length: PositiveInt = 128
    n_labels: PositiveInt = 2
    """Labels to tell apart; left out, it is as many as the corpus has."""
    pool: Pool = "mean"
    """Which vector stands for a text: the mean of its tokens', its last token's, or its first token's."""
    trunk: TransformerConfig = TransformerConfig(causal=False)

    def create(self) -> Classifier:
        return Classifier(self)

    def parameter_rows(self) -> list[ParameterRow]:
        head = ParameterRow("head", "(d_model + 1) * n_labels", (self.trunk.d_model + 1) * self.n_labels)
        return [*self.body.parameter_rows(), head]

    def formula_names(self) -> dict[str, int]:
        return {**super().formula_names(), "n_labels": self.n_labels}

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Of one text of `length` tokens."""
        return self.body.flops_by_part(length) | {"head": 2 * self.trunk.d_model * self.n_labels}


class Classifier(TextModel):
    """ids (B, T) -> logits (B, 1, n_labels): one prediction a text."""

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Transformer(config.body)
        self.head = Linear(config.trunk.d_model, config.n_labels, bias=True)

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
