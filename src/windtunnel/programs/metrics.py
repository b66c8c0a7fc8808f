"""The metric of a program: what is taken out of its output or of a file that it writes."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from windtunnel.config import Config
from windtunnel.errors import ConfigError, DataError

NUMBER = re.compile(
    r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|[-+]?(?:nan|inf(?:inity)?)\b", re.I
)
SECONDS = "wall_seconds"
"""The metric of this name is the time that a run took."""
OPENED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<group>\((?!\?)|\(\?P<\w+>)", re.DOTALL)
"""Of a regular expression: what is escaped, a set of characters, or where a group opens."""
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?(?![\d,])")
TIMES = re.compile(r"(?:^|[^a-z])(?:time|seconds?|secs?|ms|latency|speed|throughput|[a-z]+/s|per[ _]sec)", re.I)
STEPS = ("step", "iter", "iteration", "epoch", "_step", "global_step")
LARGEST = 1 << 30
"""Bytes of a file that is read for a metric."""


class MetricSource(Config):
    """A number of a run.

    where: a regular expression with a group around the number (a group called `step` tells where on the curve it is);
        or the key of JSON lines, `a.b` inside of others; or the column of a table; or the tag of a scalar.
    take: of all that is found, the last or the best.
    file: where the program writes it, with {out}, and perhaps {seed}; None is the output.
    """

    where: str
    name: str = ""
    better: Literal["lower", "higher"] = "lower"
    take: Literal["last", "best"] = "last"
    file: str | None = None

    @model_validator(mode="after")
    def _check(self) -> MetricSource:
        if self.is_pattern:
            try:
                groups = re.compile(self.where).groups
            except re.error as error:
                raise ValueError(f"{self.where!r} is no regular expression: {error}") from None
            if not groups:
                raise ValueError(f"{self.where!r} needs a group around the number, as in 'loss ([0-9.]+)'")
        return self

    @property
    def is_pattern(self) -> bool:
        """Whether it is a regular expression."""
        return "(" in self.where

    @property
    def title(self) -> str:
        """Its name, or what stands before the number."""
        if self.name or not self.is_pattern:
            return self.name or self.where
        plain = re.sub(r"^[^(]*\(\?P<step>.*?\)", " ", self.where)
        words = re.sub(r"\\[a-zA-Z]|[\\^$*+?\[\]{}|.]", " ", plain.partition("(")[0])
        return " ".join(words.split()).strip(" :=,") or self.where

    @property
    def is_time(self) -> bool:
        """Whether its name says that it is a time or a speed."""
        return self.where == SECONDS or bool(TIMES.search(self.title))


@dataclass(frozen=True)
class Series:
    """All that was found of a metric in one run, in the order of the output; steps count from 0 where none are told."""

    steps: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def score(self, source: MetricSource) -> float | None:
        """The last or the best value; None when there is none. The best of nothing but NaN is NaN."""
        if not self.values:
            return None
        if source.take == "last":
            return self.values[-1]
        known = [value for value in self.values if not math.isnan(value)]
        return (min if source.better == "lower" else max)(known, default=math.nan)


def read_series(source: MetricSource, path: Path) -> Series:
    """What a file holds of a metric: a pattern, a key of JSON, or a column, by what the source and the file's name say.

    Raises:
        DataError: when the file cannot be read, and when what was found is no number.
    """
    text = read_text(path)
    if not source.is_pattern:
        return series_of(source, rows_of(path, text))
    return _series(_matches(source, text))


def series_of(source: MetricSource, rows: Iterable[dict[str, Any]]) -> Series:
    """What records hold of a metric under its key. Raises DataError when it is no number."""
    return _series(_of_rows(source.where, rows))


def _series(found: Iterable[tuple[float, float]]) -> Series:
    pairs = list(found)
    return Series(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))


def read_text(path: Path) -> str:
    """The text of a file of results. Raises DataError when it cannot be read, or is too large."""
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes, and at most {LARGEST:,} are read")
        return path.read_text(encoding="utf-8-sig", errors="replace")  # spreadsheets write a mark first
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def rows_of(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """The records of a table (.csv, .tsv), of JSON (.json), and of the JSON lines of anything else."""
    if path.suffix in (".csv", ".tsv"):
        yield from _of_table(path, text)
        return
    if path.suffix == ".json":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is no JSON: {error}") from None
        yield from (row for row in (data if isinstance(data, list) else [data]) if isinstance(row, dict))
        return
    for n, line in enumerate(text.split("\n"), start=1):
        if line.lstrip().startswith("{"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if path.suffix == ".jsonl":
                    raise DataError(f"{path}, line {n} is no JSON ({error}): mend or delete that line") from None
                continue  # of a program's output only some lines are JSON
            if isinstance(row, dict):
                yield row


def _of_table(path: Path, text: str) -> Iterator[dict[str, Any]]:
    comma = "\t" if path.suffix == ".tsv" else ","
    try:
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=comma, skipinitialspace=True)
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def lookup(row: dict[str, Any], key: str) -> Any:
    """The value of a key, or of `a.b` inside of others; None when it is not there."""
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def as_number(value: Any, what: str) -> float:
    """A number from JSON, a table or a text. Raises DataError for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip().rstrip(",")
    text = text.replace(",", "") if THOUSANDS.fullmatch(text) else text
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{what} is {str(value)[:80]!r}, and a number is expected") from None


