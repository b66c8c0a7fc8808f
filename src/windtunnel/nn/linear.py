"""The product of tokens with a matrix of weights; `torch.nn.functional.linear` is its twin and runs where it is best.

On a CPU in bfloat16 four things are done differently with large matrices. A product that oneDNN would give to one core
of two is computed in parts. The logits of a large vocabulary lie in memory token after token for each of its entries.
The backward pass casts the weights again instead of keeping a copy of all of them in bfloat16. And a large gradient is
cast to float32 piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**19
"""Below this many weights the special cases below cost more than they save."""

PIECE = 4096
"""Rows of a weight's gradient that are cast at a time; with more rows the product is computed the other way round.

oneDNN first copies a transposed operand into its own layout, on one core. Of x @ weight.T that is the weights, of
weight @ x.T the tokens; and the gradient that comes back in this order is not transposed in the product with them.
"""


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `linear`.

    Args:
        parts: numbers of rows of the matrices that its weight is packed of, as queries, keys and values are; None is
            one matrix.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, parts: Sequence[int] | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.parts = [outputs] if parts is None else list(parts)

    def forward(self, x_TI: Tensor) -> Tensor:
        """x (..., inputs) -> (..., outputs)."""
        return linear(x_TI, self.weight, self.bias)


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: x (..., inputs), weight (outputs, inputs), bias (outputs) -> (..., outputs)."""
    if not (is_large(weight_OI) and torch.is_autocast_enabled("cpu")):
        return F.linear(x_TI, weight_OI, bias_O)
    x_NI = x_TI.flatten(0, -2).to(torch.get_autocast_dtype("cpu"))
    other_way = len(weight_OI) > PIECE and bias_O is None and torch.is_grad_enabled()
    y_NO: Tensor = _Linear.apply(x_NI, weight_OI, bias_O, other_way)  # type: ignore[no-untyped-call]
    return torch.unflatten(y_NO, 0, x_TI.shape[:-1])


def is_large(weight: Tensor) -> bool:
    """Whether a weight is on a CPU and so large that its products and gradient are worth doing differently."""
    return weight.device.type == "cpu" and weight.numel() >= LARGE


class _Linear(torch.autograd.Function):
    """x (N, I) in the type to multiply in, weight (O, I) and bias (O) in their own -> (N, O) in the type of x."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, other_way: bool) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        cast_OI = weight_OI.to(x_NI.dtype)
        if other_way:
            return (cast_OI @ x_NI.T).T
        return product(x_NI, cast_OI.T, None if bias_O is None else bias_O.to(x_NI.dtype))

    @staticmethod
    def backward(ctx: Any, g_NO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_NI, weight_OI = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        return (
            product(g_NO, weight_OI.to(g_NO.dtype)) if for_x else None,
            weight_gradient(g_NO, x_NI, weight_OI.dtype) if for_weight else None,
            g_NO.sum(0, dtype=weight_OI.dtype) if for_bias else None,
            None,
        )


def product(a_NK: Tensor, b_KM: Tensor, added_M: Tensor | None = None) -> Tensor:
    """a @ b, and a vector added to every row; in four parts where the whole would leave a core idle."""
    parts = a_NK.chunk(4) if leaves_a_core_idle(len(a_NK), b_KM.shape[1]) else (a_NK,)
    products = [part @ b_KM if added_M is None else torch.addmm(added_M, part, b_KM) for part in parts]
    return torch.cat(products) if len(products) > 1 else products[0]


def leaves_a_core_idle(n_rows: int, n_columns: int) -> bool:
    """Whether oneDNN 3.12 gives a product with an output of this shape to one core of two.

    Found by counting the busy cores for a grid of shapes, on a chip that multiplies tiles (AMX); benchmarks/products.py
    counts them for GPT-2's.
    """
    return 512 <= n_rows <= 1024 and n_rows <= 2 * n_columns <= 2 * n_rows and two_cores_with_tiles()


def two_cores_with_tiles() -> bool:
    """Whether this process computes on two threads of a chip that multiplies tiles."""
    return torch.get_num_threads() == 2 and torch.cpu._is_amx_tile_supported()


def weight_gradient(g_NO: Tensor, x_NI: Tensor, dtype: torch.dtype) -> Tensor:
    """g.T @ x, (O, I), in the type of the weights."""
    if g_NO.shape[1] <= PIECE:
        return (g_NO.T @ x_NI).to(dtype)
    gradient_OI = x_NI.new_empty((g_NO.shape[1], x_NI.shape[1]), dtype=dtype)
    for into_oI, g_No in zip(torch.split(gradient_OI, PIECE), torch.split(g_NO, PIECE, dim=1), strict=True):
        into_oI.copy_(g_No.T @ x_NI)
    return gradient_OI
