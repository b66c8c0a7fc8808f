"""Pictures and captions in one space: two towers, whose vectors are alike where a caption is of a picture.

Radford et al. 2021 (arXiv 2103.00020). Shapes: N pictures, M captions of T tokens, D width of the shared space.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from windtunnel.config import any_of
from windtunnel.models.encoder import Pool, pool
from windtunnel.models.family import Model, ModelConfig, ParameterRow, Reads
from windtunnel.models.transformer import Transformer, TransformerConfig, spread
from windtunnel.models.vision import ConvolutionalConfig, PictureConfig, TowerConfig, ViTConfig
from windtunnel.nn.attention import Attend, attend
from windtunnel.nn.init import initialise
from windtunnel.nn.linear import Linear

AT_ONCE = 64
"""Pictures or captions that are read at once where no gradient is wanted."""


class CaptionConfig(TowerConfig):
    """What reads a caption."""

    net: ClassVar[str] = ""
    """The frozen net whose vectors are read in place of captions; empty where captions are read."""

    @abstractmethod
    def create(self, vocab_size: int, context_length: int) -> nn.Module:
        """A tower, `forward(ids, kept, attend) -> (M, D)`, whose weights are still to be filled."""

    @abstractmethod
    def sized(self, vocab_size: int, context_length: int) -> Self:
        """These settings with the vocabulary and the context of the model."""

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


PICTURE_TOWERS: dict[str, type[PictureConfig]] = {"vit": ViTConfig, "convolutional": ConvolutionalConfig}
CAPTION_TOWERS: dict[str, type[CaptionConfig]] = {"transformer": CaptionTransformerConfig}

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
    bias_setting: ClassVar[str] = "caption.trunk.bias"
    vocab_size: PositiveInt = 4096
    context_length: PositiveInt = 32
    """The most tokens of a caption, with its marks."""
    picture: AnyPictureConfig = ViTConfig()
    """What reads pictures: vit or convolutional."""
    caption: AnyCaptionConfig = CaptionTransformerConfig()
    """What reads captions: transformer."""
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
    def attends(self) -> bool:  # type: ignore[override]
        """True: `forward` takes `attend` and `kept`, whatever the towers make of them."""
        return True

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
        ids = torch.zeros(n_rows, length, dtype=torch.int64)
        return {"pictures": self.picture.example(n_rows), "ids": ids, "kept": torch.ones_like(ids, dtype=torch.bool)}

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
        self.caption = config.caption.create(config.vocab_size, config.context_length)
        self.picture_projection = Linear(config.picture.width, config.d_shared, bias=False)
        self.caption_projection = Linear(config.caption.width, config.d_shared, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(config.scale).log())

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """The captions' table."""
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
            pictures: (N, 3, S, S), red, green and blue from 0 to 1, or uint8 from 0 to 255, of the tower's size.
        """
        return in_parts(lambda some: _unit(self.picture_projection(self.picture(some, attend))), pictures)

    def encode_texts(self, ids: Tensor, kept: Tensor | None = None, attend: Attend = attend) -> Tensor:
        """One vector of length 1 a caption, (M, D).

        Args:
            ids: (M, T) token ids.
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
