"""The runs of an arm with what was measured of them, wherever they come from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from windtunnel.comparison.comparison import SeedRun
from windtunnel.programs.metrics import MetricSource, Series


@dataclass(frozen=True)
class ProgramRun:
    """One run: how it ended, and what was found of each metric, by title.

    reason: "finished"; "diverged" when the metric that decides is not finite; "failed"; "interrupted"; "not begun".
    cut: bytes of output that were not kept. left: processes that it left behind. at_once: runs side by side with it.
    """

    run: SeedRun
    repeat: int
    series: Mapping[str, Series]
    seconds: float | None = None
    cut: int = 0
    left: int = 0
    at_once: int = 1
    git: str = ""


def measured_run(
    seed: int, folder: str, series: Mapping[str, Series], metrics: Sequence[MetricSource], failed: str = ""
) -> ProgramRun:
    """A run with its scores: it failed if it is told so or where the metric that decides was not found."""
    first = metrics[0]
    found = {m.title: series[m.title].score(m) for m in metrics if m.title in series}
    scores = {title: value for title, value in found.items() if value is not None}
    decides = scores.get(first.title)
    if not failed and decides is None:
        failed = f"no metric: {first.where!r} finds nothing in {first.file or 'its output'}"
    if failed or decides is None:
        return ProgramRun(SeedRun(seed, folder, "failed", failed, {}), 0, series)
    if math.isfinite(decides):
        return ProgramRun(SeedRun(seed, folder, "finished", "", scores), 0, series)
    worst = math.inf if first.better == "lower" else -math.inf
    return ProgramRun(
        SeedRun(seed, folder, "diverged", f"{first.title} is {decides:g}", {first.title: worst}), 0, series
    )


@dataclass(frozen=True)
class Measured:
    """An arm and its runs, however they were come by. settings: what it is, in words by name; key: a hash of it."""

    name: str
    settings: Mapping[str, str]
    key: str
    runs: tuple[ProgramRun, ...]
    tracked: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that are a part of it, by path."""
    changed: tuple[str, ...] = ()
    """Those of them that changed while the runs were made."""

    def seeds(self) -> tuple[SeedRun, ...]:
        """A run a seed: the mean of its repeats, or the first of them that has none."""
        by_seed: dict[int, list[SeedRun]] = {}
        for one in self.runs:
            by_seed.setdefault(one.run.seed, []).append(one.run)
        return tuple(_mean_run(runs) for _, runs in sorted(by_seed.items()))

    def seconds(self) -> float | None:
        """Median of what its runs took; None where that is not known."""
        took = [one.seconds for one in self.runs if one.seconds is not None]
        return statistics.median(took) if took else None

    def ignores_seed(self, metric: str) -> bool:
        """Whether every seed gave the same value of every metric to the last digit."""
        found = [tuple(sorted(run.scores.items())) for run in self.seeds() if run.reason == "finished"]
        return len(found) > 1 and len(set(found)) == 1 and metric in dict(found[0])


def _mean_run(runs: Sequence[SeedRun]) -> SeedRun:
    worst = next((run for run in runs if run.reason != "finished"), None)
    if worst or len(runs) == 1:
        return worst or runs[0]
    names = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
    first = runs[0]
    scores = {name: statistics.fmean(run.scores[name] for run in runs) for name in names}
    return SeedRun(first.seed, first.folder, first.reason, first.message, scores)
