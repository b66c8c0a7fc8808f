"""A plan is arms x seeds and the rule that judges them; training it fills run folders, which `conclude` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from windtunnel.comparison.verdict import FEWEST_SEEDS, Correction
from windtunnel.config import fingerprint
from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.runs.arms import Arm, ResolvedArm, resolve_arms
from windtunnel.runs.budget import within_budget
from windtunnel.runs.measure import is_measured
from windtunnel.runs.seeds import RUNS, config_folder, corpus_label, find_runs
from windtunnel.training.checkpoint import newest_step
from windtunnel.training.events import Event, Stopped
from windtunnel.training.run import open_run

MARGIN = 0.005


@dataclass(frozen=True)
class Plan:
    """What is compared, and how it will be judged; decided before the first run.

    arms: the baseline first.
    seeds: of every arm, in this order; with `until_decided` as many of them as it takes, 4 at least.
    margin: the share of the baseline's loss below which a difference does not matter.
    root: where run folders are looked for and made.
    """

    arms: tuple[ResolvedArm, ...]
    seeds: tuple[int, ...]
    margin: float = MARGIN
    alpha: float = 0.05
    power: float = 0.8
    correction: Correction = "holm"
    until_decided: bool = False
    root: Path = RUNS

    @property
    def folder(self) -> Path:
        """Where the comparison's report goes: the same arms with more seeds come here again."""
        return comparison_folder(self.arms, self.root)

    @property
    def looks(self) -> tuple[int, ...] | None:
        """After which numbers of seeds the verdict may be taken; None is once, at the end."""
        return tuple(range(FEWEST_SEEDS, len(self.seeds) + 1)) if self.until_decided else None


def comparison_folder(arms: Sequence[ResolvedArm], root: Path) -> Path:
    """`compare-CORPUS-HASH` with a hash of all arms, the baseline apart."""
    keys = arms[0].key + "".join(sorted(arm.key for arm in arms[1:]))
    return root / f"compare-{corpus_label(arms[0].config)}-{hashlib.sha256(keys.encode()).hexdigest()[:6]}"


def make_plan(
    arms: Sequence[Arm],
    seeds: int | Sequence[int] = 6,
    baseline: str | None = None,
    budget: tuple[str, float] | None = None,
    margin: float = MARGIN,
    alpha: float = 0.05,
    correction: Correction = "holm",
    until_decided: bool = False,
    root: Path = RUNS,
) -> Plan:
    """Resolve the arms and check the rule.

    Args:
        seeds: a number, counted from the first arm's own seed, or the seeds; with until_decided the most there may be.
        baseline: the name of an arm; the first one when not given.
        budget: ("steps" | "tokens" | "flops" | "seconds", how many) for every run; None leaves each arm its steps.

    Raises:
        ConfigError: for arms that cannot be compared, and for a rule that can decide nothing.
    """
    first = arms[0].config.seed if arms else 0
    chosen = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"expected at least one seed, each once, given {seeds}")
    if not 0 < margin < 1:
        raise ConfigError(
            f"the margin is the share of the baseline's loss below which a difference does not matter, so between 0 "
            f"and 1, given {margin:g}; no number of seeds can show that a difference is exactly 0"
        )
    if not 0 < alpha < 1:
        raise ConfigError(f"expected an error rate alpha between 0 and 1, given {alpha:g}")
    if correction not in get_args(Correction):
        raise ConfigError(f"there is no correction {correction!r}; known are {', '.join(get_args(Correction))}")
    if until_decided and len(chosen) < FEWEST_SEEDS:
        raise ConfigError(f"--until-decided needs --max-seeds of at least {FEWEST_SEEDS}, given {len(chosen)}")
    if until_decided and correction == "dunnett":
        raise ConfigError("Dunnett's correction is for one look at the end; with --until-decided use holm")
    resolved = resolve_arms(arms, baseline)
    if budget is not None:
        resolved = within_budget(resolved, *budget, comparison_folder(resolved, root))
    return Plan(tuple(resolved), chosen, margin, alpha, correction=correction, until_decided=until_decided, root=root)


def run_folders(plan: Plan) -> dict[tuple[str, int], Path]:
    """The folder of each (arm, seed): of a run of this config wherever below the root, or a new one's."""
    known = {}
    for folder in reversed(find_runs(plan.root)):
        with suppress(ArtifactError):  # a damaged run is not used, and not touched
            record = open_run(folder).record
            known[record["config_sha256"], record["corpus_sha256"]] = folder
    folders = {}
    for arm in plan.arms:
        for seed in plan.seeds:
            key = fingerprint(arm.config.replace(seed=seed)), arm.store.sha256
            folders[arm.name, seed] = known.get(key) or plan.root / config_folder(arm.config) / f"seed-{seed}"
    return folders


def is_settled(folder: Path) -> bool:
    """Whether a run has nothing left to do.

    It finished, its last checkpoint is whole, and it was measured; or it diverged, as it would again.
    """
    return folder.exists() and has_settled(folder, open_run(folder).events("stopped"))


def has_settled(folder: Path, events: Sequence[Event]) -> bool:
    """`is_settled` for a run whose events have been read."""
    stopped = events[-1] if events and isinstance(events[-1], Stopped) else None
    if stopped is None or stopped.reason not in ("finished", "diverged"):
        return False
    if stopped.reason == "diverged":
        return True
    return is_measured(folder, stopped.step) and newest_step(folder) == stopped.step  # the second reads the weights