def _of_rows(key: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    n = 0
    for row in rows:
        value = lookup(row, key)
        if value is None or value == "":
            continue
        at = next((row[name] for name in STEPS if isinstance(row.get(name), int | float | str)), None)
        try:
            step = float(n if at is None else at)
        except ValueError:
            step = float(n)
        yield step, as_number(value, key)
        n += 1


def _matches(source: MetricSource, text: str) -> Iterator[tuple[float, float]]:
    """A number that the group cuts short, as [0-9.]+ does with 1.2e-05 and 1,234.5, is taken whole; NaN is found."""
    pattern = re.compile(source.where, re.MULTILINE)
    step_group = pattern.groupindex.get("step")
    group = pattern.groupindex.get("value") or next(i for i in range(1, 3) if i != step_group)
    if group > pattern.groups:
        raise ConfigError(f"{source.where!r} needs a group around the number beside the one called step")
    for n, match in enumerate(_widened(pattern, group).finditer(text)):
        taken = match.group(group)
        if taken is None:
            continue
        whole = THOUSANDS.match(text, match.start(group)) or NUMBER.match(text, match.start(group))
        longer = whole is not None and (whole.end() > match.end(group) or "," not in taken)
        value = as_number(whole.group() if whole and longer else taken, f"what {source.where!r} found")
        yield as_number(match.group(step_group), "step") if step_group else float(n), value


def _widened(pattern: re.Pattern[str], group: int) -> re.Pattern[str]:
    """The pattern, whose group around the number may be nan or inf as well; as it is where that cannot be written.

    Where the group stands behind a space, `=` or `:`, it may begin with a sign: [0-9.]+ would pass over -3.2, and what
    it found before would count as the last value.
    """
    opened = [match.end() for match in OPENED.finditer(pattern.pattern) if match["group"]]
    if len(opened) != pattern.groups:
        return pattern
    before, after = pattern.pattern[: opened[group - 1]], pattern.pattern[opened[group - 1] :]
    sign = "[-+]?" if re.search(r"(?:[ =:]|\\s)[*+?]?\((?:\?P<\w+>)?$", before) else ""
    try:
        wider = re.compile(rf"{before}(?i:[-+]?(?:nan|inf(?:inity)?)\b)|{sign}{after}", pattern.flags)
    except re.error:
        return pattern
    return wider if wider.groups == pattern.groups else pattern
