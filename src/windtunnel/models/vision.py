"""Towers that read pictures: a vision transformer out of the same block, and a small convolutional net.

A picture is (3, S, S), red, green and blue from 0 to 1; a tower makes one vector (D) of it. Shapes: N pictures, P
patches or tokens, C channels, D width of the vector.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import Tagged
from windtunnel.models.block import Block, Pass
from windtunnel.models.family import ParameterRow
from windtunnel.models.transformer import TransformerConfig, spread
from windtunnel.nn.attention import Attend, Mask
from windtunnel.nn.blocks import Blocks
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.linear import Linear
from windtunnel.nn.norms import NORMS
from windtunnel.nn.positions import POSITIONS

Colour = tuple[float, float, float]
"""A number for red, green and blue."""
HALF: Colour = (0.5, 0.5, 0.5)


class TowerConfig(Tagged, ABC):
    """What reads one side of a pair. A new tower is one subclass beside its module, and one line in a table."""

    tag: ClassVar[str] = "kind"
    kind: str
    """The kind of tower; it decides which other settings there are."""
    has_blocks: ClassVar[bool] = False
    """Whether the tower is made of `Blocks`."""
    needs_whole_batch: ClassVar[bool] = False
    """Whether what it makes of one depends on the others of a batch, in training."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width of the vector that the tower makes."""

    @abstractmethod
    def parameter_rows(self) -> list[ParameterRow]:
        """As of a family, with the names of `formula_names`."""

    @abstractmethod
    def formula_names(self) -> dict[str, int]:
        """The values of the names in the formulas."""

    @property
    def was_trained(self) -> bool:
        """Whether the tower begins with weights that were trained before."""
        return False

    def begin(self, tower: nn.Module) -> None:
        """Put what was trained before into a tower that has random weights, where there is something."""

    @abstractmethod
    def std(self, name: str, parameter: Tensor) -> float | None:
        """The standard deviation that a parameter is drawn with, by its name; None leaves it as it was built."""


