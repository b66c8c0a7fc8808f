"""A comparison for the terminal, and its report: pictures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from windtunnel.comparison.comparison import Comparison
from windtunnel.files import write_text
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_page import comparison_page
from windtunnel.report.comparison_rows import SLICES, Rows, arm_rows, evidence_rows, slice_rows, verdict_rows
from windtunnel.report.comparison_slices import comparison_slices_figure
from windtunnel.report.figures import save_figures
from windtunnel.report.terminal import PlainConsole, as_text
from windtunnel.stats.digits import number
from windtunnel.training.disk import saving

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES: dict[str, str] = {
    "better": "bold green",
    "worse": "bold red",
    "no difference that matters": "bold cyan",
    "undecided": "bold yellow",
}


def comparison_tables(found: Comparison) -> list[RenderableType]:
    """What every arm is and costs, the verdicts, what they rest on; then sentences, each a Text of one long line."""
    parts: list[RenderableType] = [_Rows(arm_rows(found)), Text("±: 95 % interval of the mean over seeds", "dim")]
    if found.judgements:
        told = "difference: its interval is at the level of its test\nt test: is there a difference? "
        told += f"TOST: is it smaller than the margin, {number(found.rule.margin)}?"
        parts += [Text(), _Rows(verdict_rows(found)), Text(), _Rows(evidence_rows(found)), Text(told, "dim")]
    if found.slices:
        parts += [Text(), _Rows(slice_rows(found)), Text(SLICES, "dim")]
    lines = [j.sentence for j in found.judgements] or [
        "nothing can be judged yet: no seed of an arm can be held against the baseline's"
    ]
    lines += [f"paired: {line}" for line in found.pairing] + [f"note: {line}" for line in found.notes]
    parts.append(Text())
    return [*parts, *(as_text(line) for line in [*lines, f"signature: {found.signature}"])]


def print_comparison(found: Comparison, console: PlainConsole, files: Sequence[Path] = ()) -> None:
    """The tables and sentences, and which files were written."""
    for part in comparison_tables(found):
        console.print(part, soft_wrap=isinstance(part, Text))
    for path in files:
        console.print(f"written: {path}", soft_wrap=True)


def save_report(found: Comparison, folder: Path, more: Mapping[str, Figure] | None = None) -> list[Path]:
    """Write `comparison.png`, `comparison.svg` and `report.html`, which needs no other file; returns their paths.

    Where slices were judged there are `slices.png` and `slices.svg` too.

    Args:
        more: figures that the page shows beside them: `series`.

    Raises:
        SaveError: when the disk refuses.
    """
    figures = {"comparison": comparison_figure(found), **(more or {})}
    if any(part.judgements for part in found.slices):
        figures["slices"] = comparison_slices_figure(found)
    files, drawings = save_figures(figures, folder)
    page = folder / "report.html"
    with saving(page):
        write_text(page, comparison_page(found, drawings))
    return [*files, page]


@dataclass(frozen=True)
class _Rows:
    """Rows as a table in which no name is broken and no number cut: where it gets too narrow, a name stands above its
    numbers, and the columns that do not fit follow in a table of their own."""

    rows: Rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        heads, body = self.rows

        def fits(table: Table) -> bool:
            return Measurement.get(console, options.update(max_width=10_000), table).maximum <= options.max_width

        if fits(table := _table(heads, body)):
            yield table
            return
        below = [["", *cells] for _, *cells in body]
        n = max((k for k in range(3, len(heads) + 1) if fits(_table(heads[:k], [row[:k] for row in below]))), default=2)
        if n < len(heads):
            yield from (_Rows((heads[:n], [row[:n] for row in body])), Text())
            yield _Rows(([heads[0], *heads[n:]], [[row[0], *row[n:]] for row in body]))
            return
        lines = console.render_lines(_table(heads, below), options, pad=False)
        for name, *cells in [heads, *body]:
            height = 1 + max(cell.count("\n") for cell in (*cells, name if name == heads[0] else ""))
            of_row, lines = lines[:height], lines[height:]
            alone = len(cells) > 1 and not any(cells[:-1])  # of a slice there is nothing but whether it is too small
            if name != heads[0]:
                yield as_text(": ".join(part.replace("\n", " ") for part in (name, *cells) if alone and part) or name)
            for line in () if alone else of_row:
                yield from line
                yield Segment.line()


def _table(heads: list[str], body: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head in ("verdict", heads[0]) else "right", no_wrap=True)
    for name, *cells in body:
        table.add_row(as_text(name), *map(_cell, cells))
    return table


def _cell(text: str) -> Text:
    """A verdict in its colour, a higher cost in bold; the words and numbers say the same without."""
    first, _, below = text.partition("\n")
    if first in STYLES:
        return Text(text.replace(" that", "\nthat"), STYLES[first])
    return Text(first) + Text(f"\n{below}" if below else "", "bold red" if below.endswith("x") else "")
