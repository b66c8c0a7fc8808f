"""Pictures and captions in one space: two towers, whose vectors are alike where a caption is of a picture.

Radford et al. 2021 (arXiv 2103.00020). Shapes: N pictures, M captions of T tokens, D width of the shared space.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import any_of
from windtunnel.models.captions import (
    Bag,
    BagConfig,
    CaptionConfig,
    CaptionEncoderConfig,
    CaptionTransformer,
    CaptionTransformerConfig,
)
from windtunnel.models.efficientnet import EfficientNetConfig
from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.models.vectors import CaptionVectorsConfig, PictureVectorsConfig
from windtunnel.models.vision import ConvolutionalConfig, PictureConfig, ViTConfig
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.init import initialise
from windtunnel.nn.linear import Linear

AT_ONCE = 64
"""Pictures or captions that are read at once where no gradient is wanted."""


PICTURE_TOWERS: dict[str, type[PictureConfig]] = {
    "vit": ViTConfig,
    "convolutional": ConvolutionalConfig,
    "efficientnet": EfficientNetConfig,
    "vectors": PictureVectorsConfig,
}
CAPTION_TOWERS: dict[str, type[CaptionConfig]] = {
    "transformer": CaptionTransformerConfig,
    "encoder": CaptionEncoderConfig,
    "bag": BagConfig,
    "vectors": CaptionVectorsConfig,
}

if TYPE_CHECKING:
    AnyPictureConfig = PictureConfig
    AnyCaptionConfig = CaptionConfig
else:
    AnyPictureConfig = any_of(PICTURE_TOWERS)
    AnyCaptionConfig = any_of(CAPTION_TOWERS)


class CLIPConfig(ModelConfig):
    """Two towers, a linear map of each to one space, and a temperature."""

    family: Literal["clip"] = "clip"
    reads: ClassVar[Reads] = "captioned"
    vocab_size: PositiveInt = 4096
    context_length: PositiveInt = 32
    """The most tokens of a caption, with its marks."""
    picture: AnyPictureConfig = ViTConfig()
    """What reads pictures: vit, convolutional, efficientnet (trained before) or vectors (of a frozen net)."""
    caption: AnyCaptionConfig = CaptionTransformerConfig()
    """What reads captions: transformer, encoder (trained before), bag (the mean of its tokens) or vectors (of a frozen
    net)."""
    d_shared: PositiveInt = 128
    """Width of the space in which pictures and captions are compared."""
    scale: Annotated[float, Field(gt=0)] = 1 / 0.07
    """By what a cosine is multiplied before training, one by the temperature; it is learned, as its logarithm."""
    least_scale: Annotated[float, Field(gt=0)] = 1.0
    """The least that the scale can become."""
    most_scale: Annotated[float, Field(gt=0)] = 100.0
    """The most that the scale can become; CLIP's own bound."""

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if not self.least_scale <= self.scale <= self.most_scale:
            raise ValueError(
                f"scale {self.scale:g} must lie between least_scale {self.least_scale:g} and most_scale "
                f"{self.most_scale:g}"
            )
        return self

    @property
    def has_blocks(self) -> bool:  # type: ignore[override]
        """Whether one of its towers is made of blocks."""
        return self.picture.has_blocks or self.caption.has_blocks

    @property
    def bias_setting(self) -> str:  # type: ignore[override]
        """That of the tower that is a transformer; of the bias of patches where there is none."""
        sides = {"caption": self.caption, "picture": self.picture}
        found = (f"{side}.trunk.bias" for side, tower in sides.items() if "trunk" in type(tower).model_fields)
        return next(found, "picture.patch_bias")

    @property
    def attends(self) -> bool:  # type: ignore[override]
        """True: `forward` takes `attend` and `kept`, whatever the towers make of them."""
        return True

    @property
    def trunk_names(self) -> tuple[str, ...]:
        sides = {"picture": self.picture, "caption": self.caption}
        return tuple(side for side, tower in sides.items() if tower.was_trained)

    @property
    def targets_per_example(self) -> int:
        return 1

    @property
    def widest(self) -> int:
        return max(self.picture.width, self.caption.width)

    @property
    def is_causal(self) -> bool:
        """False: what it gives is of a whole caption."""
        return False

    @property
    def words(self) -> CaptionConfig:
        """The tower of captions with the model's vocabulary and context."""
        return self.caption.sized(self.vocab_size, self.context_length)

    def example(self, n_rows: int, length: int, source: int | None = None) -> dict[str, Tensor]:
        """As many pictures as captions of `length` tokens, all zeros."""
        return {"pictures": self.picture.example(n_rows), **self.caption.example(n_rows, length)}

    @property
    def needs_whole_batch(self) -> bool:
        """Whether a tower has a batch norm."""
        return self.picture.needs_whole_batch or self.caption.needs_whole_batch

    def create(self) -> CLIP:
        return CLIP(self)

    def build(self, seed: int, generator: torch.Generator | None = None) -> CLIP:
        """Each tower as it says, the maps to the shared space N(0, 1 / width of what they read)."""
        self.refuse_generator(generator)
        model, towers = CLIP(self), {"picture": self.picture, "caption": self.words}

        def std(name: str, parameter: Tensor) -> float | None:
            tower, _, inside = name.partition(".")
            if tower in towers:
                return towers[tower].std(inside, parameter)
            return float(parameter.shape[1] ** -0.5) if parameter.dim() == 2 else None

        initialise(model, seed, std)
        self.picture.begin(model.picture)
        self.words.begin(model.caption)
        return model

    def parameter_rows(self) -> list[ParameterRow]:
        d, rows = self.d_shared, []
        for side, tower in (("picture", self.picture), ("caption", self.words)):
            for row in tower.parameter_rows():
                formula = _of_side(side, row.formula, row.module)
                rows.append(ParameterRow(f"{side} {row.module}", formula, row.n_parameters, row.is_embedding))
            rows.append(ParameterRow(f"{side} projection", f"{side}_width * d_shared", tower.width * d))
        return [*rows, ParameterRow("log_scale", "1", 1)]

    def formula_names(self) -> dict[str, int]:
        names = {"vocab_size": self.vocab_size, "context_length": self.context_length, "d_shared": self.d_shared}
        for side, tower in (("picture", self.picture), ("caption", self.words)):
            own = {name: n for name, n in tower.formula_names().items() if name not in SHARED}
            names |= {f"{side}_{name}": n for name, n in own.items()} | {f"{side}_width": tower.width}
        return names

    @property
    def untrained_parts(self) -> frozenset[str]:
        """The kernel of fixed centres."""
        return frozenset({"picture kernel"})

    def flops_by_part(self, length: int, source: int | None = None) -> dict[str, int]:
        """Of one picture, a caption of `length` tokens, and their cosine."""
        parts = {f"picture {part}": n for part, n in self.picture.flops_by_part().items()}
        parts |= {f"caption {part}": n for part, n in self.words.flops_by_part(length).items()}
        projections = 2 * (self.picture.width + self.caption.width) * self.d_shared
        return parts | {"projections": projections, "cosine": 2 * self.d_shared}


