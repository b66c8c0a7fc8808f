"""Verdicts of days in one file, and how many of the winners among them are expected to be none.

A line of the ledger is a verdict as JSON. When the same arm is judged against the same baseline again, only the last
line counts.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from windtunnel.comparison.comparison import Comparison
from windtunnel.errors import DataError
from windtunnel.files import open_given, write_all
from windtunnel.stats.digits import number
from windtunnel.stats.multiplicity import false_discovery
from windtunnel.stats.sequential import overall_p
from windtunnel.training.disk import saving

RATE = 0.05
"""The share of false winners among the winners that is allowed."""


@dataclass(frozen=True)
class Entry:
    """One verdict. p: of any difference, over all looks of its plan. keys: of the baseline and of the arm."""

    time: str
    metric: str
    baseline: str
    arm: str
    keys: str
    word: str
    difference: float | None
    p: float | None
    n: int
    signature: str


@dataclass(frozen=True)
class Kept:
    """What the ledger says after a comparison: q of each arm that was judged now, and of all of the ledger's winners.

    n: verdicts that count. winners: those that were called better or worse. stand: of these, with q up to RATE.
    """

    path: str
    n: int
    winners: int
    stand: int
    q: dict[str, float]

    @property
    def lines(self) -> list[str]:
        """Sentences."""
        told = [f"{arm}: q = {number(q)} among the verdicts of {self.path}" for arm, q in self.q.items()]
        return [
            *told,
            f"ledger: {self.n} verdict{'s' * (self.n != 1)}, {self.winners} named a winner; {self.stand} of these "
            f"stand when at most {RATE:.0%} of the winners are to be false (Benjamini-Hochberg)",
        ]


def keep_verdicts(found: Comparison, path: Path) -> Kept:
    """Append the verdicts of a comparison, and weigh all that are there.

    Raises:
        DataError: for a file that holds something else.
        SaveError: when the disk refuses.
    """
    import fcntl

    new = [_entry(found, i) for i in range(len(found.judgements))]
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = read_ledger(path)
            write_all(descriptor, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in new).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return weigh([*before, *new], str(path), [one.keys for one in new])


def weigh(entries: list[Entry], path: str, now: list[str]) -> Kept:
    """q of every verdict that counts, and how many winners stand; `now`: the keys of those to be told one by one."""
    last = {entry.keys: entry for entry in entries if entry.p is not None}
    q = dict(zip(last, false_discovery([float(entry.p or 0.0) for entry in last.values()]), strict=True))
    winners = [keys for keys, entry in last.items() if entry.word in ("better", "worse")]
    stand = sum(q[keys] <= RATE for keys in winners)
    return Kept(path, len(last), len(winners), stand, {last[keys].arm: q[keys] for keys in now if keys in last})


def read_ledger(path: Path) -> list[Entry]:
    """All lines. Raises DataError for a line that is none of a ledger; one that was cut short at the end is left."""
    with os.fdopen(open_given(path), "r", encoding="utf-8") as file:
        lines = file.read().split("\n")
    entries = []
    for number_of, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            raise DataError(f"{path}, line {number_of}: no verdict; give --ledger a file of its own") from None
    if lines[-1]:
        raise DataError(f"{path} ends in the middle of a line: delete that line, or end it")
    return entries


def _entry(found: Comparison, i: int) -> Entry:
    one, rule = found.judgements[i], found.rule
    verdict = one.verdict
    p = overall_p(rule.looks, verdict.p) if rule.looks else verdict.p
    key = {arm.name: arm.key for arm in found.arms}
    return Entry(
        datetime.now(UTC).isoformat(timespec="seconds"),
        found.metric,
        found.baseline.name,
        one.arm,
        f"{key[found.baseline.name]} {key[one.arm]} {found.metric}",
        verdict.word,
        _known(verdict.difference.estimate),
        _known(p),
        verdict.n,
        found.signature,
    )


def _known(x: float) -> Any:
    return None if math.isnan(x) else x