def load_trained(tower: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load all weights of a tower but the statistics of its last norm, which training takes; none may be missing."""
    own = {name: tensor for name, tensor in tower.state_dict().items() if name.startswith("norm.")}
    tower.load_state_dict(own | dict(weights))


class PictureConfig(TowerConfig):
    """What reads a picture."""

    size: PositiveInt
    """Pixels of a side of the square that pictures are drawn in."""
    cropped: bool = False
    """Whether the middle square of a picture is read, as in CLIP, and not the whole picture on white."""

    @abstractmethod
    def create(self) -> PictureTower:
        """A tower whose weights are still to be filled."""

    @abstractmethod
    def flops_by_part(self) -> dict[str, int]:
        """Matrix-multiply FLOPs of one picture, a multiply and an add counted as two."""

    @property
    def is_solved(self) -> bool:
        """Whether training begins with the map of what the tower makes solved, see `training.frozen.solve_towers`."""
        return False

    def example(self, n_pictures: int) -> Tensor:
        """Pictures as the tower reads them, all zeros."""
        return torch.zeros(n_pictures, 3, self.size, self.size)


class PictureTower(nn.Module, ABC):
    """Pictures -> one vector each."""

    @abstractmethod
    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        """pictures (N, 3, S, S) from 0 to 1 -> vectors (N, D)."""

    def settle(self, pictures: Tensor) -> None:
        """Take statistics of all pictures of training before the first step, where the tower's map is solved."""


def standard(pictures: Tensor, mean: Colour, std: Colour) -> Tensor:
    """Pictures (N, 3, S, S) minus a mean, divided by a standard deviation, colour by colour; uint8 is from 0 to 255."""
    pictures = pictures / 255 if pictures.dtype == torch.uint8 else pictures
    return (pictures - pictures.new_tensor(mean)[:, None, None]) / pictures.new_tensor(std)[:, None, None]


class ViTConfig(PictureConfig):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929): each patch of a picture is a token."""

    kind: Literal["vit"] = "vit"
    has_blocks: ClassVar[bool] = True
    size: PositiveInt = 32
    patch: PositiveInt = 4
    """Pixels of a side of a patch."""
    patch_bias: bool = False
    """Whether the matrix that reads a patch has a bias."""
    pool: Literal["mean", "class"] = "mean"
    """What stands for a picture: the mean of its patches, or a token of its own before them, as in CLIP."""
    mean: Colour = HALF
    """Of red, green and blue, subtracted from pictures that go from 0 to 1."""
    deviation: Colour = HALF
    """What red, green and blue are divided by then."""
    trunk: TransformerConfig = TransformerConfig(
        n_layers=4, n_heads=4, d_model=128, activation="relu", dropout=0.0, bias=False, causal=False
    )
    """The blocks; `embedding_norm` stands before them. Its own vocab_size, context_length, tie_embeddings and head_bias
    are not used."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not divisible by patch {self.patch}")
        if self.trunk.causal:
            raise ValueError("trunk.causal: the patches of a picture have no order; give causal=false")
        return self

    @property
    def width(self) -> int:
        return self.trunk.d_model

    @property
    def n_tokens(self) -> int:
        """Patches, and the token that stands for the whole."""
        return (self.size // self.patch) ** 2 + (self.pool == "class")

    @property
    def body(self) -> TransformerConfig:
        """The trunk's settings with as many positions as there are tokens, and without a head."""
        return self.trunk.replace(vocab_size=1, context_length=self.n_tokens, tie_embeddings=True, head_bias=False)

    def create(self) -> ViT:
        return ViT(self)

    def parameter_rows(self) -> list[ParameterRow]:
        d, inputs, b = self.width, 3 * self.patch**2, int(self.patch_bias)
        rows = [ParameterRow("patches", f"(3 * patch * patch{' + 1' * b}) * d_model", (inputs + b) * d)]
        rows += [ParameterRow("class", "d_model", d)] * (self.pool == "class")
        of_body = [row for row in self.body.parameter_rows() if row.module not in ("embedding", "head")]
        return rows + [
            ParameterRow(r.module, r.formula.replace("context_length", "n_tokens"), r.n_parameters, r.is_embedding)
            for r in of_body
        ]

    def formula_names(self) -> dict[str, int]:
        names = self.body.formula_names()
        own = {name: n for name, n in names.items() if name not in ("vocab_size", "context_length")}
        return {**own, "patch": self.patch, "n_tokens": self.n_tokens}

    def flops_by_part(self) -> dict[str, int]:
        n_patches = (self.size // self.patch) ** 2
        of_body = {part: n for part, n in self.body.flops_by_part(self.n_tokens).items() if part != "head"}
        return {"patches": 2 * n_patches * 3 * self.patch**2 * self.width, **of_body}

    def std(self, name: str, parameter: Tensor) -> float | None:
        return spread(self.trunk, name, parameter, 2 * self.trunk.n_layers)


class ViT(PictureTower):
    """Patches as tokens through the blocks of a transformer, pooled."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config, body = config, config.body
        norm, of_norms = NORMS[body.norm], (body.d_model, body.norm_epsilon, body.biases.norms)
        self.patches = Linear(3 * config.patch**2, body.d_model, config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(body.d_model)) if config.pool == "class" else None
        self.position = POSITIONS[body.position](
            config.n_tokens, body.d_model, body.n_heads, body.rotary_width, body.rope_base, body.rope_scaling
        )
        self.embedding_norm = norm(*of_norms) if body.embedding_norm else None
        self.dropout = Dropout(body.dropout)
        self.blocks = Blocks(Block(body, layer) for layer in range(body.n_layers))
        self.norm = NORMS[body.norm if body.norm_position != "post" else "none"](*of_norms)

    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        c = self.config
        x_NPD = self.patches(patches(standard(pictures, c.mean, c.deviation), c.patch))
        if self.class_token is not None:
            x_NPD = torch.cat([self.class_token.expand(len(x_NPD), 1, -1), x_NPD], dim=1)
        places = torch.arange(x_NPD.shape[1], device=x_NPD.device)
        added = self.position.embed(places)
        x_NPD = x_NPD if added is None else x_NPD + added
        x_NPD = self.dropout(x_NPD if self.embedding_norm is None else self.embedding_norm(x_NPD))
        shared = Pass(Mask(causal=False), self.position.rotation(places), None, attend)
        for block in self.blocks:
            x_NPD = block(x_NPD, shared)
        x_ND: Tensor = self.norm(x_NPD.mean(1) if self.class_token is None else x_NPD[:, 0])
        return x_ND


def patches(pictures: Tensor, side: int) -> Tensor:
    """Pictures (N, C, S, S) cut into squares, row by row: (N, (S / side)^2, C * side * side), as a convolution's weight
    (D, C, side, side) lies in memory."""
    n, c, size, _ = pictures.shape
    k = size // side
    return pictures.reshape(n, c, k, side, k, side).permute(0, 2, 4, 1, 3, 5).reshape(n, k * k, c * side * side)


class ConvolutionalConfig(PictureConfig):
    """A small convolutional net: each stage halves the sides, then adds residual layers. A picture's vector is the mean
    over all places and the largest value at any, side by side."""

    added: ClassVar[frozenset[str]] = frozenset({"norm"})
    kind: Literal["convolutional"] = "convolutional"
    size: PositiveInt = 32
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)] = (32, 64, 128)
    """Channels of each stage."""
    depth: Annotated[int, Field(ge=0)] = 1
    """Residual layers of a stage, behind the one that halves the sides."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of elements of the vector that training sets to 0."""
    norm: Literal["group", "batch"] = "group"
    """What brings the channels of a convolution to one scale: those of one picture, in groups, or each channel over a
    batch."""

    @property
    def needs_whole_batch(self) -> bool:  # type: ignore[override]
        """Whether the norm is that of a batch."""
        return self.norm == "batch"

    @model_validator(mode="after")
    def _is_large(self) -> Self:
        if self.size % 2 ** len(self.widths):
            raise ValueError(
                f"size {self.size} is not divisible by 2^{len(self.widths)}: each of the {len(self.widths)} stages "
                "halves it; give fewer widths, or another size"
            )
        return self

    @property
    def width(self) -> int:
        return 2 * self.widths[-1]

    def create(self) -> Convolutional:
        return Convolutional(self)

    def stages(self) -> list[tuple[int, int, int]]:
        """Of each stage the channels that go in and come out, and the side of what comes out."""
        ins = (3, *self.widths[:-1])
        return [(a, b, self.size // 2**i) for i, (a, b) in enumerate(zip(ins, self.widths, strict=True), start=1)]

    def parameter_rows(self) -> list[ParameterRow]:
        rows = []
        for i, (a, b, _) in enumerate(self.stages(), start=1):
            inputs, width = "3" if i == 1 else f"width_{i - 1}", f"width_{i}"
            formula = f"9 * {inputs} * {width} + depth * 9 * {width} * {width} + 2 * (1 + depth) * {width}"
            rows.append(ParameterRow(f"stage_{i}", formula, 9 * b * (a + self.depth * b) + 2 * (1 + self.depth) * b))
        return rows

    def formula_names(self) -> dict[str, int]:
        return {"depth": self.depth, **{f"width_{i}": n for i, n in enumerate(self.widths, start=1)}}

    def flops_by_part(self) -> dict[str, int]:
        return {
            f"stage_{i}": 2 * side * side * 9 * b * (a + self.depth * b)
            for i, (a, b, side) in enumerate(self.stages(), start=1)
        }

    def std(self, name: str, parameter: Tensor) -> float | None:
        """He et al. 2015 (arXiv 1502.01852): what comes out varies as much as what goes in."""
        return math.sqrt(2 / parameter[0].numel()) if parameter.dim() > 1 else None


class Convolutional(PictureTower):
    """Convolutions of 3 x 3, each with a norm of its channels and a ReLU."""

    def __init__(self, config: ConvolutionalConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, _ in config.stages():
            layers += [Convolution(a, b, 2, config.norm)]
            layers += [Convolution(b, b, 1, config.norm) for _ in range(config.depth)]
        self.stages = nn.Sequential(*layers)
        self.dropout = Dropout(config.dropout)

    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        x_NCSS: Tensor = self.stages(standard(pictures, HALF, HALF))
        return self.dropout(torch.cat([x_NCSS.mean((2, 3)), x_NCSS.amax((2, 3))], dim=1))


class Convolution(nn.Module):
    """relu(norm(convolution(x))), added to x where the sides stay; (N, C, S, S) -> (N, C', S / stride, S / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Literal["group", "batch"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        in_groups = norm == "group"
        self.norm = nn.GroupNorm(math.gcd(8, outputs), outputs) if in_groups else nn.BatchNorm2d(outputs)
        self.stride = stride

    def forward(self, x_NCSS: Tensor) -> Tensor:
        y_NCSS = torch.relu(self.norm(F.conv2d(x_NCSS, self.weight, None, self.stride, 1)))
        return x_NCSS + y_NCSS if self.stride == 1 else y_NCSS
