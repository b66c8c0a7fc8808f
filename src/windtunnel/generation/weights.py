"""Weights in the form in which decoding reads them: float32, bfloat16, or int8 with a scale for each row.

One new token of one sequence is a product of every matrix with one vector, and takes as long as reading the matrices.
Products of a few vectors are written as `(weight.float() * x).sum(-1)`: compiled, that reads the weights in their
stored form and turns them to float32 in registers. More vectors go to the matrix product of a library.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.errors import ConfigError
from windtunnel.models import Transformer, as_transformer
from windtunnel.nn.linear import is_large
from windtunnel.training.run import TrainedModel

Weights = Literal["fp32", "bf16", "int8"]

FEW = 8
"""Vectors. Up to this many are multiplied by sums in one loop over the weights; beyond, a library's matrix product is
faster. Measured with benchmarks/decoding.py --at-once."""


class Rows(nn.Module):
    """A linear layer without gradients, (..., in) -> (..., out) in float32, its weights stored as `kind`.

    With bf16 and int8, more than FEW vectors are multiplied in bfloat16, fewer in float32.
    """

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: Weights) -> None:
        super().__init__()
        stored, scale = store(weight.detach(), kind)
        self.kind = kind
        self.register_buffer("weight", stored)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        n_vectors = x.numel() // self.weight.shape[1]
        if n_vectors > FEW and self.kind != "fp32":
            y = F.linear(x.bfloat16(), self.weight.bfloat16()).float()
        elif n_vectors > FEW or not torch.compiler.is_exporting():
            y = by_library(x, self.weight.float())
        else:
            y = by_sums(x, self.weight)
        if self.scale is not None:
            y = y * self.scale
        return y if self.bias is None else y + self.bias


def by_sums(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T in float32 for a few vectors, for a compiler: one loop over the weights in their stored form."""
    # as_strided makes the compiler write x down. Otherwise it puts what computes x, such as a norm or a GELU,
    # into the loop over the weights and computes it once a row: with int8 that took most of the step.
    x_NI = x.as_strided(x.shape, x.stride()).reshape(-1, x.shape[-1])
    y_NO = torch.stack([(weight.float() * x_I).sum(-1) for x_I in x_NI.unbind()])
    return y_NO.reshape(*x.shape[:-1], -1)


def by_library(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T in float32; large matrices by oneDNN where torch has it, since MKL is slow with AMD's processors."""
    has_one_dnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (is_large(weight) and has_one_dnn):
        return F.linear(x, weight)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


def store(weight: Tensor, kind: Weights) -> tuple[Tensor, Tensor | None]:
    """A matrix (out, in) as it is stored, and what its rows are multiplied by, (out,), for int8.

    int8 is symmetric: a row's largest absolute value becomes 127 (Dettmers et al. 2022, arXiv 2208.07339, section 2.1).
    """
    if kind != "int8":
        return weight.to(torch.float32 if kind == "fp32" else torch.bfloat16), None
    scale = weight.abs().amax(dim=1).clamp(min=1e-30) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def with_weights(model: Transformer, kind: Weights) -> Transformer:
    """The model for decoding only, its matrices stored as `kind`; float32 matrices are shared with the model.

    The embedding, of which one row a token is read, stays in float32; a head tied to it is stored by itself.
    """
    head = model.embedding if model.head is None else model.head
    memo: dict[int, object] = {id(p): p for p in (*model.parameters(), *model.buffers())}  # shared, not copied
    decoder = copy.deepcopy(model, memo)
    for module in list(decoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Rows(child.weight, child.bias, kind))
    setattr(decoder, "head", Rows(head.weight, None, kind))  # noqa: B010
    return decoder.eval()


def weights_of(model: nn.Module) -> Weights:
    """The form of a model's weights."""
    return next((module.kind for module in model.modules() if isinstance(module, Rows)), "fp32")


def read_as(trained: TrainedModel, kind: str) -> TrainedModel:
    """A trained model with its weights stored as `kind`; fp32 is the model itself.

    Raises:
        ConfigError: for another kind, or for another model than a transformer.
    """
    if kind not in get_args(Weights):
        raise ConfigError(f"weights are stored as one of {', '.join(get_args(Weights))}; given {kind!r}")
    if kind == "fp32":
        return trained
    return replace(trained, model=with_weights(as_transformer(trained.model, f"weights={kind}"), kind))  # type: ignore[arg-type]
