"""The points of a scaling study: one finished run each, with its size, tokens, compute, seed and loss."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windtunnel.errors import DataError
from windtunnel.files import read_given, write_text
from windtunnel.stats.paired import Floats

SAME_BUDGET = 1.1
"""Runs whose FLOPs lie within this factor of the cheapest one of them are of one budget."""
LARGEST_FILE = 500_000_000
LEAST_RATIO, MOST_RATIO = 0.1, 500
"""C / 6ND of what can be: FLOPs of attention and of a large vocabulary come on top, most in small models."""
NAMES = {
    "parameters": ("parameters", "params", "n", "size", "n_params", "model_size", "non_embedding_parameters"),
    "all_parameters": ("all_parameters", "all_params", "n_all", "total_parameters", "total_params"),
    "tokens": ("tokens", "d", "n_tokens", "training_tokens"),
    "flops": ("flops", "c", "compute", "flop", "training_flops", "training_flop"),
    "budget": ("budget", "nominal_budget"),
    "loss": ("loss", "val_loss", "dev_loss", "l"),
    "seed": ("seed",),
    "epochs": ("epochs", "epoch"),
}
"""Columns of a file, each with the names it may have, in any case."""
LEAST, MOST = 1e-9, {"parameters": 1e18, "all_parameters": 1e18, "tokens": 1e18, "loss": 1e6, "epochs": 1e9}
MOST_FLOPS, MOST_SEED = 1e36, 2**53
"""Numbers beyond these are slips of the pen, which would make every fit one of that row alone; millions, billions or
1e21 FLOPs as the unit lie within."""


@dataclass(frozen=True, eq=False)
class Points:
    """Runs as columns of one length, (n,) each.

    Args:
        parameters: N, without embeddings.
        tokens: D, seen in training; repeats count.
        flops: C of training, counted.
        loss: nats per token on held-out text.
        seed: of the run; runs of one budget and seed may share their noise.
        budget: the nominal budget in FLOPs that a run belongs to; by `budgets_of(flops)` when not given.
        all_parameters: with embeddings.
        epochs: how often the training text was seen.
        notes: what was assumed when the points were read, in sentences.

    Raises:
        DataError: for columns of different lengths, no rows, or a value that is not above 0 or cannot be.
    """

    parameters: Floats
    tokens: Floats
    flops: Floats
    loss: Floats
    seed: NDArray[np.int64]
    budget: Floats | None = None
    all_parameters: Floats | None = None
    epochs: Floats | None = None
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        n = len(np.atleast_1d(self.parameters))
        for name in ("parameters", "tokens", "flops", "loss", "budget", "all_parameters", "epochs"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _column(name, given, n))
        object.__setattr__(self, "seed", np.asarray(self.seed, dtype=np.int64).reshape(-1))
        if len(self.seed) != n:
            raise DataError(f"points: {n} rows of parameters but {len(self.seed)} of seed; give a seed for every run")
        if self.budget is None:
            object.__setattr__(self, "budget", budgets_of(self.flops))

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def budgets(self) -> Floats:
        """The nominal budgets, rising: (n_budgets,)."""
        return np.unique(self.nominal)

    @property
    def nominal(self) -> Floats:
        """The nominal budget of every run: (n,)."""
        assert self.budget is not None
        return self.budget

    def where(self, keep: NDArray[np.bool_]) -> Points:
        """The rows where `keep`, (n,), is true."""
        given = {name: getattr(self, name) for name in NAMES}
        chosen = {name: None if column is None else column[keep] for name, column in given.items()}
        return Points(**chosen, notes=self.notes)  # type: ignore[arg-type]


def budgets_of(flops: ArrayLike) -> Floats:
    """The budget of every run, (n,): the geometric mean of those whose FLOPs lie within 10 % of the cheapest."""
    c = np.asarray(flops, dtype=float)
    order = np.argsort(c, kind="stable")
    budget = np.empty_like(c)
    start = 0
    while start < len(c):
        stop = int(np.searchsorted(c[order], SAME_BUDGET * c[order[start]], side="right"))
        budget[order[start:stop]] = np.exp(np.log(c[order[start:stop]]).mean())
        start = stop
    return budget


def read_points(path: Path) -> Points:
    """Points of a CSV, TSV or semicolon file with a header: N, D or C, loss, and if there is one the seed.

    Names of columns are read as people write them (`NAMES`). Where D is missing it is C / 6N, where C is missing it
    is 6ND, and the points' notes say so.

    Raises:
        DataError: when the file cannot be read, lacks such columns or has two for one, or a number cannot be.
    """
    try:
        text = read_given(path, LARGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(
            f"{path} cannot be read: {why}; give a CSV file with columns N, D or C, loss and seed"
        ) from None
    lines = text.removeprefix("\ufeff").splitlines()
    mark = max(",\t;", key=lines[0].count) if lines else ","
    try:
        rows = list(csv.reader(lines, delimiter=mark))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}; give columns N, D or C, loss and seed") from None
    found = _columns_of(path, [name.strip() for name in rows[0]] if rows else [])
    numbered = [(i, row) for i, row in enumerate(rows[1:], start=2) if any(cell.strip() for cell in row)]
    if not numbered:
        raise DataError(f"{path} has no rows below its header; give a row for every finished run")
    columns = {
        name: np.array([_value(path, line, row, at, rows[0][at], name) for line, row in numbered])
        for name, at in found.items()
    }
    return _complete(columns)


def write_points(points: Points, path: Path) -> None:
    """Write the points as a CSV that `read_points` reads: every column there is, all digits.

    Raises:
        OSError: when the disk refuses.
    """
    columns = {name: getattr(points, name) for name in NAMES if getattr(points, name) is not None}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_written, column.tolist()) for column in columns.values()), strict=True))
    write_text(path, out.getvalue())


def _written(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _column(name: str, given: Any, n: int) -> Floats:
    column = np.asarray(given, dtype=float).reshape(-1)
    if len(column) != n or n == 0:
        raise DataError(f"points: {n} rows of parameters but {len(column)} of {name}; give both for every run")
    wrong = ~((column >= LEAST) & (column <= MOST.get(name, MOST_FLOPS)))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"points: {name} of run {at} is {column[at]:g}, expected {_expected(name)}; leave the run out")
    return column


def _expected(name: str) -> str:
    if name == "seed":
        return f"a whole number of at most {MOST_SEED:.0e}"
    return f"a number above 0, from {LEAST:g} to {MOST.get(name, MOST_FLOPS):g}"


def _columns_of(path: Path, header: Sequence[str]) -> dict[str, int]:
    low = [name.lower().replace(" ", "_").replace("-", "_") for name in header]
    named = {column: [i for i, name in enumerate(low) if name in names] for column, names in NAMES.items()}
    for column, places in named.items():
        if len(places) > 1:
            both = " and ".join(header[i] for i in places)
            raise DataError(f"{path} has {len(places)} columns for {column}: {both}; leave the one that is meant")
    found = {column: places[0] for column, places in named.items() if places}
    missing = [what for what in ("parameters", "loss") if what not in found]
    if not {"tokens", "flops"} & set(found):
        missing.append("tokens or flops")
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}; its header is "
            f"{', '.join(header)[:200] or 'empty'}; expected parameters, tokens or flops, loss and seed"
        )
    return found


def _value(path: Path, line: int, row: Sequence[str], at: int, name: str, column: str) -> float:
    text = row[at].strip() if at < len(row) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if column == "seed":
        right = abs(value) <= MOST_SEED and value == int(value)
    else:
        right = LEAST <= value <= MOST.get(column, MOST_FLOPS)
    if not right:
        expected = _expected(column)
        raise DataError(
            f"{path}, line {line}: {name} is {text[:40]!r}, expected {expected}; correct the row or leave it out"
        )
    return value


def _complete(columns: Mapping[str, Floats]) -> Points:
    """Points of the columns there are; what is missing is computed and said, and so are rows that stand there twice."""
    full, notes = _once(columns)
    if "tokens" not in full:
        full["tokens"] = full["flops"] / (6 * full["parameters"])
        notes.append("The points give no tokens: D = C / 6N is assumed.")
    if "flops" not in full:
        full["flops"] = 6 * full["parameters"] * full["tokens"]
        notes.append("The points give no FLOPs: C = 6ND is assumed.")
    if "seed" not in full:
        full["seed"] = np.zeros(len(full["loss"]))
        notes.append("The points give no seed: all runs are taken as of seed 0.")
    notes += _units(full)
    return Points(**{name: full.get(name) for name in NAMES}, notes=tuple(notes))  # type: ignore[arg-type]


def _once(columns: Mapping[str, Floats]) -> tuple[dict[str, Floats], list[str]]:
    """The columns without rows that repeat another one: a copy of a run is no second seed."""
    if "seed" not in columns:
        return dict(columns), []
    notes = []
    n = len(columns["loss"])
    first = np.sort(np.unique(np.stack(list(columns.values())), axis=1, return_index=True)[1])
    if len(first) < n:
        notes.append(f"{n - len(first)} rows repeat another one to the last digit, and are left out: they are one run.")
    once = {name: column[first] for name, column in columns.items()}
    runs = np.stack([column for name, column in once.items() if name not in ("loss", "budget")])
    again = len(first) - np.unique(runs, axis=1).shape[1]
    if again:
        notes.append(
            f"{again} rows have the size, the compute and the seed of another row and another loss: if they are one "
            "run under several settings, such as learning rates, leave only the best of them."
        )
    return once, notes


def _units(columns: Mapping[str, Floats]) -> list[str]:
    n, d, c = (columns[name] for name in ("parameters", "tokens", "flops"))
    ratio = c / n / d / 6
    middle, far = float(np.median(ratio)), np.flatnonzero((ratio < LEAST_RATIO) | (ratio > MOST_RATIO))
    if len(far) == 0:
        return []
    if LEAST_RATIO <= middle <= MOST_RATIO:
        one = far[0]
        return [
            f"C is far from 6ND in {len(far)} of {len(n)} rows, such as that with N = {n[one]:.3g}, D = {d[one]:.3g} "
            f"and C = {c[one]:.3g}: correct them or leave them out."
        ]
    return [
        f"C is {middle:.3g} times 6ND, so N, D and C are not in the same unit: give parameters, tokens and FLOPs one "
        "by one, and not by millions or billions."
    ]
