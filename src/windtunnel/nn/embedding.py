"""A table that is looked up by tokens and multiplied with by the head (Press & Wolf 2017, arXiv 1608.05859)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.nn.linear import is_large


def lookup(ids: Tensor, table_VD: Tensor) -> tuple[Tensor, Tensor]:
    """The table's rows (..., D) of the ids (...), and the table again, for the head to use.

    So its gradient from the head, which has every row, is what the rows' gradients are added to. Autograd by itself
    makes a second tensor as large as the table for them, which for a small one takes less time than this. Elsewhere
    than on a CPU that is what happens: there torch's documentation calls adding rows in place nondeterministic.
    """
    if not (is_large(table_VD) and torch.is_grad_enabled()):
        return F.embedding(ids, table_VD), table_VD
    rows, again_VD = _Lookup.apply(ids, table_VD)  # type: ignore[no-untyped-call]
    return rows, again_VD


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, table_VD: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        return F.embedding(ids, table_VD), table_VD.view_as(table_VD)

    @staticmethod
    def backward(ctx: Any, g_rows: Tensor, g_VD: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        add = g_VD.index_add if torch.is_grad_enabled() else g_VD.index_add_  # a gradient of gradients needs both
        return None, add(0, ids.flatten(), g_rows.flatten(0, -2))
