"""EfficientNet-Lite0: a convolutional net for pictures of 224 pixels, whose trained weights have a package.

Tan & Le 2019 (arXiv 1905.11946), in the version without squeeze-and-excitation and with ReLU6
(github.com/tensorflow/tpu, efficientnet/lite). Its batch norms keep the statistics that they were trained with, so that
a picture's vector does not depend on those beside it. Shapes: N pictures, C channels, S pixels of a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from windtunnel.models.family import ParameterRow
from windtunnel.models.vision import Colour, PictureConfig, PictureTower, load_trained, standard
from windtunnel.nn.attention import Attend
from windtunnel.nn.dropout import Dropout
from windtunnel.nn.norms import FixedNorm

STEM, HEAD = 32, 1280
STAGES = (
    (16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 2), (80, 3, 2, 6, 3), (112, 5, 1, 6, 3), (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)  # fmt: skip
"""Of each stage: channels, side of the kernels, stride of the first block, expansion, and blocks."""
STAGED = HEAD + sum(stage[0] for stage in STAGES[-3:])
"""Elements of a vector with the ends of the last three stages."""
LAST_BLOCKS = tuple(sum(stage[-1] for stage in STAGES[:n]) for n in (5, 6, 7))
"""The blocks, counted from 1, with which the last three stages end."""
MEAN: Colour = (127 / 255, 127 / 255, 127 / 255)
DEVIATION: Colour = (128 / 255, 128 / 255, 128 / 255)
"""Pictures go in as (value - 127) / 128, as the original program has it."""
AT_ONCE = 64
"""Pictures that are read at once where the statistics of all are taken."""


class Convolving(NamedTuple):
    """One convolution: its name in the net, channels in and out, side of the kernel, stride, groups."""

    name: str
    inputs: int
    outputs: int
    side: int = 1
    stride: int = 1
    groups: int = 1

    @property
    def n_weights(self) -> int:
        """Numbers in its kernel."""
        return self.outputs * (self.inputs // self.groups) * self.side**2


def convolutions() -> Iterator[Convolving]:
    """All of the net in their order."""
    yield Convolving("stem", 3, STEM, 3, 2)
    inputs, block = STEM, 0
    for width, side, stride, expansion, n in STAGES:
        for i in range(n):
            inner = inputs * expansion
            if expansion > 1:
                yield Convolving(f"blocks.{block}.expand", inputs, inner)
            yield Convolving(f"blocks.{block}.depthwise", inner, inner, side, stride if i == 0 else 1, inner)
            yield Convolving(f"blocks.{block}.project", inner, width)
            inputs, block = width, block + 1
    yield Convolving("head", inputs, HEAD)


class EfficientNetConfig(PictureConfig):
    """EfficientNet-Lite0, which begins with the weights that it was trained to on ImageNet."""

    added: ClassVar[frozenset[str]] = frozenset({"stages", "solved"})
    kind: Literal["efficientnet"] = "efficientnet"
    size: PositiveInt = 224
    pretrained: bool = True
    """Whether it begins with trained weights (`windtunnel models get efficientnet-lite0`), or with random ones."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of elements of the vector that training sets to 0."""
    stages: bool = False
    """Whether the means of what its last three stages end with are in its vector, too."""
    solved: bool = False
    """Whether training begins with the map of its vector to the captions' space solved, as ridge regression whose
    penalty dev chooses; each element of the vector is standardised then, by the pictures of training."""

    @property
    def width(self) -> int:
        return STAGED if self.stages else HEAD

    @property
    def is_solved(self) -> bool:
        return self.solved

    @property
    def was_trained(self) -> bool:
        return self.pretrained

    def create(self) -> EfficientNet:
        return EfficientNet(self)

    def parameter_rows(self) -> list[ParameterRow]:
        n = sum(c.n_weights + 2 * c.outputs for c in convolutions())
        return [ParameterRow("net", "kernels + 2 * channels", n)]

    def formula_names(self) -> dict[str, int]:
        return {"kernels": sum(c.n_weights for c in convolutions()), "channels": sum(c.outputs for c in convolutions())}

    def flops_by_part(self) -> dict[str, int]:
        side, total = self.size, 0
        for c in convolutions():
            side = math.ceil(side / c.stride)
            total += 2 * side * side * c.n_weights
        return {"net": total}

    def begin(self, tower: nn.Module) -> None:
        """Load the trained weights. Raises DataError where they have not been fetched."""
        if self.pretrained:
            from windtunnel.models.pretrained.efficientnet import lite0_weights

            load_trained(tower, lite0_weights())

    def std(self, name: str, parameter: Tensor) -> float | None:
        return math.sqrt(2 / parameter[0].numel()) if parameter.dim() > 1 else None


