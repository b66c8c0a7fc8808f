"""The trained weights of EfficientNet-Lite0, out of the package that `windtunnel models get` fetches it from."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

import torch
from torch import Tensor

from windtunnel.errors import ArtifactError
from windtunnel.files import read_file
from windtunnel.models.pretrained.catalogue import LITE0, find_model

NAMES = {"_conv_stem": "stem", "_bn0": "stem", "_conv_head": "head", "_bn1": "head"}
INSIDE = {
    "_expand_conv": "expand", "_bn0": "expand", "_depthwise_conv": "depthwise", "_bn1": "depthwise",
    "_project_conv": "project", "_bn2": "project",
}  # fmt: skip
LAST = {"weight": "gain", "bias": "shift", "running_mean": "mean", "running_var": "variance"}
"""What the numbers of a batch norm are called here."""


@lru_cache(maxsize=1)
def lite0_file() -> dict[str, Tensor]:
    """All tensors of the file by its own names, `_fc`, the classifier of ImageNet's 1,000 classes, among them.

    Raises:
        DataError: when it has not been fetched.
        ArtifactError: when it is not the file that is expected.
    """
    (member,) = LITE0.members
    path = find_model(LITE0.name)[0]
    data = read_file(path, size=member.size)
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise ArtifactError(f"{path} was altered; delete it and get it again: windtunnel models get {LITE0.name}")
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return tensors


def lite0_weights() -> dict[str, Tensor]:
    """The weights and statistics of `EfficientNet`, by their names there; raises as `lite0_file`."""
    return {name: tensor for old, tensor in lite0_file().items() if (name := _named(old))}


def _named(old: str) -> str:
    """Our name of a tensor; empty for one that is not used."""
    *within, module, last = old.split(".")
    if module == "_fc" or last == "num_batches_tracked":
        return ""
    part = INSIDE[module] if within else NAMES[module]
    norm = module.startswith("_bn")
    return ".".join(filter(None, (f"blocks.{within[1]}" if within else "", part, LAST[last] if norm else last)))
