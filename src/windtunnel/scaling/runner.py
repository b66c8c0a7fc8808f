"""The runs of a study: trained as far as they are missing, each with the loss of its whole dev split."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import Grid, Place, make_grid, train_grid
from windtunnel.runs.measure import read_measured
from windtunnel.tasks.task import LOSS
from windtunnel.training.events import Event, Stopped

News = tuple[str, Event] | str
"""What a study says: (label of a run, event), or a sentence."""


class Cut(Exception):
    """A run was not finished, so that nothing can be decided from it; the message says why."""


@dataclass(frozen=True)
class Runner:
    """Trains the runs of a study below a folder, on an executor, until somebody asks to stop."""

    root: Path
    executor: Executor
    should_stop: Callable[[], bool] = lambda: False
    patience: float = 600

    def losses(self, arms: Sequence[Arm], seeds: Sequence[int]) -> Generator[News, None, dict[Place, float]]:
        """The loss of every arm with every seed, in nats per target; infinite where it diverged.

        Raises:
            Cut: when a run was interrupted or failed.
        """
        if not arms or not seeds:
            return {}
        grid = make_grid(arms, seeds, self.root)
        cut: list[str] = []
        for arm, seed, event in train_grid(grid, self.executor, self.should_stop, self.patience):
            yield f"{arm}, seed {seed}", event
            if isinstance(event, Stopped) and event.reason in ("interrupted", "failed"):
                cut.append(f"{arm}, seed {seed} failed: {event.message}" if event.reason == "failed" else "")
        if cut or self.should_stop():
            raise Cut(max(cut, default="") or "stopped and saved")
        return {place: _loss(grid, place) for place in grid.places}


def _loss(grid: Grid, place: Place) -> float:
    run = grid.run(*place)
    assert run is not None
    ends = [event for event in run.events("stopped") if isinstance(event, Stopped)]
    if ends and ends[-1].reason == "diverged":
        return math.inf
    sums = {name: float(column.sum()) for name, column in read_measured(run.folder).sums.items()}
    return LOSS.score(sums)
