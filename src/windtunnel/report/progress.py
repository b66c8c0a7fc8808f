"""What a person sees while runs train: a bar a run on a terminal, a line an evaluation elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from windtunnel.train.events import Evaluation, Event, Sample, Saved, Started, Step, Stopped

SMOOTHING = 0.95
"""Weight of the past in the loss and the rate that are shown."""


class TrainingProgress:
    """Consumes (run, event) pairs; a context manager. Writes to the console it is given, which should be stderr."""

    def __init__(self, console: Console, labels: Sequence[str]) -> None:
        self.console, self.labels = console, labels
        self.lines = [_Line(label) for label in labels]
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Figures(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=5,
        )
        self.tasks = [self.bars.add_task(label, total=None, start=False, figures="") for label in labels]

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def show(self, index: int, event: Event) -> None:
        """Take in one event of the run with this index."""
        line, task = self.lines[index], self.tasks[index]
        said = line.take(event)
        if said and (not self.console.is_terminal or isinstance(event, Sample | Stopped | Started)):
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)
        if isinstance(event, Started):
            self.bars.start_task(task)
            self.bars.update(task, total=event.steps, completed=event.step)
        elif isinstance(event, Step):
            self.bars.update(task, completed=event.step, figures=line.figures())
        elif isinstance(event, Evaluation):
            self.bars.update(task, figures=line.figures())


class _Line:
    """The smoothed figures of one run."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.loss: float | None = None
        self.dev: float | None = None
        self.rate: float | None = None
        self.started: Started | None = None

    def take(self, event: Event) -> str:
        """Update from an event; returns what deserves a line of its own, or nothing."""
        match event:
            case Started():
                self.started = event
                return f"{self.label}: {event.note}" if event.note else ""
            case Step():
                self.loss = _smooth(self.loss, event.loss)
                self.rate = _smooth(self.rate, event.n_tokens / event.seconds)
                return ""
            case Evaluation():
                self.dev = event.loss
                sample = "" if event.whole else f" (on a sample of {event.n_tokens:,} tokens)"
                steps = self.started.steps if self.started else "?"
                return f"{self.label}: step {event.step}/{steps}  {self.figures()}{sample}"
            case Sample():
                return f"{self.label}: writes {event.text!r}"
            case Saved():
                return ""
            case Stopped():
                return "" if event.reason == "finished" else f"{self.label}: {event.reason}: {event.message}"

    def figures(self) -> str:
        """Loss, dev loss, rate and share of the machine, as far as they are known."""
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.dev is not None:
            parts.append(f"dev {self.dev:.3f}")
        if self.rate is not None and self.started is not None:
            share = self.rate * self.started.flops_per_token / self.started.peak_flops
            parts.append(f"{_thousands(self.rate)} tokens/s  {share:.0%} of peak")
        return "  ".join(parts)


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], style="cyan")


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else SMOOTHING * old + (1 - SMOOTHING) * new


def _thousands(rate: float) -> str:
    return f"{rate / 1000:.1f}k" if rate >= 1000 else f"{rate:.0f}"
