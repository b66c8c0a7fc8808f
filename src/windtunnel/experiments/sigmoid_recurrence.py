"""Recurrences through a sigmoid: their Jacobians over any distance, and one trained to predict the next letter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.text.batches import IGNORED, Batch, Documents, trim
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import TextConfig, TokenStore, prepare

QUARTER = 0.25
"""The largest slope of a sigmoid; and the largest singular value of W that the bound of 004-1.2.1 assumes."""
LR, BATCH = 0.01, 64


def run(w_NDD: Tensor, x_ND: Tensor, steps: int) -> Tensor:
    """x_1 and so many steps of x_{t+1} = sigmoid(W x_t): (N, steps + 1, D)."""
    states = [x_ND]
    for _ in range(steps):
        states.append(torch.einsum("nij,nj->ni", w_NDD, states[-1]).sigmoid())
    return torch.stack(states, dim=1)


def jacobians(w_NDD: Tensor, states_NTD: Tensor) -> Tensor:
    """∂x_{t+1}/∂x_t = diag(x_{t+1} (1 - x_{t+1})) W of every step, (N, T - 1, D, D), also where letters come in."""
    after = states_NTD[:, 1:]
    return (after * (1 - after))[..., None] * w_NDD[:, None]


def largest(matrices: Tensor) -> Tensor:
    """The largest singular value of each of (..., D, D)."""
    return torch.linalg.matrix_norm(matrices, 2)


def log_sizes(steps_NTDD: Tensor) -> Tensor:
    """ln σ_max(∂x_{k+1}/∂x_1) of each distance k = 1 ... T from the Jacobians of T steps, (N, T).

    The product is divided by its size after each step, so that it neither underflows nor overflows.
    """
    product, logs = torch.eye(steps_NTDD.shape[-1], dtype=steps_NTDD.dtype), []
    total = torch.zeros(len(steps_NTDD), dtype=steps_NTDD.dtype)
    for step in steps_NTDD.unbind(1):
        product = step @ product
        size = largest(product)
        total = total + size.log()
        product = product / size[:, None, None]
        logs.append(total)
    return torch.stack(logs, dim=1)


def rescaled(w: Tensor, size: float = QUARTER) -> Tensor:
    """The same matrices with this largest singular value, (..., D, D)."""
    return w * (size / largest(w))[..., None, None]


def open_names() -> tuple[Batch, Batch]:
    """The bundled names, train and dev: all names of a split as one batch."""
    store = prepare(open_corpus("names", "line"), TextConfig())
    return names_of(store, "train"), names_of(store, "dev")


def names_of(store: TokenStore, split: str) -> Batch:
    """Every name of a split, whole."""
    part, end = store.splits[split], store.tokenizer.end_id
    assert part.offsets is not None
    assert end is not None
    names = Documents(part.ids, part.offsets, end, context_length=int(np.diff(part.offsets).max()) + 1, name=split)
    return names.take(np.arange(len(names)))


@dataclass(frozen=True)
class Recurrence:
    """x_{t+1} = sigmoid(W x_t + U e_t) from x_1 = 0, and logits V x_{t+1} + b.

    w: (D, D). u: (vocabulary, D), the row of a letter is U e. v: (vocabulary, D). b: (vocabulary,).
    """

    w: Tensor
    u: Tensor
    v: Tensor
    b: Tensor

    def states(self, ids_NT: Tensor) -> Tensor:
        """x_1 ... x_{T+1}, (N, T + 1, D)."""
        states, inputs = [self.u.new_zeros(len(ids_NT), len(self.w))], self.u[ids_NT]
        for t in range(ids_NT.shape[1]):
            states.append(torch.addmm(inputs[:, t], states[-1], self.w.T).sigmoid())
        return torch.stack(states, dim=1)

    def loss(self, rows: Batch) -> Tensor:
        """Nats a letter."""
        logits = self.states(rows.ids)[:, 1:] @ self.v.T + self.b
        return F.cross_entropy(logits.flatten(0, 1), rows.targets.flatten(), ignore_index=IGNORED)

    def double(self) -> Recurrence:
        """The same in float64, without gradients."""
        return Recurrence(*(part.detach().double() for part in (self.w, self.u, self.v, self.b)))


def train(
    rows: Batch, width: int, steps: int, seed: int, after_step: Callable[[Tensor], Tensor] | None = None
) -> Recurrence:
    """Train on batches of names with Adam; `after_step` replaces W after every step, and at the beginning."""
    generator = torch.Generator().manual_seed(seed)
    n_ids = int(rows.ids.max()) + 1
    shapes = ((width, width), (n_ids, width), (n_ids, width), (n_ids,))
    parts = [torch.randn(shape, generator=generator).mul_(shape[-1] ** -0.5).requires_grad_() for shape in shapes]
    model, optimizer = Recurrence(*parts), torch.optim.Adam(parts, lr=LR)
    n = len(rows.ids)
    for step in range(steps):
        if after_step is not None:
            parts[0].data = after_step(parts[0].data)
        optimizer.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(n, (BATCH,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(model.loss(trim(Batch({"ids": rows.ids[chosen]}, rows.targets[chosen]))))
        optimizer.step()
    if after_step is not None:
        parts[0].data = after_step(parts[0].data)
    return model.double()
