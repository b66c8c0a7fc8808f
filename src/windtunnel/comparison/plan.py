"""A plan is a grid of runs and the rule that judges them; training it fills run folders, which `conclude` reads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from windtunnel.comparison.verdict import FEWEST_SEEDS, Correction, Rule
from windtunnel.errors import ConfigError
from windtunnel.runs.arms import Arm, ResolvedArm, resolve_arms
from windtunnel.runs.budget import within_budget
from windtunnel.runs.grid import Grid, as_they_began, seeds_from
from windtunnel.runs.seeds import RUNS, corpus_label

MARGIN = 0.005


@dataclass(frozen=True)
class Plan:
    """What is compared, and how it will be judged; decided before the first run.

    grid: its first arm is the baseline. With `rule.looks` as many of its seeds are trained as it takes.
    margin: the share of the baseline's score below which a difference does not matter.
    rule: its margin is NaN until the baseline's score is known.
    """

    grid: Grid
    margin: float = MARGIN
    rule: Rule = field(default_factory=lambda: Rule(math.nan))

    @property
    def baseline(self) -> ResolvedArm:
        """What the other arms are compared with."""
        return self.grid.arms[0]

    @property
    def folder(self) -> Path:
        """Where the comparison's report goes: the same arms with more seeds come here again."""
        return comparison_folder(self.grid.arms, self.grid.root)


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
        until_decided: whether seeds are added, from 4 on, until every arm is decided.

    Raises:
        ConfigError: for arms that cannot be compared, and for a rule that can decide nothing.
    """
    chosen = seeds_from(seeds, arms[0].config.seed if arms else 0)
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
    resolved = as_they_began(arms, resolve_arms(arms, baseline), root)
    if budget is not None:
        resolved = within_budget(resolved, *budget, comparison_folder(resolved, root))
    looks = tuple(range(FEWEST_SEEDS, len(chosen) + 1)) if until_decided else None
    return Plan(Grid(tuple(resolved), chosen, root), margin, Rule(math.nan, alpha, correction=correction, looks=looks))
