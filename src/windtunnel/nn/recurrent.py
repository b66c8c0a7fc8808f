"""Recurrent cells: a state that each token changes is all that is known of the tokens before it.

A layer is torch's own module, whose kernels take whole sequences; `step_reference` is its readable twin. The state of a
layer is (N, B, D): the hidden vector h, and for an lstm its memory c. N is `Cell.n_states`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def elman_step(state_NBD: Tensor, of_x: tuple[Tensor, ...], of_h: tuple[Tensor, ...]) -> Tensor:
    """h = tanh(W x + U h)  (Elman 1990, "Finding structure in time")."""
    return (of_x[0] + of_h[0]).tanh()[None]


def gru_step(state_NBD: Tensor, of_x: tuple[Tensor, ...], of_h: tuple[Tensor, ...]) -> Tensor:
    """Gates keep a part of h and add a part of a candidate (Cho et al. 2014, arXiv 1406.1078, section 2.3).

    The reset gate is applied to the product U h, as in cuDNN and torch, and not to h before it.
    """
    reset, update = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
    candidate = (of_x[2] + reset * of_h[2]).tanh()
    return update * state_NBD + (1 - update) * candidate


def lstm_step(state_NBD: Tensor, of_x: tuple[Tensor, ...], of_h: tuple[Tensor, ...]) -> Tensor:
    """Gates write to a memory c, keep it and show it (Hochreiter & Schmidhuber 1997; Gers et al. 2000: keep)."""
    write, keep, candidate, show = (x + h for x, h in zip(of_x, of_h, strict=True))
    c_BD = keep.sigmoid() * state_NBD[1] + write.sigmoid() * candidate.tanh()
    return torch.stack([show.sigmoid() * c_BD.tanh(), c_BD])


class Cell(NamedTuple):
    """One kind of cell: torch's module, the matrices packed into each of its weights, the vectors of its state."""

    module: Callable[..., nn.RNNBase]
    n_gates: int
    n_states: int
    step: Callable[[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    """(state (N, B, D), W x + b and U h + b of each gate (B, D)) -> the next state (N, B, D)."""


CELLS: dict[str, Cell] = {
    "elman": Cell(nn.RNN, 1, 1, elman_step),
    "gru": Cell(nn.GRU, 3, 1, gru_step),
    "lstm": Cell(nn.LSTM, 4, 2, lstm_step),
}


def step_reference(cell: Cell, layer: nn.RNNBase, x_BI: Tensor, state_NBD: Tensor) -> Tensor:
    """The state (N, B, D) of a layer in one direction after one more token, in plain operations."""
    own = dict(layer.named_parameters())
    of_x = F.linear(x_BI, own["weight_ih_l0"], own.get("bias_ih_l0")).chunk(cell.n_gates, dim=-1)
    of_h = F.linear(state_NBD[0], own["weight_hh_l0"], own.get("bias_hh_l0")).chunk(cell.n_gates, dim=-1)
    return cell.step(state_NBD, of_x, of_h)


def recur(
    layer: nn.RNNBase, x_BTI: Tensor, state_NBD: Tensor | None = None, kept_BT: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Read a sequence: x (B, T, I) -> the hidden vector after each token (B, T, D), and the last state (N, B, D).

    A layer of two directions gives both side by side, 2 x d_state wide: left to right first; the last state of the
    other direction is the one after the first token.

    Args:
        state_NBD: what the layer begins with; None is zeros.
        kept_BT: (B, T) bool, False at the padding on the right of each row, where the vectors are then zeros.
    """
    given: Tensor | tuple[Tensor, ...] | None = state_NBD
    if state_NBD is not None and isinstance(layer, nn.LSTM):
        given = tuple(x_1BD.contiguous() for x_1BD in torch.split(state_NBD, 1))
    if kept_BT is None:
        y_BTD, last = layer(x_BTI, given)
    else:
        packed = pack_padded_sequence(x_BTI, kept_BT.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        y, last = layer(packed, given)
        y_BTD, _ = pad_packed_sequence(y, batch_first=True, total_length=x_BTI.shape[1])
    # (directions, B, D) of h, and for an lstm of c.
    last_NRBD = torch.stack(last if isinstance(last, tuple) else (last,))
    return y_BTD, last_NRBD.transpose(1, 2).flatten(2)


class StateCache:
    """The states of all layers after `length` tokens; of constant size, so that `capacity` is no limit.

    The caller owns it: a model is given one, and leaves in it the states after the tokens that it has read.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.states_LNBD: Tensor | None = None
        """None before the first token is read."""

    def advance(self, n_tokens: int) -> None:
        """Note that n_tokens more have been read."""
        self.length += n_tokens

    def select(self, rows_B: Tensor) -> StateCache:
        """A new cache in which row i holds what row rows_B[i] holds here."""
        chosen = copy.copy(self)
        if self.states_LNBD is not None:
            chosen.states_LNBD = self.states_LNBD.index_select(2, rows_B)
        return chosen
