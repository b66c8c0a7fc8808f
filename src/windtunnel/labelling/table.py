"""The table of a round: what to label and what to check again, with an empty column for the answers.

A round is a file of its own, `round-1.csv` and so on, so that none takes the place of answers that were filled in.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.files import write_text
from windtunnel.labelling.examples import Columns, Example
from windtunnel.labelling.next import Round, Suspicion
from windtunnel.text.corpora.tables import KINDS, kind_of, rows_of
from windtunnel.training.disk import saving


@dataclass(frozen=True)
class Task:
    """One row. kind: label, check (a label that looks wrong), or settle (annotators disagree)."""

    kind: str
    example: Example
    reason: str


def tasks(found: Round, checks: int) -> list[Task]:
    """What to do in a round: all that was chosen, and at most `checks` labels that look wrong or are disputed.

    Of those, the ones that annotators disagree on come first.
    """
    disputed = found.agreement.disputed if found.agreement else ()
    known = {example.id for example in disputed}
    again = [Task("settle", example, _said(example)) for example in disputed]
    again += [Task("check", one.example, _doubt(one)) for one in found.suspicions if one.example.id not in known]
    return [Task("label", choice.example, choice.reason) for choice in found.choices] + again[:checks]


def write_tasks(todo: list[Task], folder: Path, columns: Columns) -> Path:
    """Write a round's table into a folder, under the first number whose table holds no answers; its path.

    Raises:
        SaveError: when the disk refuses.
    """
    with_annotators = any(who for task in todo for who in task.example.answers)
    heads = [
        columns.id,
        columns.label,
        *([columns.annotator] if with_annotators else []),
        "task",
        "reason",
        columns.text,
    ]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(heads)
    for task in todo:
        blank = [""] * (2 if with_annotators else 1)
        writer.writerow([task.example.id, *blank, task.kind, task.reason, task.example.text])
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = next(path for path in _numbered(folder) if not _answered(path, columns))
        write_text(path, written.getvalue())
    return path


def tables_of(given: Path) -> list[Path]:
    """The table that was given; of a folder all in it, round-9 before round-10.

    Raises:
        DataError: a folder without tables.
    """
    if not given.is_dir():
        return [given]
    found = [path for path in given.iterdir() if kind_of(path) in KINDS]
    if not found:
        raise DataError(f"{given} holds no tables; expected {', '.join(KINDS)}, as `windtunnel label` writes them")
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _numbered(folder: Path) -> Iterator[Path]:
    number = 1
    while True:
        yield folder / f"round-{number}.csv"
        number += 1


def _answered(path: Path, columns: Columns) -> bool:
    """Whether a table is there and holds an answer, or anything else than a table of ours."""
    if not path.exists():
        return False
    try:
        return any(str(row.get(columns.label, "?")).strip() for _, row in rows_of(path))
    except DataError:
        return True


def _doubt(one: Suspicion) -> str:
    return f"labelled {one.given}, believed {one.believed:.2f}; likelier {one.likely}, {one.other:.2f}"


def _said(example: Example) -> str:
    return "disagreement: " + ", ".join(f"{who or 'the table'} {label}" for who, label in example.answers.items())
