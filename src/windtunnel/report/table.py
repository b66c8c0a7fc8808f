"""A table, and how it looks in the terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windtunnel.report import html
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from rich.table import Table as Grid


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the row. `table` makes one of numbers.

    words: whether the other columns hold words, which begin on the left, and not numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: bool = False

    def terminal(self) -> Grid:
        """For the terminal; in a narrow one a cell goes on below, and nothing of it is left out."""
        from rich.table import Table as Grid

        from windtunnel.report.terminal import as_text

        title = as_text(self.title) if self.title else None
        grid = Grid(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, name in enumerate(self.columns):
            grid.add_column(as_text(name), justify="right" if i and not self.words else "left", overflow="fold")
        for row in self.rows:
            grid.add_row(*map(as_text, row))
        return grid

    def html(self) -> str:
        """For a page, without its title; it scrolls sideways when it must."""
        return html.table(self.columns, self.rows)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table of texts, numbers, estimates and None, each written as `text` does."""
    return Table(title, tuple(columns), tuple(tuple(map(text, row)) for row in rows))


def text(value: Any) -> str:
    """A cell: 1,234; 0.1234 or 1.23e-05; 0.1000 [0.0829, 0.1202]; 1: 2, 3: 4 for a mapping; - for None and NaN."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(inner)}" for key, inner in value.items())
    if isinstance(value, Estimate):
        return interval(value)
    if isinstance(value, int):
        return f"{value:,}"
    value = float(value)
    return f"{value:,.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def clipped(text: str, longest: int = 70) -> str:
    """A text on one line, which ends in … where letters are left out."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def interval(found: Estimate, form: str = ".4f") -> str:
    """0.1000 [0.0829, 0.1202]; of one value, which has no interval, the value."""
    if math.isnan(found.low):
        return f"{found.estimate:{form}}"
    return f"{found.estimate:{form}} [{found.low:{form}}, {found.high:{form}}]"
