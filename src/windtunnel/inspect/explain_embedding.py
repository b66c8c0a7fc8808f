"""An embedding is a table whose rows are looked up; what it does with an id that it does not have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from windtunnel.errors import ConfigError

LARGEST = 10**7
"""Numbers that a table made here may hold."""


@dataclass(frozen=True)
class Lookup:
    """Rows looked up in a table of shape `table`: one for each id, in order, so the result is ids x width.

    one_hot_difference: largest difference to one-hot ids times the table, the matrix product that a lookup saves.
    """

    table: tuple[int, int]
    ids: tuple[int, ...]
    shape: tuple[int, ...]
    rows: tuple[tuple[float, ...], ...]
    n_parameters: int
    one_hot_difference: float
    seed: int


def explain_embedding(table: str, ids: str, seed: int = 42) -> Lookup:
    """Look ids, such as 1,3,5, up in a new table, such as 10x5, filled with N(0, 1) as torch does.

    Raises:
        ConfigError: for a table or ids that cannot be read, and an id outside the table, with torch's own words.
    """
    found = re.fullmatch(r"([0-9]{1,8})x([0-9]{1,8})", table.strip())
    n_rows, width = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= n_rows * width <= LARGEST:
        raise ConfigError(
            f"expected a table as ROWSxWIDTH, such as 10x5, up to {LARGEST:,} numbers, given {table[:40]!r}"
        )
    numbers = _ids(ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedding = nn.Embedding(n_rows, width)
    ids_T = torch.tensor(numbers)
    with torch.no_grad():
        try:
            rows_TD = embedding(ids_T)
        except IndexError as error:
            raise ConfigError(_outside(numbers, n_rows, str(error))) from None
        one_hot = F.one_hot(ids_T, n_rows).float() @ embedding.weight
        difference = float((one_hot - rows_TD).abs().max())
    rows = tuple(tuple(row) for row in rows_TD.tolist())
    return Lookup((n_rows, width), tuple(numbers), tuple(rows_TD.shape), rows, n_rows * width, difference, seed)


def _ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[+-]?[0-9]{1,15}", part) for part in parts) or len(parts) > 1000:
        raise ConfigError(f"expected 1 to 1000 whole numbers with commas between, such as 1,3,5, given {text[:60]!r}")
    return [int(part) for part in parts]


def _outside(ids: Sequence[int], n_rows: int, torch_says: str) -> str:
    wrong = next(id for id in ids if not 0 <= id < n_rows)
    why = (
        "an embedding does not count from the end, as a Python list does"
        if wrong < 0
        else (f"{n_rows} rows are numbered from 0")
    )
    return f"there is no row {wrong}: the table has the rows 0 to {n_rows - 1}, and {why}; torch says {torch_says!r}"
