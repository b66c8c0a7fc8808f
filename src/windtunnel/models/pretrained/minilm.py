"""The trained weights of MiniLM-L6 for a tower of captions, out of the package that `windtunnel models get` fetches."""

from __future__ import annotations

from torch import Tensor

from windtunnel.models.pretrained.catalogue import MINILM, find_model
from windtunnel.models.pretrained.read import read_pretrained

POSITIONS = "trunk.position.embedding.weight"


def minilm_weights(context_length: int) -> dict[str, Tensor]:
    """The weights of the trunk by their names there, with so many positions; raises as `read_pretrained`."""
    weights = read_pretrained(find_model(MINILM.name)[0]).weights
    trunk = {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}
    return trunk | {POSITIONS: trunk[POSITIONS][:context_length]}
