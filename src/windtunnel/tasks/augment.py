"""Pictures changed a little in training, so that a model learns what they show and not their pixels."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from windtunnel.config import Config
from windtunnel.text.shuffle import scrambled

Share = Annotated[float, Field(ge=0, lt=1)]


class AugmentConfig(Config):
    """By how much a picture is changed in training, drawn for each picture and epoch; 0 is not at all."""

    shift: Share = 0.1
    """Moved by up to this share of a side, both ways; what comes in is white."""
    scale: Share = 0.15
    """Made larger or smaller by up to this share."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Turned by up to this many degrees."""
    colour: Share = 0.2
    """Brightness, contrast and saturation times up to 1 plus or minus this."""
    flip: bool = False
    """Whether half of the pictures are mirrored; captions that say left or right are wrong then."""

    @property
    def moves(self) -> bool:
        """Whether a picture's shapes are changed."""
        return bool(self.shift or self.scale or self.rotate or self.flip)


def uniform(key: int, places: np.ndarray, n: int) -> np.ndarray:
    """n numbers from 0 to 1 for each place, (len(places), n): a function of the key and the place alone."""
    each = scrambled(np.uint64(key) ^ scrambled(places.astype(np.uint64)))[:, None] + np.arange(
        1, n + 1, dtype=np.uint64
    )
    return (scrambled(each) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def augmented(pictures: Tensor, config: AugmentConfig, key: int, places: np.ndarray) -> Tensor:
    """Pictures (N, 3, S, S) from 0 to 1, changed; each by its key and its place in the store, whatever is beside it.

    Args:
        key: of the epoch.
        places: (N,), of each picture its place in the store.
    """
    drawn = torch.from_numpy(uniform(key, places, 8)).float()
    signed = 2 * drawn - 1
    if config.moves:
        pictures = _moved(pictures, config, signed[:, :4], drawn[:, 4] < 0.5)
    if config.colour:
        pictures = _coloured(pictures, 1 + config.colour * signed[:, 5:, None, None, None])
    return pictures


def _moved(pictures: Tensor, config: AugmentConfig, signed_N4: Tensor, mirrored_N: Tensor) -> Tensor:
    """Shifted, scaled, turned and mirrored on white, with bilinear interpolation."""
    angle, factor = signed_N4[:, 0] * math.radians(config.rotate), 1 + config.scale * signed_N4[:, 1]
    sign = torch.where(mirrored_N, -1.0, 1.0) if config.flip else torch.ones_like(angle)
    cos, sin = angle.cos() / factor, angle.sin() / factor
    shift_N2 = 2 * config.shift * signed_N4[:, 2:]  # a side is 2 wide
    rows = [sign * cos, -sin, shift_N2[:, 0], sign * sin, cos, shift_N2[:, 1]]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)  # beyond a picture there is 0, here white


def _coloured(pictures: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation times the factors (N, 3, 1, 1, 1)."""
    pictures = pictures * factors[:, 0]
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = mean + (pictures - mean) * factors[:, 1]
    grey = pictures.mean(1, keepdim=True)
    return (grey + (pictures - grey) * factors[:, 2]).clamp(0, 1)
