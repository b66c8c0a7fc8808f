"""Towers that read what a frozen net made of pictures or captions: vectors that were computed once and kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.models.captions import CaptionConfig
from windtunnel.models.family import ParameterRow
from windtunnel.models.vision import PictureConfig, PictureTower, TowerConfig
from windtunnel.nn.attention import Attend
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.linear import Linear
from windtunnel.nn.norms import BatchNorm

WIDTHS = {"efficientnet-lite0": 1280, "efficientnet-lite0-stages": 1904, "minilm-l6": 384}
"""How many numbers each frozen net makes of a picture or a caption."""


class VectorsConfig(TowerConfig):
    """What stands on a frozen net: each number brought to one scale, dropout, and perhaps a hidden layer."""

    needs_whole_batch: ClassVar[bool] = True
    net: str
    """The frozen net, of `windtunnel models`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """The share of a vector's numbers that training sets to 0."""
    hidden: PositiveInt | None = None
    """Units of a hidden layer, with GELU and dropout; None is none."""

    @property
    def width(self) -> int:
        return self.hidden or WIDTHS[self.net]

    def parameter_rows(self) -> list[ParameterRow]:
        v = WIDTHS[self.net]
        rows = [ParameterRow("norm", "2 * d_vector", 2 * v)]
        hidden = self.hidden or 0
        return rows + [ParameterRow("hidden", "(d_vector + 1) * d_hidden", (v + 1) * hidden)] * bool(hidden)

    def formula_names(self) -> dict[str, int]:
        return {"d_vector": WIDTHS[self.net], "d_hidden": self.hidden or 0}

    def std(self, name: str, parameter: Tensor) -> float | None:
        """As the maps to the shared space: N(0, 1 / width of what is read)."""
        if parameter.dim() < 2:
            return 0.0 if name == "hidden.bias" else None
        return float(parameter.shape[1] ** -0.5)

    @property
    def flops(self) -> int:
        """Matrix-multiply FLOPs of one vector."""
        return 2 * WIDTHS[self.net] * (self.hidden or 0)


class PictureVectorsConfig(VectorsConfig, PictureConfig):
    """Pictures as a frozen net sees them; they are not changed in training."""

    kind: Literal["vectors"] = "vectors"
    net: Literal["efficientnet-lite0", "efficientnet-lite0-stages"] = "efficientnet-lite0"
    """Its vector as it was trained; `-stages` has the ends of its last three stages before it."""
    size: PositiveInt = 224

    def create(self) -> PictureVectors:
        return PictureVectors(self)

    def flops_by_part(self) -> dict[str, int]:
        return {"hidden": self.flops} if self.hidden else {}

    def example(self, n_pictures: int) -> Tensor:
        return torch.zeros(n_pictures, WIDTHS[self.net])


class CaptionVectorsConfig(VectorsConfig, CaptionConfig):
    """Captions as a frozen encoder of sentences reads them: the mean of its tokens' vectors."""

    kind: Literal["vectors"] = "vectors"
    net: Literal["minilm-l6"] = "minilm-l6"

    def sized(self, vocab_size: int, context_length: int) -> Self:
        return self

    def create(self, vocab_size: int, context_length: int) -> CaptionVectors:
        return CaptionVectors(self)

    def flops_by_part(self, length: int) -> dict[str, int]:
        return {"hidden": self.flops} if self.hidden else {}

    def example(self, n_captions: int, length: int) -> dict[str, Tensor]:
        return {"ids": torch.zeros(n_captions, WIDTHS[self.net])}


class Vectors(nn.Module):
    """vectors (N, V) -> (N, D)."""

    def __init__(self, config: VectorsConfig) -> None:
        super().__init__()
        v = WIDTHS[config.net]
        self.norm = BatchNorm(v, epsilon=1e-5, momentum=0.1, unbiased=True)
        self.dropout = Dropout(config.dropout)
        self.hidden = Linear(v, config.hidden, bias=True) if config.hidden else None

    def made(self, x_NV: Tensor) -> Tensor:
        """What the two kinds of tower share."""
        x_NV = self.dropout(self.norm(x_NV[:, None])[:, 0])
        return x_NV if self.hidden is None else self.dropout(torch.nn.functional.gelu(self.hidden(x_NV)))


class PictureVectors(Vectors, PictureTower):
    """Vectors of pictures (N, V) -> (N, D)."""

    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        return self.made(pictures)


class CaptionVectors(Vectors):
    """Vectors of captions (M, V) -> (M, D)."""

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        return self.made(ids)
