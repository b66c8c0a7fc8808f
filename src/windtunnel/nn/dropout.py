"""Dropout that costs a CPU little: torch draws each element's fate in sequence, here it is a hash of the position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """In training each element is zero with probability p (Srivastava et al. 2014); see `dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p if self.training else 0.0)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def dropout(x: Tensor, p: float) -> Tensor:
    """x with each element zero with probability p, a multiple of 2^-32, and the others divided by 1 - p.

    What is dropped is a function of two numbers from torch's generator, the same whether compiled or not. Compiled, a
    forward and backward pass take a tenth of the time of torch's (benchmarks/dropout.py), because nothing random is
    stored and nothing is sequential. Other devices than a CPU have fast generators of their own.
    """
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped = hashes(x.shape) < min(round((p - 0.5) * 2**32), 2**31 - 1)
    return torch.where(dropped, 0.0, x * (1 / (1 - p)))


def hashes(shape: torch.Size) -> Tensor:
    """Integers spread evenly over all of int32, a new set at every call: the positions, mixed with two random numbers.

    The mixing is that of MurmurHash3's end (Appleby) with the multipliers that Wellons found to leave the least bias
    ("Prospecting for hash functions", 2018): multiply, then fold the high bits onto the low ones. Here, `>>` copies
    the sign into the high bits, which the masks take away again.
    """
    first, second = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32).unbind()
    x = torch.arange(shape.numel(), dtype=torch.int32).view(shape) * -0x61C88647 ^ first
    x = (x ^ x >> 16 & 0xFFFF) * 0x7FEB352D + second
    x = (x ^ x >> 15 & 0x1FFFF) * -0x7B935975
    return x ^ x >> 16 & 0xFFFF