class EfficientNet(PictureTower):
    """pictures (N, 3, S, S) -> vectors (N, 1280): the mean over all places of the last convolution."""

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        by_block: dict[str, dict[str, NormedConvolution]] = {}
        for c in convolutions():
            block, _, part = c.name.rpartition(".")
            by_block.setdefault(block, {})[part] = NormedConvolution(c, bends=part != "project")
        self.stem, self.head = by_block[""]["stem"], by_block[""]["head"]
        self.blocks = nn.Sequential(*(Inverted(parts) for block, parts in by_block.items() if block))
        self.dropout, self.with_stages = Dropout(config.dropout), config.stages
        self.norm = FixedNorm(config.width) if config.solved else None

    def forward(self, pictures: Tensor, attend: Attend) -> Tensor:
        x_ND = self.vectors(pictures)
        return self.dropout(x_ND if self.norm is None else self.norm(x_ND))

    def begun(self, pictures: Tensor) -> Tensor:
        """What the first convolution makes of pictures; channels lie side by side, which convolves faster on a CPU."""
        standardised = standard(pictures, MEAN, DEVIATION)
        return self.stem(standardised.contiguous(memory_format=torch.channels_last))

    def vectors(self, pictures: Tensor) -> Tensor:
        """What it makes of pictures before that is standardised: (N, D)."""
        if self.with_stages:
            return self.stages(pictures)
        x_NCSS = self.begun(pictures)
        vectors: Tensor = self.head(self.blocks(x_NCSS)).mean((2, 3))
        return vectors

    def settle(self, pictures: Tensor) -> None:
        """Take the statistics of what it makes of all pictures of training."""
        if self.norm:
            self.norm.settle(torch.cat([self.vectors(some) for some in torch.split(pictures, AT_ONCE)]))

    def stages(self, pictures: Tensor) -> Tensor:
        """The means over all places of what the last three stages end with, and then the vector: (N, 1904)."""
        x_NCSS, found = self.begun(pictures), []
        for i, block in enumerate(self.blocks, start=1):
            x_NCSS = block(x_NCSS)
            found += [x_NCSS.mean((2, 3))] if i in LAST_BLOCKS else []
        return torch.cat([*found, self.head(x_NCSS).mean((2, 3))], 1)


class Inverted(nn.Module):
    """An inverted residual: widened, convolved channel by channel, narrowed; added to x where the shapes are alike."""

    def __init__(self, parts: dict[str, NormedConvolution]) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = parts.get("expand"), parts["depthwise"], parts["project"]
        first = self.depthwise if self.expand is None else self.expand
        self.adds = self.depthwise.stride == 1 and first.weight.shape[1] * first.groups == len(self.project.weight)

    def forward(self, x_NCSS: Tensor) -> Tensor:
        y_NCSS = x_NCSS if self.expand is None else self.expand(x_NCSS)
        y_NCSS = self.project(self.depthwise(y_NCSS))
        return x_NCSS + y_NCSS if self.adds else y_NCSS


class NormedConvolution(nn.Module):
    """A convolution, a batch norm with fixed statistics, ReLU6; padded as TensorFlow does, more behind than before."""

    mean: Tensor
    variance: Tensor

    def __init__(self, c: Convolving, bends: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c.outputs, c.inputs // c.groups, c.side, c.side))
        self.gain, self.shift = nn.Parameter(torch.ones(c.outputs)), nn.Parameter(torch.zeros(c.outputs))
        self.register_buffer("mean", torch.zeros(c.outputs))
        self.register_buffer("variance", torch.ones(c.outputs))
        self.stride, self.groups, self.side, self.bends = c.stride, c.groups, c.side, bends

    def forward(self, x_NCSS: Tensor) -> Tensor:
        size = x_NCSS.shape[-1]
        pad = max((math.ceil(size / self.stride) - 1) * self.stride + self.side - size, 0)
        before, behind = pad // 2, pad - pad // 2
        factor = self.gain * (self.variance + 1e-3).rsqrt()
        x_NCSS = F.pad(x_NCSS, (before, behind, before, behind)) if pad else x_NCSS
        x_NCSS = F.conv2d(
            x_NCSS, self.weight * factor[:, None, None, None], self.shift - self.mean * factor, self.stride, 0, 1,
            self.groups,
        )  # fmt: skip
        return F.relu6(x_NCSS) if self.bends else x_NCSS
