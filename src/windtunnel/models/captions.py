"""Towers that read captions."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from windtunnel.models.encoder import Pool, pool
from windtunnel.models.family import ParameterRow
from windtunnel.models.transformer import Transformer, TransformerConfig, spread
from windtunnel.models.vision import TowerConfig
from windtunnel.nn.attention import Attend


class CaptionConfig(TowerConfig):
    """What reads a caption."""

    @abstractmethod
    def create(self, vocab_size: int, context_length: int) -> nn.Module:
        """A tower, `forward(ids, kept, attend) -> (M, D)`, whose weights are still to be filled."""

    @abstractmethod
    def sized(self, vocab_size: int, context_length: int) -> Self:
        """These settings with the vocabulary and the context of the model."""

    def example(self, n_captions: int, length: int) -> dict[str, Tensor]:
        """Captions of `length` tokens as the tower reads them, all zeros."""
        ids = torch.zeros(n_captions, length, dtype=torch.int64)
        return {"ids": ids, "kept": torch.ones_like(ids, dtype=torch.bool)}

    @abstractmethod
    def flops_by_part(self, length: int) -> dict[str, int]:
        """Matrix-multiply FLOPs of one caption of `length` tokens, a multiply and an add counted as two."""


class CaptionTransformerConfig(CaptionConfig):
    """A transformer that reads a whole caption, its tokens pooled to one vector."""

    kind: Literal["transformer"] = "transformer"
    has_blocks: ClassVar[bool] = True
    pool: Pool = "mean"
    """Which vector stands for a caption: the mean of its tokens', its last token's as in CLIP, or its first token's."""
    trunk: TransformerConfig = TransformerConfig(
        n_layers=2, n_heads=4, d_model=128, activation="relu", dropout=0.0, bias=False, causal=False
    )
    """The blocks; causal in CLIP. Its own vocab_size, context_length, tie_embeddings and head_bias are not used."""

    @property
    def width(self) -> int:
        return self.trunk.d_model

    def sized(self, vocab_size: int, context_length: int) -> Self:
        own = {"vocab_size": vocab_size, "context_length": context_length, "tie_embeddings": True, "head_bias": False}
        return self.model_copy(update={"trunk": self.trunk.replace(**own)})

    def create(self, vocab_size: int, context_length: int) -> CaptionTransformer:
        return CaptionTransformer(self.sized(vocab_size, context_length))

    def parameter_rows(self) -> list[ParameterRow]:
        return self.trunk.parameter_rows()

    def formula_names(self) -> dict[str, int]:
        return self.trunk.formula_names()

    def flops_by_part(self, length: int) -> dict[str, int]:
        return {part: n for part, n in self.trunk.flops_by_part(length).items() if part != "head"}

    def std(self, name: str, parameter: Tensor) -> float | None:
        return spread(self.trunk, name, parameter, 2 * self.trunk.n_layers)


class CaptionTransformer(nn.Module):
    """A transformer without its head, pooled."""

    def __init__(self, config: CaptionTransformerConfig) -> None:
        super().__init__()
        self.trunk, self.how = Transformer(config.trunk), config.pool

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        return pool(self.trunk.hidden(ids, attend=attend, kept=kept), kept, self.how)
