"""A grid is arms x seeds below one folder: what is trained, whoever reads the runs afterwards, and however."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from windtunnel.config import fingerprint
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.runs.arms import Arm, ResolvedArm, resolve_grid
from windtunnel.runs.begun import as_begun
from windtunnel.runs.execute import execute
from windtunnel.runs.measure import is_measured
from windtunnel.runs.seeds import RUNS, config_folder, find_runs, folders_on_corpus
from windtunnel.training import machine
from windtunnel.training.checkpoint import newest_step
from windtunnel.training.events import Event, Stopped
from windtunnel.training.run import Run, create_run, is_run, open_run

Place = tuple[str, int]
"""(name of the arm, seed)."""


@dataclass(frozen=True)
class Grid:
    """Runs of every arm with every seed; each is found wherever below the root it is, and opened once.

    seeds: of every arm, in the order in which they are trained.
    root: where run folders are looked for and made.
    """

    arms: tuple[ResolvedArm, ...]
    seeds: tuple[int, ...]
    root: Path = RUNS
    _runs: dict[Place, Run] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def places(self) -> list[Place]:
        """Seed by seed, so that an interrupted grid has whole seeds."""
        return [(arm.name, seed) for seed in self.seeds for arm in self.arms]

    @cached_property
    def folders(self) -> Mapping[Place, Path]:
        """The folder of each run: that of a run of this config wherever below the root, or a new one's."""
        folders, wanted = {}, {}
        for arm in self.arms:
            for seed in self.seeds:
                folders[arm.name, seed] = self.root / config_folder(arm.config) / f"seed-{seed}"
                wanted[fingerprint(arm.config.replace(seed=seed)), arm.store.sha256] = arm, seed
        for folder in reversed(find_runs(self.root)):
            with suppress(ArtifactError):  # a damaged run is not used, and not touched
                run = open_run(folder)
                key = run.record["config_sha256"], run.record["corpus_sha256"]
                if key in wanted:
                    arm, seed = wanted[key]
                    folders[arm.name, seed] = folder
                    self._keep(arm, seed, run)
        return folders

    def run(self, arm: str, seed: int) -> Run | None:
        """The run of an arm and a seed, or None where it has not begun."""
        folder = self.folders[arm, seed]
        if not is_run(folder):
            return None
        return self._runs.get((arm, seed)) or self._keep(self.arm(arm), seed, open_run(folder))

    def begin(self, arm: str, seed: int) -> Run:
        """The run of an arm and a seed; its folder is written where it is not there."""
        one = self.arm(arm)
        return self.run(arm, seed) or self._keep(
            one, seed, create_run(self.folders[arm, seed], one.config.replace(seed=seed), one.store, one.trial)
        )

    def arm(self, name: str) -> ResolvedArm:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def _keep(self, arm: ResolvedArm, seed: int, run: Run) -> Run:
        """Equal tokenizers are kept once: one of 50,000 tokens takes tens of MB."""
        if run.tokenizer.to_json() == arm.store.tokenizer.to_json():
            run = replace(run, tokenizer=arm.store.tokenizer)
        self._runs[arm.name, seed] = run
        return run


def make_grid(arms: Sequence[Arm], seeds: int | Sequence[int] = 1, root: Path = RUNS) -> Grid:
    """The grid of any arms; nothing in it is compared, so one is enough and their held-out texts may differ.

    Args:
        seeds: a number, counted from the first arm's own seed, or the seeds.

    Raises:
        ConfigError: for no arm, or no seed; two arms of one name or of one config; a config that cannot be trained.
        DataError: for a corpus that is too small.
    """
    return Grid(
        tuple(as_they_began(arms, resolve_grid(arms), root)),
        seeds_from(seeds, arms[0].config.seed if arms else 0),
        root,
    )


def as_they_began(asked: Sequence[Arm], resolved: Sequence[ResolvedArm], root: Path) -> list[ResolvedArm]:
    """The arms with what was measured when they began, as `as_begun`; all of them or none, so that none is mixed.

    They stay as they are where one has begun so, and where what is alike now was not alike then: one that has not begun
    is taken as it is now.

    Args:
        asked: what was resolved, by name.
    """
    as_now, configs = list(resolved), {arm.name: arm.config for arm in asked}
    if any((root / config_folder(arm.config)).exists() for arm in resolved):
        return as_now
    runs = find_runs(root)
    before: list[ResolvedArm] = []
    then: dict[tuple[str, object], object] = {}
    for arm in resolved:
        config = as_begun(configs[arm.name], arm.config, folders_on_corpus(arm.config, runs), side_by_side=2)
        for name in ("precision", "compile"):
            now, was = getattr(arm.config.train, name), getattr(config.train, name)
            if then.setdefault((name, now), was) != was:
                return as_now
        before.append(replace(arm, config=config))
    return before


def seeds_from(seeds: int | Sequence[int], first: int) -> tuple[int, ...]:
    """So many seeds from the first one on, or the seeds that are given.

    Raises:
        ConfigError: for none, or one that is given twice.
    """
    chosen = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"expected at least one seed, each once, given {seeds}")
    return chosen


def train_grid(
    grid: Grid,
    executor: Executor,
    should_stop: Callable[[], bool] = lambda: False,
    patience: float = 600,
    places: Sequence[Place] | None = None,
) -> Iterator[tuple[str, int, Event]]:
    """Train what is missing of a grid; yields (arm, seed, event).

    Args:
        patience: seconds to wait for a run that another process is training.
        places: only these runs; None is all.
    """
    places = grid.places if places is None else places
    missing = [place for place in places if (run := grid.run(*place)) is None or not is_done(run)]
    folders = [grid.begin(*place).folder for place in missing]
    changes = [arm.change.where if (arm := grid.arm(name)).change else "" for name, _ in missing]
    for i, event in execute(folders, executor, should_stop, patience, changes):
        yield (*missing[i], event)


def at_once(grid: Grid) -> int:
    """How many runs share this machine: as many as have cores for their threads; one on an accelerator."""
    if machine.device().type != "cpu":
        return 1
    return max(1, machine.cores() // max(arm.config.train.threads or 1 for arm in grid.arms))


def is_done(run: Run, events: Sequence[Event] | None = None) -> bool:
    """Whether a run has nothing left to do.

    It finished, its last checkpoint is whole, and it was measured; or it diverged, as it would again.

    Args:
        events: of the run where they have been read; None reads them.
    """
    events = run.events("stopped") if events is None else events
    stopped = events[-1] if events and isinstance(events[-1], Stopped) else None
    if stopped is None or stopped.reason not in ("finished", "diverged"):
        return False
    if stopped.reason == "diverged":
        return True
    # The second condition reads the weights.
    return is_measured(run.folder, stopped.step) and newest_step(run.folder) == stopped.step
