"""Towers that read what a frozen net made of pictures or captions: vectors that were computed once and kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
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
    centres: PositiveInt | None = None
    """The most training pictures that a picture is compared with, by a Gaussian kernel: those are its numbers then
    (Nystroem features, Williams & Seeger 2001). Training begins with the map to the captions' space solved, as kernel
    ridge regression whose penalty dev chooses, and steps from there. None is no kernel."""

    @model_validator(mode="after")
    def _one_layer(self) -> Self:
        if self.centres and self.hidden:
            raise ValueError("centres and hidden are two layers on the same vectors; leave one of them out")
        return self

    @property
    def width(self) -> int:
        return self.centres or super().width

    @property
    def is_solved(self) -> bool:
        return self.centres is not None

    def create(self) -> PictureVectors:
        return PictureVectors(self)

    def parameter_rows(self) -> list[ParameterRow]:
        return [] if self.centres else super().parameter_rows()

    def formula_names(self) -> dict[str, int]:
        return super().formula_names() | ({"n_centres": self.centres} if self.centres else {})

    def flops_by_part(self) -> dict[str, int]:
        if self.centres:
            return {"kernel": 2 * self.centres * (WIDTHS[self.net] + self.centres)}
        return {"hidden": self.flops} if self.hidden else {}

    def example(self, n_pictures: int) -> Tensor:
        return torch.zeros(n_pictures, WIDTHS[self.net])


class CaptionVectorsConfig(VectorsConfig, CaptionConfig):
    """Captions as a frozen encoder of sentences reads them: the mean of its tokens' vectors."""

    kind: Literal["vectors"] = "vectors"
    net: Literal["minilm-l6"] = "minilm-l6"

    def sized(self, vocab_size: int, context_length: int) -> Self:
        return self

    def create(self) -> CaptionVectors:
        return CaptionVectors(self)

    def flops_by_part(self, length: int) -> dict[str, int]:
        return {"hidden": self.flops} if self.hidden else {}

    def example(self, n_captions: int, length: int) -> dict[str, Tensor]:
        return {"ids": torch.zeros(n_captions, WIDTHS[self.net])}


class Kernel(nn.Module):
    """Vectors (N, V) -> how alike they are to C others, whitened: (N, C). Nothing in it is learned by steps.

    k(x, c) = exp(-|x - c|^2) of vectors whose columns are standardised and which have length 1.
    """

    mean: Tensor
    scale: Tensor
    centres: Tensor
    whiten: Tensor
    middle: Tensor

    def __init__(self, n_centres: int, width: int) -> None:
        super().__init__()
        zeros = {"mean": (width,), "scale": (width,), "centres": (n_centres, width), "middle": (n_centres,)}
        for name, shape in {**zeros, "whiten": (n_centres, n_centres)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def settle(self, x_NV: Tensor) -> None:
        """Take statistics of vectors and, evenly spaced among them, the centres; in double precision."""
        x_NV = x_NV.double()
        self.mean.copy_(x_NV.mean(0))
        self.scale.copy_(1 / (x_NV.std(0, correction=0) + 1e-6))
        at = torch.linspace(0, len(x_NV) - 1, len(self.centres)).round().long()
        self.centres.copy_(self.unit(x_NV[at]))
        values, vectors = torch.linalg.eigh(self.alike(self.centres.double()))
        kept = values > LEAST_EIGENVALUE * values[-1]  # the others are rounding, and equal pictures
        inverse = torch.where(kept, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values))
        self.whiten.copy_((vectors * inverse) @ vectors.T * len(self.centres) ** 0.5)
        self.middle.copy_((self.alike(self.unit(x_NV)) @ self.whiten.double()).mean(0))

    def unit(self, x_NV: Tensor) -> Tensor:
        """Standardised, of length 1."""
        return nn.functional.normalize((x_NV - self.mean) * self.scale, dim=-1)

    def alike(self, x_NV: Tensor) -> Tensor:
        """The kernel of vectors of length 1 and each centre, (N, C)."""
        return (2 * (x_NV @ self.centres.to(x_NV.dtype).T - 1)).exp()

    def forward(self, x_NV: Tensor) -> Tensor:
        return self.alike(self.unit(x_NV)) @ self.whiten - self.middle


LEAST_EIGENVALUE = 1e-6
"""Of the kernel of the centres, times the largest one; directions of smaller ones are left out."""


class Vectors(nn.Module):
    """vectors (N, V) -> (N, D)."""

    def __init__(self, config: VectorsConfig) -> None:
        super().__init__()
        v = WIDTHS[config.net]
        self.norm = BatchNorm(v, epsilon=1e-5, momentum=0.1, unbiased=True)
        self.dropout = Dropout(config.dropout)
        self.hidden = Linear(v, config.hidden, bias=True) if config.hidden else None

    def settle(self, x_NV: Tensor) -> None:
        """Take the statistics of all vectors of training beforehand."""
        self.norm.running_mean.copy_(x_NV.double().mean(0))
        self.norm.running_std.copy_((x_NV.double().var(0) + self.norm.epsilon).sqrt())

    def made(self, x_NV: Tensor) -> Tensor:
        """What the two kinds of tower share."""
        x_NV = self.dropout(self.norm(x_NV[:, None])[:, 0])
        return x_NV if self.hidden is None else self.dropout(torch.nn.functional.gelu(self.hidden(x_NV)))


class PictureVectors(Vectors, PictureTower):
    """Vectors of pictures (N, V) -> (N, D)."""

    def __init__(self, config: PictureVectorsConfig) -> None:
        super().__init__(config)
        self.kernel = Kernel(config.centres, WIDTHS[config.net]) if config.centres else None
        if self.kernel:
            del self.norm

    def settle(self, x_NV: Tensor) -> None:
        """The statistics of all vectors of training, or the kernel's centres."""
        if self.kernel is None:
            super().settle(x_NV)
        else:
            self.kernel.settle(x_NV)

    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        return self.made(pictures) if self.kernel is None else self.dropout(self.kernel(pictures))


class CaptionVectors(Vectors):
    """Vectors of captions (M, V) -> (M, D)."""

    def forward(self, ids: Tensor, kept: Tensor | None, attend: Attend) -> Tensor:
        return self.made(ids)
