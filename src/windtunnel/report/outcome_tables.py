"""Experiments in the terminal: the list of them, progress, and what one found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table as Grid
from rich.text import Text

from windtunnel.report.outcome import Claim, Outcome, Progress
from windtunnel.report.terminal import PlainConsole, as_text

STYLES = {"holds": "bold green", "does not hold": "bold red", "undecided": "bold yellow"}


def listing_table(found: list[dict[str, str]]) -> Grid:
    """What can be run first, then the rows to come."""
    done = sum(row["state"] == "done" for row in found)
    caption = f"{done} of {len(found)} rows are done; run one: windtunnel experiment NAME, or its row"
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption=caption, caption_justify="left")
    for name in ("row", "state", "name", "what"):
        grid.add_column(name, no_wrap=name in ("row", "state", "name"), overflow="fold")
    for row in sorted(found, key=lambda row: row["state"]):
        style = "" if row["state"] == "done" else "dim"
        grid.add_row(row["row"], row["state"], row["name"], row["question"] or row["title"], style=style)
    return grid


def outcome_parts(outcome: Outcome) -> Iterator[RenderableType]:
    """The title, the claims with their verdicts, the tables, the signature."""
    yield Text(f"{outcome.title}{' (a quick run: rougher numbers)' if outcome.quick else ''}", style="bold")
    yield Text(outcome.what + "\n")
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("row", "claim", "source", "measured", "verdict"):
        grid.add_column(name, no_wrap=name in ("row", "verdict"), overflow="fold")
    for claim in outcome.claims:
        verdict = Text(claim.verdict, style=STYLES[claim.verdict])
        grid.add_row(*map(as_text, (claim.id, claim.statement, claim.published, claim.measured)), verdict)
    yield grid
    for table in outcome.tables:
        yield Text()
        yield table.terminal()
    yield Text(f"\n{outcome.signature}", style="dim")


def say_claim(console: PlainConsole, claim: Claim) -> None:
    """A line for a claim that was judged, where no bar shows that something happens."""
    if not console.is_terminal:
        console.print(f"{claim.verdict}: {claim.id} {claim.statement}: {claim.measured}", soft_wrap=True)


@contextmanager
def showing(console: PlainConsole) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a line whenever something new begins."""
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    tasks = {}

    def finish_all() -> None:
        for task in bars.tasks:
            bars.update(task.id, completed=task.total)

    def show(progress: Progress) -> None:
        if progress.what not in tasks:
            finish_all()  # what comes next ends what was
            tasks[progress.what] = bars.add_task(progress.what)
            if not console.is_terminal:
                console.print(progress.what)
        bars.update(tasks[progress.what], completed=progress.done, total=progress.total)

    with bars:
        yield show
        finish_all()
