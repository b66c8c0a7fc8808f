"""A scaling study from its plan to its points: the sweep of the rate, budget by budget, the fits, and their test.

Every decision on the way is a function of the plan and of the runs, so that the same command goes on where it was
stopped, and trains nothing twice. The folder holds

    study.json      what was timed, the plan or why it was refused, the sweep, the search and the hold-out; sealed by
                    its SHA-256
    points.csv      one row a run that is fitted
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.config import fingerprint, plain
from windtunnel.errors import ArtifactError, ConfigError, DataError
from windtunnel.files import write_text
from windtunnel.runs.arms import Arm, ResolvedArm, resolve_grid
from windtunnel.runs.grid import Grid, at_once
from windtunnel.runs.seeds import RUNS, corpus_label
from windtunnel.scaling.design import FEWEST_STEPS, Design, Size, guess, make_design
from windtunnel.scaling.fit import Scaling, fit_scaling
from windtunnel.scaling.hold_out import HoldOut, hold_out
from windtunnel.scaling.pace import CALIBRATED, Pace, time_sizes
from windtunnel.scaling.plan import BUDGETS, HOLD_OUT_STEP, StudyPlan, check_asked, make_plan, with_hold_out
from windtunnel.scaling.points import Points, write_points
from windtunnel.scaling.runner import News, Runner
from windtunnel.scaling.search import Searched, next_center, search
from windtunnel.scaling.sweep import Sweep, sweep_rates
from windtunnel.training.disk import read_sealed, saving, sealed
from windtunnel.training.run_config import RunConfig

SAVED, POINTS = "study.json", "points.csv"
EFFECTIVE = 4e9
"""FLOP/s of a core on small models, for the first guess of which sizes are to be timed."""
ALIKE, RECENT = 100.0, 3600.0
"""The timing of a refused plan serves one whose minutes are within this factor of its own, for so many seconds."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a study is asked for.

    hold_out: seeds of the test of the forecast; 0 is no test.
    """

    minutes: float
    seeds: int = 3
    budgets: int = BUDGETS
    hold_out: int = 0
    repeat_data: bool = False
    fewest_steps: int = FEWEST_STEPS


@dataclass(frozen=True)
class Study:
    """A plan with its folder."""

    plan: StudyPlan
    asked: Asked
    folder: Path


@dataclass(frozen=True)
class Found:
    """What a study found."""

    sweeps: tuple[Sweep, ...]
    searched: tuple[Searched, ...]
    points: Points
    scaling: Scaling
    hold_out: HoldOut | str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        held = self.hold_out.to_dict() if isinstance(self.hold_out, HoldOut) else self.hold_out
        return {**_sweeps_dict(self.sweeps), **_searches_dict(self.searched), "hold_out": held}


def open_base(config: RunConfig) -> ResolvedArm:
    """The config that a study makes all others of; not compiled unless it says so, since no two sizes share a graph."""
    if config.train.compile == "auto":
        config = config.replace(train=config.train.replace(compile=False))
    return resolve_grid([Arm("base", config)])[0]


def runs_at_once(base: ResolvedArm) -> int:
    """How many runs of this config share the machine."""
    return at_once(Grid((base,), (0,)))


def study_folder(base: ResolvedArm, asked: Asked, root: Path = RUNS) -> Path:
    """`scale-CORPUS-HASH`, with a hash of the config and what is asked, the hold-out apart: it can be added later."""
    key = f"{base.key} {base.store.sha256} {asked.minutes:g} {asked.seeds} {asked.budgets} {asked.fewest_steps}"
    return root / f"scale-{corpus_label(base.config)}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"


def plan_study(
    base: ResolvedArm, asked: Asked, executor: Executor, side_by_side: int, root: Path = RUNS
) -> Generator[News, None, Study]:
    """Time this machine, unless the study's folder or that of a plan just refused knows it, and plan.

    What was timed is kept when the plan is refused: the minutes that the refusal names are those of this timing.

    Raises:
        ConfigError: for a config without a dial, or too few minutes.
        DataError: when text would be read more than four times.
    """
    check_asked(asked.minutes, asked.seeds, asked.budgets, asked.hold_out)
    folder = study_folder(base, asked, root)
    expected = EFFECTIVE * side_by_side * 60 * asked.minutes / 25
    design = make_design(base, guess(expected / 100), asked.fewest_steps)
    planned = _known(folder)
    if planned is None:
        refused = _timed_for_refused(base, asked, side_by_side, root)
        if refused:
            yield f"the timing is that of {refused[0]}, whose plan was refused; delete that folder to time again"
        timed = refused[1] if refused else (yield from _timed(design, expected, executor, side_by_side, folder))
    pace, included, found = planned or (timed, asked.hold_out, {})
    if pace.at_once != side_by_side:
        was = pace.at_once
        yield f"the minutes are those of {was} runs at once, as it was when they were timed, and not of {side_by_side}"
    try:
        plan = make_plan(design, pace, asked.minutes, asked.seeds, asked.budgets, included, asked.repeat_data)
    except (ConfigError, DataError) as error:
        if planned is None:
            _save(base, asked, folder, {"pace": vars(pace), "refused": str(error)})
            yield f"the plan is refused; its timing is kept in {folder}"
        raise
    if asked.hold_out != included:
        plan = with_hold_out(plan, asked.hold_out)
    kept = {"plan": plan.to_dict(), "pace": vars(pace), "minutes_include_hold_out": included}
    _save(base, asked, folder, {**kept, **found})
    return Study(plan, asked, folder)


def _timed(
    design: Design, expected: float, executor: Executor, side_by_side: int, folder: Path
) -> Generator[News, None, Pace]:
    """Four sizes from the smallest to the largest that may be planned."""
    low, high = guess(expected / 100) / 4, guess(4 * expected) * 2
    ratio = (high / low) ** (1 / (CALIBRATED - 1))
    sizes = list(dict.fromkeys(design.nearest(low * ratio**i) for i in range(CALIBRATED)))
    for news in time_sizes(design, sizes, executor, side_by_side, folder / "pace"):
        if isinstance(news, Pace):
            return news
        yield news
    raise AssertionError("the timing ends with a pace")


def run_study(study: Study, runner: Runner, samples: int = 1000, draws_seed: int = 0) -> Generator[News, None, Found]:
    """Train what is missing, and fit; the folder has its points as soon as there are some.

    Args:
        samples, draws_seed: of the fit whose forecast the hold-out tests, as in `fit_scaling`.

    Raises:
        Cut: when a run was interrupted or failed; the same call goes on.
    """
    plan, asked = study.plan, study.asked
    design, seeds = plan.design, range(asked.seeds)
    sweeps: list[Sweep] = []
    searched: list[Searched] = []

    def check(sizes: Sequence[Size], budget: float) -> Generator[News, None, Design]:
        sweep = yield from sweep_rates(design, sizes, budget, runner)
        sweeps.append(sweep)
        yield str(sweep)
        return replace(design, rule=sweep.rule)

    design = yield from check(plan.sweep.sizes, plan.sweep.budget)
    for row in plan.rows:
        center = next_center(searched, row.budget) if searched else guess(row.budget)
        if row.rates:
            design = yield from check([design.nearest(center)], row.budget)
        one = yield from search(design, row.budget, center, seeds[: row.seeds], runner, asked.repeat_data)
        searched.append(one)
        yield one.said
        points = points_of(design, searched)
        _note(study, {**_sweeps_dict(sweeps), **_searches_dict(searched)}, points)
    scaling = fit_scaling(points, samples=samples, seed=draws_seed, repeat_data=asked.repeat_data)
    held: HoldOut | str | None = None
    if plan.hold_out:
        forecast = scaling.at(HOLD_OUT_STEP * plan.budgets[-1])
        held = yield from hold_out(design, forecast, range(plan.hold_out.seeds), runner)
    found = Found(tuple(sweeps), tuple(searched), points, scaling, held)
    _note(study, found.to_dict(), points)
    return found


def points_of(design: Design, searched: Sequence[Searched]) -> Points:
    """The runs next to the best of each budget; those that diverged are left out."""
    rows = [
        (one.budget, size, seed, loss)
        for one in searched
        for size in one.sizes
        for seed, loss in one.losses[size].items()
        if math.isfinite(loss)
    ]
    spent = [design.spent(size, budget) for budget, size, _, _ in rows]
    return Points(
        parameters=np.array([size.parameters for _, size, _, _ in rows], dtype=float),
        all_parameters=np.array([size.all_parameters for _, size, _, _ in rows], dtype=float),
        tokens=np.array([tokens for tokens, _ in spent], dtype=float),
        flops=np.array([flops for _, flops in spent], dtype=float),
        budget=np.array([budget for budget, *_ in rows], dtype=float),
        loss=np.array([loss for *_, loss in rows], dtype=float),
        seed=np.array([seed for _, _, seed, _ in rows], dtype=np.int64),
        epochs=np.array([tokens / design.unique for tokens, _ in spent], dtype=float),
    )


def _sweeps_dict(sweeps: Sequence[Sweep]) -> dict[str, Any]:
    return {"sweeps": [sweep.to_dict() for sweep in sweeps]}


def _searches_dict(searched: Sequence[Searched]) -> dict[str, Any]:
    return {"searched": [_searched_dict(one) for one in searched]}


def _searched_dict(one: Searched) -> dict[str, Any]:
    return {
        "budget": one.budget,
        "best": one.best,
        "bracketed": one.bracketed,
        "why": one.why,
        "fitted": [size.parameters for size in one.sizes],
        "runs": [
            {**plain(size), "seed": seed, "loss": plain(loss)}
            for size, of in sorted(one.losses.items(), key=lambda item: item[0].parameters)
            for seed, loss in of.items()
        ],
    }


def _known(folder: Path) -> tuple[Pace, int, dict[str, Any]] | None:
    """What was timed for this study before, with how many seeds of a hold-out its minutes were planned, and what was
    found, if anything was; None where no plan was accepted."""
    try:
        body = read_sealed(folder / SAVED)
        if "refused" in body:
            return None
        found = {"found": body["found"]} if "found" in body else {}
        return _pace(body), int(body["minutes_include_hold_out"]), found
    except FileNotFoundError:
        return None
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        log.warning("the sizes are timed again, and the study may come to other budgets: %s", error)
        return None


def _pace(body: Mapping[str, Any]) -> Pace:
    pace = body["pace"]
    steps = tuple((float(flops), float(seconds)) for flops, seconds in pace["steps"])
    return Pace(steps, float(pace["overhead"]), int(pace["at_once"]))


def _timed_for_refused(base: ResolvedArm, asked: Asked, at_once: int, root: Path) -> tuple[Path, Pace] | None:
    """The newest timing of this config whose plan was refused, for about as many minutes, not long ago."""
    files = [folder / SAVED for folder in root.glob(f"scale-{corpus_label(base.config)}-*")]
    ages = {file: time.time() - file.stat().st_mtime for file in files if file.is_file()}
    for file in sorted(ages, key=ages.__getitem__):
        with suppress(ArtifactError, OSError, KeyError, TypeError, ValueError):
            body = read_sealed(file)
            pace, theirs = _pace(body), Asked(**body["asked"])
            same = body["config_sha256"] == fingerprint(base.config) and body["corpus_sha256"] == base.store.sha256
            alike = 1 / ALIKE <= theirs.minutes / asked.minutes <= ALIKE and theirs.fewest_steps == asked.fewest_steps
            if "refused" in body and same and alike and pace.at_once == at_once and ages[file] < RECENT:
                return file.parent, pace
    return None


def _save(base: ResolvedArm, asked: Asked, folder: Path, kept: Mapping[str, Any]) -> None:
    """Write study.json anew, with what was timed, and found before."""
    body = {
        "kind": "scaling study",
        "format": 1,
        "config": base.config.model_dump(mode="json"),
        "config_sha256": fingerprint(base.config),
        "corpus_sha256": base.store.sha256,
        "asked": vars(asked),
        **kept,
    }
    _write(folder, body)


def _note(study: Study, found: dict[str, Any], points: Points | None = None) -> None:
    """Add to study.json what was found, and write the points."""
    body = read_sealed(study.folder / SAVED)
    _write(study.folder, {**body, "found": found})
    if points is not None:
        with saving(study.folder):
            write_points(points, study.folder / POINTS)


def _write(folder: Path, body: dict[str, Any]) -> None:
    with saving(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SAVED, sealed(body).decode())
