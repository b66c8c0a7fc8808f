"""Results that exist, as arms: tables, JSON lines, TensorBoard's files, trackio's database, a folder of logs.

`PATH?COLUMN=PATTERN` takes only the rows or runs of which a column, a setting or `run`, the name, has this form.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from windtunnel.errors import ConfigError, DataError
from windtunnel.programs.measured import Measured, measured_run
from windtunnel.programs.metrics import (
    STEPS,
    MetricSource,
    Series,
    as_number,
    lookup,
    read_series,
    read_text,
    rows_of,
    series_of,
)
from windtunnel.programs.tfevents import read_scalars

TABLES = (".csv", ".tsv", ".json", ".jsonl")
DATABASES = (".db", ".sqlite", ".sqlite3")
LOGS = (".log", ".txt", ".out", *TABLES)
EVENTS = "*tfevents*"
ORDER = "order"
"""--pair order: the first run of one arm with the first of the other."""


@dataclass(frozen=True)
class Found:
    """A run that is there: its name, what is known of it, and a series of each metric."""

    name: str
    fields: Mapping[str, Any]
    series: Mapping[str, Series]


def read_results(name: str, given: str, metrics: Sequence[MetricSource], pair: str) -> Measured:
    """The runs of one arm.

    Args:
        given: PATH or PATH?COLUMN=PATTERN.
        pair: the column, or the setting, that is the same in runs that belong together; in names of files and runs the
            number after it, or the last number; `order` takes them as they come.

    Raises:
        DataError: for what cannot be read, and for two runs of one seed.
        ConfigError: for a path that is not there, or a filter that leaves nothing.
    """
    path, (column, pattern) = _parsed(given)
    found = list(_read(path, metrics, pair, column, pattern))
    if not found:
        wanted = f" with {column}={pattern}" if column else ""
        raise ConfigError(f"--results {name}={given}: there are no runs{wanted} in {path}")
    by_seed: dict[int, Found] = {}
    for i, one in enumerate(found):
        seed = i if pair == ORDER else _seed(one, pair, path)
        if seed in by_seed:
            raise DataError(
                f"{path} has two runs with {pair} {seed}: {by_seed[seed].name} and {one.name}; choose those of the arm "
                "with PATH?COLUMN=PATTERN, as in results?run=base-*"
            )
        by_seed[seed] = one
    runs = [measured_run(seed, f"{path}: {one.name}", one.series, metrics) for seed, one in sorted(by_seed.items())]
    key = hashlib.sha256(
        repr([given, [(s, sorted(one.series.items())) for s, one in sorted(by_seed.items())]]).encode()
    )
    return Measured(name, {"results": given}, key.hexdigest(), tuple(runs))


def _parsed(given: str) -> tuple[Path, tuple[str, str]]:
    whole, (before, asked, after) = Path(given), given.rpartition("?")
    if whole.exists() or not asked:
        path, column, pattern = whole, "", ""
    else:
        path, (column, _, pattern) = Path(before), after.partition("=")
    if not path.exists():
        raise ConfigError(f"{path} does not exist: expected a file or a folder with results")
    if asked and path != whole and not (column and pattern):
        raise ConfigError(f"{given}: expected PATH?COLUMN=PATTERN, as in results.csv?arm=base")
    return path, (column, pattern)


def _read(path: Path, metrics: Sequence[MetricSource], pair: str, column: str, pattern: str) -> Iterator[Found]:
    def fits(fields: Mapping[str, Any]) -> bool:
        value = lookup(dict(fields), column) if column else None
        return not column or (value is not None and fnmatchcase(str(value), pattern))

    if path.is_file() and path.suffix in TABLES:
        yield from _of_table([row for row in rows_of(path, read_text(path)) if fits(row)], metrics, pair, path)
        return
    if path.is_file() and path.suffix in DATABASES:
        runs = _of_database(path, metrics)
    elif path.is_dir() and any(path.rglob(EVENTS)):
        runs = _of_events(path, metrics)
    elif path.is_dir():
        runs = _of_logs(path, metrics)
    else:
        raise ConfigError(f"{path}: expected a folder, or a file that ends in {', '.join([*TABLES, *DATABASES])}")
    yield from (run for run in runs if fits({**run.fields, "run": run.name}))


def _of_table(
    rows: Sequence[dict[str, Any]], metrics: Sequence[MetricSource], pair: str, path: Path
) -> Iterator[Found]:
    """The rows of one seed are one run, in their order; with `order` every row is one."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        seed = i if pair == ORDER else lookup(row, pair)
        if seed is None:
            raise DataError(
                f"{path} has no {pair} in row {i + 1}; there are {', '.join(map(str, row))}: name the column that "
                "tells the seed with --pair, or --pair order"
            )
        groups.setdefault(str(seed), []).append(row)
    for seed, own in groups.items():
        for metric in metrics:
            _require_one_run(
                [row for row in own if lookup(row, metric.where) not in (None, "")], f"{path}, {pair} {seed}"
            )
        yield Found(f"{pair} {seed}", own[0], {m.title: series_of(m, own) for m in metrics})


