"""Two classifiers on the same texts: the first line, a table, and what it rests on."""

from __future__ import annotations

from typing import Any

from windtunnel.comparison.classifiers import Between
from windtunnel.config import plain
from windtunnel.report.table import Table, interval, table
from windtunnel.stats.digits import p_is


def between_line(found: Between) -> str:
    """The verdict, with the difference and its evidence."""
    apart = f"{found.split} accuracy {interval(found.accuracy, '+.3f')} on {found.n:,} texts, McNemar's {p_is(found.p)}"
    if found.word in ("better", "worse"):
        return f"{found.run} is {found.word} than {found.other}: {apart}"
    return f"{found.word} between {found.run} and {found.other}: {apart}"


def between_table(found: Between) -> Table:
    """Accuracy and macro-F1 of both, and their differences."""
    rows = [
        ("accuracy", *(interval(one, ".3f") for one in found.scores), interval(found.accuracy, "+.3f")),
        ("macro-F1", *(f"{one:.3f}" for one in found.macro_f1s), interval(found.macro_f1, "+.3f")),
    ]
    return table("", ("", "this run", "the other", "this minus the other"), rows)


def between_lines(found: Between) -> list[str]:
    """What the verdict rests on."""
    both, only, only_other, neither = found.table
    told = [
        f"both are right on {both:,} texts, this run alone on {only:,}, the other alone on {only_other:,}, neither on "
        f"{neither:,}",
        f"a difference below {found.margin:.4f} does not matter (--margin); that it is below is shown where its 90 % "
        f"interval, here {interval(found.within, '+.4f')}, lies within",
        f"intervals at 95 %: Wilson's, of differences bootstrap over paired texts; texts and labels have the SHA-256 "
        f"{found.sha256[:12]}",
    ]
    if found.chosen_on_dev:
        told.append("a checkpoint was chosen on dev, which flatters it there; the number to report is of --split test")
    return told


def between_dict(found: Between) -> dict[str, Any]:
    """Plain data for JSON."""
    return {"verdict": between_line(found), **plain(found)}
