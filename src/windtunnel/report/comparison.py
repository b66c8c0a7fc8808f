"""A comparison for the terminal, and its report: pictures and a page."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from windtunnel.comparison.comparison import Comparison
from windtunnel.files import write_text
from windtunnel.report.comparison_figure import comparison_figure
from windtunnel.report.comparison_page import comparison_page
from windtunnel.report.comparison_rows import SLICES, Rows, arm_rows, evidence_rows, slice_rows, verdict_rows
from windtunnel.report.comparison_slices import comparison_slices_figure
from windtunnel.report.figures import save_figures
from windtunnel.stats.digits import number
from windtunnel.training.disk import saving

STYLES: dict[str, str] = {
    "better": "bold green",
    "worse": "bold red",
    "no difference that matters": "bold cyan",
    "undecided": "bold yellow",
}


def comparison_tables(found: Comparison) -> list[RenderableType]:
    """What every arm is and costs, the verdicts, what they rest on; then sentences, each a Text of one long line."""
    parts: list[RenderableType] = [_table(arm_rows(found)), Text("±: 95 % interval of the mean over seeds", "dim")]
    if found.judgements:
        told = "difference: its interval is at the level of its test\nt test: is there a difference? "
        told += f"TOST: is it smaller than the margin, {number(found.rule.margin)}?"
        parts += [Text(), _table(verdict_rows(found)), Text(), _table(evidence_rows(found)), Text(told, "dim")]
    if found.slices:
        parts += [Text(), _table(slice_rows(found)), Text(SLICES, "dim")]
    lines = [j.sentence for j in found.judgements] or ["nothing can be judged yet: no seed is there in both arms"]
    lines += [f"paired: {line}" for line in found.pairing] + [f"note: {line}" for line in found.notes]
    parts.append(Text())
    return [*parts, *(Text(line) for line in [*lines, f"signature: {found.signature}"])]


def save_report(found: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.png`, `comparison.svg` and `report.html`, which needs no other file; returns their paths.

    Where slices were judged there are `slices.png` and `slices.svg` too.

    Raises:
        SaveError: when the disk refuses.
    """
    figures = {"comparison": comparison_figure(found)}
    if any(part.judgements for part in found.slices):
        figures["slices"] = comparison_slices_figure(found)
    files, drawings = save_figures(figures, folder)
    page = folder / "report.html"
    with saving(page):
        write_text(page, comparison_page(found, drawings))
    return [*files, page]


def _table(rows: Rows) -> Table:
    """Numbers keep together; names are folded when it gets narrow."""
    heads, body = rows
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(heads[0], overflow="fold", min_width=8)
    for head in heads[1:]:
        table.add_column(head, justify="left" if head == "verdict" else "right", no_wrap=True)
    for name, *cells in body:
        table.add_row(Text(name), *map(_cell, cells))
    return table


def _cell(text: str) -> Text:
    """A verdict in its colour, a higher cost in bold; the words and numbers say the same without."""
    first, _, below = text.partition("\n")
    if first in STYLES:
        return Text(text.replace(" that", "\nthat"), STYLES[first])
    return Text(first) + Text(f"\n{below}" if below else "", "bold red" if below.endswith("x") else "")
