"""Whether a model of pictures and captions makes nearly the same vector of all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windtunnel.models import CLIP
from windtunnel.nn.mode import evaluating
from windtunnel.text.batches import Batch


@dataclass(frozen=True)
class Collapse:
    """The mean cosine of two different pictures' vectors, and of two captions': 1 where all are the same."""

    pictures: float
    captions: float


def collapse(model: nn.Module, batch: Batch) -> Collapse | None:
    """Measured on a batch; None for a model of another family."""
    if not isinstance(model, CLIP):
        return None
    inputs = batch.inputs
    with torch.no_grad(), evaluating(model):
        seen = model.encode_pictures(inputs["pictures"])
        read = model.encode_texts(inputs["ids"], inputs.get("kept"))
    return Collapse(_mean_cosine(seen), _mean_cosine(read))


def _mean_cosine(x_ND: Tensor) -> float:
    """Of all pairs of different rows of length 1."""
    n = len(x_ND)
    return float((x_ND.double().sum(0).square().sum() - n) / (n * (n - 1)))