SHARED = ("vocab_size", "context_length")
"""What formulas call the model's own settings."""


def _of_side(side: str, formula: str, module: str) -> str:
    """A tower's formula with the names of the whole model's."""
    return re.sub(r"[a-z]\w*", lambda name: name[0] if name[0] in SHARED else f"{side}_{name[0]}", formula)


class CLIP(Model):
    """Pictures and captions -> logits (M, 1, N): how well each caption fits each picture."""

    config: CLIPConfig

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.picture = config.picture.create()
        self.caption = config.words.create()
        self.picture_projection = Linear(config.picture.width, config.d_shared, bias=False)
        self.caption_projection = Linear(config.caption.width, config.d_shared, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(config.scale).log())

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """The captions' table."""
        if isinstance(self.caption, Bag):
            return self.caption.embedding
        assert isinstance(self.caption, CaptionTransformer)
        return self.caption.trunk.embedding

    @property
    def scale(self) -> Tensor:
        """By what cosines are multiplied, (), within its bounds."""
        c = self.config
        bounds = math.log(c.least_scale), math.log(c.most_scale)
        logarithm: Tensor = _Bounded.apply(self.log_scale, *bounds)  # type: ignore[no-untyped-call]
        return logarithm.exp()

    def forward(self, pictures: Tensor, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """Logits (M, 1, N): scale x cosine of each caption and picture; the arguments are those of the two below."""
        pictures_ND = self.encode_pictures(pictures, attend)
        captions_MD = self.encode_texts(ids, kept, attend)
        return (self.scale * (captions_MD @ pictures_ND.T))[:, None]

    def encode_pictures(self, pictures: Tensor, attend: Attend = attend) -> Tensor:
        """One vector of length 1 a picture, (N, D).

        Args:
            pictures: (N, 3, S, S) of the tower's size, red, green and blue from 0 to 1, or uint8 from 0 to 255; for a
                tower of vectors these, (N, V).
        """
        return in_parts(lambda some: _unit(self.picture_projection(self.picture(some, attend))), pictures)

    def encode_texts(self, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """One vector of length 1 a caption, (M, D).

        Args:
            ids: (M, T) token ids; for a tower of vectors these, (M, V).
            kept: (M, T) bool, False where a token is padding, of which nothing depends; None is no padding.
            attend: the attention function; inspection passes one that keeps its weights.
        """
        kept = torch.ones_like(ids, dtype=torch.bool) if kept is None else kept
        return in_parts(lambda *some: _unit(self.caption_projection(self.caption(*some, attend))), ids, kept)


def in_parts(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs); without gradients AT_ONCE rows at a time, so that a whole split can be one batch."""
    if torch.is_grad_enabled() or len(inputs[0]) <= AT_ONCE:
        return function(*inputs)
    return torch.cat([function(*some) for some in zip(*(torch.split(one, AT_ONCE) for one in inputs), strict=True)])


def _unit(x_ND: Tensor) -> Tensor:
    return F.normalize(x_ND.float(), dim=-1)


class _Bounded(torch.autograd.Function):
    """x between two bounds; beyond one, only a gradient passes whose descent leads back inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float, most: float) -> Tensor:
        ctx.low, ctx.high = x <= least, x >= most
        return x.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        outwards = (ctx.low & (gradient > 0)) | (ctx.high & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None
