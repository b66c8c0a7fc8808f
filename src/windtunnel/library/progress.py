"""What one sees in a terminal or a notebook while a call takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windtunnel.report.progress import TrainingProgress
from windtunnel.report.terminal import console
from windtunnel.training.events import Event


@contextmanager
def showing_runs(wanted: bool, brief: bool = False) -> Iterator[Callable[[str, Event], None]]:
    """A function that shows an event of a run by its label: as bars, or not at all."""
    with TrainingProgress(console(quiet=not wanted), brief) as progress:
        yield progress.show
