"""What a person sees while runs train: a bar a run on a terminal, a line an evaluation or a run elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from windtunnel.report.terminal import PlainConsole, as_text
from windtunnel.stats.digits import number
from windtunnel.training.events import Evaluation, Event, Sample, Saved, Started, Step, Stopped

SMOOTHING = 0.95
"""Weight of the past, after each step, in the loss and the rate that are shown."""
MOST_BARS = 8
"""Of more runs than this, those that ended have no bar."""


class TrainingProgress:
    """Consumes (label of a run, event) pairs; a context manager. Writes to its console, which should be stderr.

    Args:
        brief: for many runs: how many have ended, and, where there is no terminal, only a line for each that ends.
    """

    def __init__(self, console: PlainConsole, brief: bool = False) -> None:
        self.console, self.brief = console, brief
        self.lines: dict[str, _Line] = {}
        self.tasks: dict[str, TaskID] = {}
        self.ended: set[str] = set()
        self.bars = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Figures(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=5,
        )

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def show(self, label: str, event: Event) -> None:
        """Take in one event of the run with this label."""
        line = self.lines.setdefault(label, _Line(label))
        if said := self._of_interest(line.take(event), event, line):
            self.console.print(said, soft_wrap=True)
        if isinstance(event, Stopped):
            self._end(label, line, event)
        else:
            self._move_bar(label, line, event)

    def _of_interest(self, said: str, event: Event, line: _Line) -> str:
        """What to print of what is said: bars show the rest, and of many runs only the ends count."""
        if self.brief and isinstance(event, Stopped) and event.reason == "interrupted" and line.started is None:
            return ""  # one of many that were not begun
        if self.console.is_terminal:
            kinds = (Stopped, Started) if self.brief else (Sample, Stopped, Started)
            return said if isinstance(event, kinds) else ""
        if self.brief:
            return line.ending(event) if isinstance(event, Stopped) else ""
        return said

    def _end(self, label: str, line: _Line, event: Stopped) -> None:
        """The bars of ended runs make room when there are many."""
        if line.started is not None or event.reason != "interrupted":
            self.ended.add(label)
        if self.brief:
            self.bars.headline = f"runs ended {len(self.ended)}"
        if len(self.lines) > MOST_BARS:
            for other in self.ended & self.tasks.keys():
                self.bars.remove_task(self.tasks.pop(other))

    def _move_bar(self, label: str, line: _Line, event: Event) -> None:
        if label not in self.tasks:
            self.ended.discard(label)
            self.tasks[label] = self.bars.add_task(_clip(label), total=None, start=False, figures="")
        task = self.tasks[label]
        if isinstance(event, Started):
            self.bars.start_task(task)
            self.bars.update(task, total=event.steps, completed=event.step)
        elif isinstance(event, Step):
            self.bars.update(task, completed=event.step, figures=line.figures())
        elif isinstance(event, Evaluation):
            self.bars.update(task, figures=line.figures())


class _Bars(Progress):
    """Bars below a line."""

    headline = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.headline:
            yield as_text(self.headline)
        yield from super().get_renderables()


class _Smoothed:
    """A mean over steps, the latest of the most weight; a step that was not seen counts as the next that was."""

    def __init__(self, step: int) -> None:
        self.step, self.total, self.weight = step, 0.0, 0.0

    def add(self, step: int, value: float) -> float:
        """Take in the value of a step; returns the mean."""
        keep = SMOOTHING ** max(1, step - self.step)
        self.step = step
        self.total = keep * self.total + (1 - keep) * value
        self.weight = keep * self.weight + (1 - keep)
        return self.total / self.weight


class _Line:
    """The smoothed figures of one run."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.loss: float | None = None
        self.dev: float | None = None
        self.sample = ""
        self.rate: float | None = None
        self.started: Started | None = None
        self.losses, self.rates = _Smoothed(0), _Smoothed(0)

    def take(self, event: Event) -> str:
        """Update from an event; returns what deserves a line of its own, or nothing."""
        match event:
            case Started():
                self.started = event
                self.losses, self.rates = _Smoothed(event.step), _Smoothed(event.step)
                return f"{self.label}: {event.note}" if event.note else ""
            case Step():
                self.loss = self.losses.add(event.step, event.loss)
                self.rate = self.rates.add(event.step, event.n_tokens / event.seconds)
                return ""
            case Evaluation():
                self.dev = event.loss
                noun = self.started.noun if self.started else "token"
                self.sample = "" if event.whole else f" (on a sample of {event.n_tokens:,} {noun}s)"
                steps = self.started.steps if self.started else "?"
                return f"{self.label}: step {event.step}/{steps}  {self.figures()}{self.sample}"
            case Sample():
                return f"{self.label}: writes {event.text!r}"
            case Saved():
                return ""
            case Stopped():
                return "" if event.reason == "finished" else f"{self.label}: {event.reason}: {event.message}"

    def ending(self, event: Stopped) -> str:
        """How the run ended, and the last dev loss that it told."""
        told = f": {event.message}" if event.message else ""
        return f"{self.label}: {event.reason}{told}" + (
            f", dev {number(self.dev)}{self.sample}" if self.dev is not None else ""
        )

    def figures(self) -> str:
        """Loss, dev loss, rate and share of the machine, as far as they are known."""
        parts = []
        if self.loss is not None:
            parts.append(f"loss {number(self.loss, 3)}")
        if self.dev is not None:
            parts.append(f"dev {number(self.dev, 3)}")
        if self.rate is not None and self.started is not None:
            share = self.rate * self.started.flops_per_token / self.started.peak_flops
            parts.append(
                f"{_thousands(self.rate)} {self.started.noun}s/s" + (f"  {share:.0%} of peak" if share else "")
            )
        return "  ".join(parts)


class _Figures(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["figures"], style="cyan")


def _clip(label: str) -> str:
    """The beginning and the end of a long label."""
    return label if len(label) <= 36 else f"{label[:23].rstrip()} … {label[-10:].lstrip()}"


def _thousands(rate: float) -> str:
    return f"{rate / 1000:.1f}k" if rate >= 1000 else f"{rate:.0f}"