def _require_one_run(rows: Sequence[dict[str, Any]], where: str) -> None:
    """Rows of several arms look like those of one run, and the last of them would be the score of all."""
    steps = [next((str(row[name]) for name in row if str(name).lower() in STEPS), None) for row in rows]
    if len(rows) > 1 and (None in steps or len(set(steps)) < len(steps)):
        raise DataError(
            f"{where} has {len(rows)} rows, and no column ({', '.join(STEPS[:3])}) that tells them apart as steps of "
            "one run: choose those of the arm with PATH?COLUMN=PATTERN, as in results.csv?arm=base"
        )


def _of_logs(folder: Path, metrics: Sequence[MetricSource]) -> Iterator[Found]:
    """A file a run."""
    for file in sorted(path for path in folder.rglob("*") if path.suffix in LOGS and path.is_file()):
        yield Found(str(file.relative_to(folder)), {}, {m.title: read_series(m, file) for m in metrics})


def _of_events(folder: Path, metrics: Sequence[MetricSource]) -> Iterator[Found]:
    """A folder with files of events a run."""
    for run in sorted({path.parent for path in folder.rglob(EVENTS)}):
        points: dict[str, list[tuple[int, float]]] = {}
        for file in sorted(run.glob(EVENTS)):
            for tag, step, value in read_scalars(file):
                points.setdefault(tag, []).append((step, value))
        name = str(run.relative_to(folder))
        yield Found(run.name if name == "." else name, {}, {m.title: _points(points.get(m.where, [])) for m in metrics})


def _of_database(path: Path, metrics: Sequence[MetricSource]) -> Iterator[Found]:
    """The runs of a project of trackio; one that holds no such tables is refused."""
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
            by = "run_id" if "run_id" in columns else "run_name"
            logged = database.execute(f"SELECT {by}, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            told = database.execute(f"SELECT {by}, config FROM configs").fetchall() if "configs" in tables else []
        database.close()
        settings = {run: json.loads(config) for run, config in told}
        rows: dict[str, list[dict[str, Any]]] = {}
        names = {}
        for run, name, step, values in logged:
            names[run] = name
            rows.setdefault(run, []).append({**json.loads(values), "step": step})
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a project of trackio: {error}") from None
    for run, own in rows.items():
        yield Found(names[run], settings.get(run, {}), {m.title: series_of(m, own) for m in metrics})


def _points(points: Sequence[tuple[int, float]]) -> Series:
    return Series(tuple(float(step) for step, _ in points), tuple(value for _, value in points))


def _seed(run: Found, pair: str, path: Path) -> int:
    told = lookup(dict(run.fields), pair)
    if told is None:
        after = re.findall(rf"{re.escape(pair)}[-_= ]*(\d+)", run.name, re.IGNORECASE)
        numbers = after or re.findall(r"\d+", str(Path(run.name).with_suffix("")))
        told = numbers[-1] if numbers else None
    if told is None:
        raise DataError(f"{path}: the name {run.name!r} holds no number that could be its {pair}; or use --pair order")
    number = as_number(told, f"{pair} of {run.name}")
    if not number.is_integer():
        raise DataError(f"{path}: {pair} of {run.name} is {told}, and a whole number is expected")
    return int(number)
