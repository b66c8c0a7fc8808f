"""Which model since the seed a printed number belongs to: the hidden state of a notebook, made visible.

`torch.manual_seed` starts one stream of random numbers, and every model built after it takes its weights from there.
A cell that builds a model and is run again without the one that seeds gives another model, and another number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windtunnel.errors import ConfigError

ROW_IDS = (1, 2, 3, 7)
ROW_TARGETS = (1, 0, 1, 3)
"""The four examples of row 002-3.1, a token and its label each."""


class RowNetwork(nn.Module):
    """The network of row 002-3.1: Embedding(8, 6), Linear(6, 10), ReLU, Linear(10, 4); 162 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 6)
        self.hidden = nn.Linear(6, 10)
        self.out = nn.Linear(10, 4)

    def forward(self, ids_B: Tensor) -> Tensor:
        """Logits (B, 4) of ids (B,)."""
        return self.out(torch.relu(self.hidden(self.embedding(ids_B))))

    def loss(self) -> float:
        """Mean cross-entropy on the row's four examples, in nats."""
        with torch.no_grad():
            return F.cross_entropy(self(torch.tensor(ROW_IDS)), torch.tensor(ROW_TARGETS)).item()


@dataclass(frozen=True)
class Replay:
    """The numbers of the models built one after the other since the seed, and which of them was printed.

    found: 1 for the first model after the seed, a clean run; None when none of them gives the number.
    expected_by_chance: how many of the models would show the printed digits by accident, were the numbers spread
        evenly over their range; far below 1, the match means something. None for a single model.
    """

    printed: str
    seed: int
    found: int | None
    values: tuple[float, ...]
    expected_by_chance: float | None
    draws_a_model: int | None = None

    @property
    def draws(self) -> int | None:
        """Random numbers taken between the seed and the model that was found; 0 for a clean run."""
        return None if self.found is None or self.draws_a_model is None else (self.found - 1) * self.draws_a_model


def replay(build: Callable[[], float], seed: int, printed: str, most: int = 50) -> Replay:
    """Seed once, then build models until one gives the printed number.

    Args:
        build: builds a new model with torch's generator and gives the number that its author printed.
        printed: as printed: 1.3745 is met by all that round to it, 1.3744735717773438 by that number alone.

    Raises:
        ConfigError: when the printed value is no number, or `most` is below 1.
    """
    decimals = _decimals(printed)
    if most < 1:
        raise ConfigError(f"at least one model is built, given {most}")
    values: list[float] = []
    with seeded(seed):
        while len(values) < most and not (values and _equal(values[-1], printed, decimals)):
            values.append(float(build()))
    found = len(values) if _equal(values[-1], printed, decimals) else None
    return Replay(printed.strip(), seed, found, tuple(values), _chance(values, decimals))


def _chance(values: Sequence[float], decimals: int) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite) - min(finite) if finite else 0.0
    if not spread:
        return None
    step = 10.0 ** -min(decimals, 7)  # float32 tells no more digits apart
    return min(1.0, step / spread) * len(values)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block that begins with torch.manual_seed(seed) and leaves the caller's generator as it was."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"expected a seed of 0 to 2^63 - 1, given {seed}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _decimals(printed: str) -> int:
    try:
        value = float(printed)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"expected a printed number such as 1.3745, given {printed[:40]!r}")
    mantissa, _, exponent = printed.strip().lower().partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)


def _equal(value: float, printed: str, decimals: int) -> bool:
    """Whether a value rounds to what was printed; with all digits only the number itself does."""
    return abs(value - float(printed)) <= 0.5 * 10.0**-decimals * (1 + 1e-9)


def row_replay(printed: str, seed: int = 42, most: int = 50) -> Replay:
    """`replay` for the network of row 002-3.1; each model takes one draw for each of its 162 parameters."""
    found = replay(lambda: RowNetwork().loss(), seed, printed, most)
    draws = sum(parameter.numel() for parameter in RowNetwork().parameters())
    return replace(found, draws_a_model=draws)


def built(seed: int, number: int) -> RowNetwork:
    """The row's network that is built as `number`-th since the seed, from 1."""
    if number < 1:
        raise ConfigError(f"models are counted from 1, the first after the seed, given {number}")
    with seeded(seed):
        for _ in range(number - 1):
            RowNetwork()
        return RowNetwork()
