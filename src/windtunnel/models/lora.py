"""LoRA: W x becomes W x + s B A x, and of a model the thin A and B are trained (Hu et al. 2021, arXiv 2106.09685).

A weight that is packed of parts, as queries, keys and values are, has an A and a B for each part that is adapted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import torch
from pydantic import BeforeValidator, Field, NonNegativeInt
from torch import Tensor, nn

from windtunnel.config import Config
from windtunnel.errors import ConfigError
from windtunnel.models.classifier import Classifier, ClassifierConfig
from windtunnel.models.family import ModelConfig
from windtunnel.models.transformer import TransformerConfig
from windtunnel.nn.blocks import blocks_of
from windtunnel.nn.init import stream
from windtunnel.nn.linear import Linear, linear

Target = Literal["q", "k", "v", "out", "gate", "widen", "narrow", "linear"]
PARTS: dict[str, tuple[Target, ...]] = {
    "qkv": ("q", "k", "v"),
    **{name: (name,) for name in get_args(Target)[3:]},
}
"""What the parts of a block's linear layers are called, by the layer's own name."""
A, B = "lora_a", "lora_b"
M = TypeVar("M", bound=nn.Module)


def _listed(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


class LoraConfig(Config):
    """Which matrices of a trained model get thin ones beside them; all its own weights stay as they are.

    The head of a classifier is trained, too; that of a language model is one of the weights that stay.
    """

    rank: NonNegativeInt = 0
    """Rows of each A and columns of each B; 0 is no LoRA."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """B A x is multiplied by alpha / rank; None is alpha = 2 rank."""
    targets: Annotated[tuple[Target, ...], BeforeValidator(_listed)] = get_args(Target)
    """Which matrices are adapted, of those that the blocks have."""

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


class Place(NamedTuple):
    """A linear layer that is adapted: the name of its weight's module, and which of its parts."""

    name: str
    layer: Linear
    adapted: tuple[bool, ...]

    @property
    def parts(self) -> list[Target]:
        """What its adapted parts are called."""
        names = PARTS[self.name.rpartition(".")[2]]
        return [part for part, own in zip(names, self.adapted, strict=True) if own]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The rows of the weight that each adapted part is."""
        ends = accumulate(self.layer.parts)
        each = zip(ends, self.layer.parts, self.adapted, strict=True)
        return [(end - n, end) for end, n, adapted in each if adapted]

    def widened(self, a: Tensor, b: Tensor) -> Tensor:
        """B (outputs, parts * rank) of all parts at once, zero where a part has nothing to do with a row.

        Args:
            a: (parts * rank, inputs), b: (rows of all adapted parts, rank), as a checkpoint has them.
        """
        rank = b.shape[1]
        wide = b.new_zeros(self.layer.out_features, len(a))
        rows = torch.split(b, [end - start for start, end in self.spans])
        for i, ((start, end), own) in enumerate(zip(self.spans, rows, strict=True)):
            wide[start:end, i * rank : (i + 1) * rank] = own
        return wide


def places(model: nn.Module, config: LoraConfig) -> Iterator[Place]:
    """The layers inside the blocks of a model that are adapted, in order."""
    inside = {id(module) for block in blocks_of(model) for module in block.modules()}
    for name, layer in model.named_modules():
        names = PARTS.get(name.rpartition(".")[2], ()) if id(layer) in inside else ()
        adapted = tuple(part in config.targets for part in names)
        if isinstance(layer, Linear) and any(adapted):
            yield Place(name, layer, adapted)


class LoraLinear(Linear):
    """A linear layer with thin matrices beside its weight, which is frozen."""

    def __init__(self, place: Place, config: LoraConfig) -> None:
        base = place.layer
        with torch.device("meta"):
            super().__init__(base.in_features, base.out_features, parts=base.parts)
        self.weight, self.bias = base.weight, base.bias
        self.adapted, self.rank, self.scale = place.adapted, config.rank, config.scale
        self.rows = [end - start for start, end in place.spans]
        self.lora_a = nn.Parameter(base.weight.new_zeros(len(self.rows) * config.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(sum(self.rows), config.rank))

    def forward(self, x_TI: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        y_TO = linear(x_TI, self.weight, self.bias)
        low_TR = linear(x_TI, self.lora_a) * self.scale
        each = zip(torch.split(low_TR, self.rank, dim=-1), torch.split(self.lora_b, self.rows), strict=True)
        wide = [linear(low, b) for low, b in each]
        added = [
            wide.pop(0) if own else y_TO.new_zeros(*y_TO.shape[:-1], n)
            for n, own in zip(self.parts, self.adapted, strict=True)
        ]
        return y_TO + torch.cat(added, dim=-1)


def adapt(model: M, config: LoraConfig, seed: int) -> M:
    """The model, frozen but for the head of a classifier, with thin matrices beside its own; with rank 0 as it is.

    B is zero, so that the model is the same function; A is uniform up to 1 / sqrt(inputs), a function of (seed, name).
    """
    if not config.rank:
        return model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(isinstance(model, Classifier) and name.startswith("head."))
    for place in list(places(model, config)):
        layer = LoraLinear(place, config)
        generator = torch.Generator().manual_seed(stream(seed, "weights", f"{place.name}.{A}"))
        drawn = torch.rand(layer.lora_a.shape, generator=generator, device="cpu") * 2 - 1
        with torch.no_grad():
            layer.lora_a.copy_(drawn * layer.in_features**-0.5)
        above, _, leaf = place.name.rpartition(".")
        setattr(model.get_submodule(above), leaf, layer)
    return model


def merged(weights: Mapping[str, Tensor], model: ModelConfig, config: LoraConfig) -> dict[str, Tensor]:
    """The weights of the same function without thin matrices: W + s B A. With rank 0 they are as they were."""
    plain = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[2] not in (A, B)}
    for place in empty_places(model, config) if config.rank else ():
        a, b = weights.get(f"{place.name}.{A}"), weights.get(f"{place.name}.{B}")
        name = f"{place.name}.weight"
        if a is not None and b is not None and name in plain:
            product = place.widened(a.double(), b.double()) @ a.double() * config.scale
            plain[name] = (plain[name].double() + product).to(plain[name].dtype)
    return plain


def empty_places(model: ModelConfig, config: LoraConfig) -> list[Place]:
    """`places` of a model of these settings, without weights."""
    with torch.device("meta"):
        return list(places(model.create(), config))


def check_lora(model: ModelConfig, config: LoraConfig) -> None:
    """Raises ConfigError where a model of these settings cannot be adapted so."""
    if not isinstance(model, TransformerConfig | ClassifierConfig):
        raise ConfigError(
            f"lora.rank={config.rank} adapts the linear layers of blocks, and of the family {model.family} none are "
            "known; use a transformer or a classifier, or leave --lora out"
        )
    found = empty_places(model, config)
    if not found:
        there = dict.fromkeys(part for place in empty_places(model, LoraConfig(rank=1)) for part in place.parts)
        raise ConfigError(
            f"lora.targets={','.join(config.targets)} names no matrix of this model; it has {', '.join(there)}"
        )
    for place in found:
        for (start, end), part in zip(place.spans, place.parts, strict=True):
            most = min(end - start, place.layer.in_features)
            if config.rank > most:
                raise ConfigError(
                    f"lora.rank={config.rank} is larger than the matrix {part} of {place.name}, {end - start} x "
                    f"{place.layer.in_features}; give at most {most}, or leave {part} out of lora.targets"
                )


def trained_note(model: nn.Module, config: LoraConfig) -> str:
    """How many parameters are trained of how many, and how; nothing without LoRA."""
    if not config.rank:
        return ""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, whole = sum(n for n, own in sizes if own), sum(n for n, _ in sizes)
    return (
        f"LoRA of rank {config.rank}, alpha {config.scale * config.rank:g}: {trained:,} of {whole:,} parameters are "
        f"trained ({trained / whole:.2%})"
    )
