"""The runs of commands: each once, in a folder that keeps its command, its output and how it ended.

runs/arm-NAME-KEY/arm.json              the arm: command, hashes of tracked files
                   /seed-0/output.log   what the command wrote
                   /seed-0/run.json     how it ended, sealed, with the SHA-256 of the output; written last
                   /seed-0/files/       {out}: the run's own place
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from windtunnel.comparison.comparison import SeedRun
from windtunnel.errors import ArtifactError, BusyError, DataError
from windtunnel.files import read_file, write_text
from windtunnel.programs.arms import ARM, JudgePlan, ProgramArm, git_state
from windtunnel.programs.measured import ProgramRun, measured_run
from windtunnel.programs.metrics import SECONDS, MetricSource, Series, read_series
from windtunnel.programs.process import Ended, run_command
from windtunnel.runs.execute import wanted_file
from windtunnel.runs.worker import says_stop
from windtunnel.training.disk import locked, read_sealed, saving, sealed

RUN, OUTPUT, FILES = "run.json", "output.log", "files"
Place = tuple[ProgramArm, int, int]
"""An arm, a seed, and which of the repeats."""


def execute_programs(
    places: Sequence[Place], plan: JudgePlan, executor: Executor, should_stop: Callable[[], bool] = lambda: False,
    again: bool = False,
) -> Iterator[tuple[Place, str]]:  # fmt: skip
    """Run what has not been run, each once; yields (place, how it ended in words) as they end.

    Args:
        executor: any of concurrent.futures whose workers see the same folders.
        should_stop: when it says yes, the running commands are ended and no other is begun.
        again: whether runs that failed are run once more.
    """
    todo = [place for place in places if place[0].runs and not is_done(place[0].place(*place[1:]), again)]
    if not todo:
        return
    root, git = todo[0][0].folder.parent, git_state(Path.cwd())
    for arm in {arm.folder: arm for arm, _, _ in todo}.values():
        _write_arm(arm)
    with wanted_file(root) as wanted:
        tasks = {_submit(executor, place, plan, git, again, wanted): place for place in todo}
        waiting, asked = dict(tasks), False
        try:
            while waiting:
                if not asked and should_stop():
                    asked = True
                    os.truncate(wanted, 1)
                done, _ = wait(waiting, timeout=0.1, return_when="FIRST_COMPLETED")
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            if waiting:
                os.truncate(wanted, 1)
                wait(waiting, timeout=20)


def _submit(executor: Executor, place: Place, plan: JudgePlan, git: str, again: bool, wanted: Path) -> Future[str]:
    arm, seed, repeat = place
    folder = arm.place(seed, repeat).absolute()
    facts = {"arm": arm.key, "seed": seed, "repeat": repeat, "git": git, "at_once": plan.jobs}
    facts["command"] = arm.at(seed, folder / FILES)
    cwd = folder / FILES if arm.own_folder else Path(arm.cwd)
    most = int(plan.output_limit * (1 << 20))
    return executor.submit(run_once, str(folder), str(cwd), facts, plan.time_limit, most, again, str(wanted))


def run_once(
    folder: str, cwd: str, facts: dict[str, Any], seconds: float | None, most: int, again: bool, wanted: str
) -> str:
    """Run a command in its folder unless that was done; returns how it ended, in words.

    A run that another process is at is waited for. One that was interrupted begins anew: nobody but the program knows
    how it goes on.
    """
    place = Path(folder)
    while not says_stop(Path(wanted)):
        try:
            with saving(place):
                place.mkdir(parents=True, exist_ok=True)
            with locked(place):
                if is_done(place, again):
                    return "done before"
                return _run(place, cwd, facts, seconds, most, Path(wanted))
        except BusyError:
            time.sleep(0.2)
    return "not begun"


def _run(place: Path, cwd: str, facts: dict[str, Any], seconds: float | None, most: int, wanted: Path) -> str:
    with saving(place):
        (place / RUN).unlink(missing_ok=True)
        shutil.rmtree(place / FILES, ignore_errors=True)
        (place / FILES).mkdir()
    ended = run_command(facts["command"], Path(cwd), place / OUTPUT, seconds, most, wanted)
    if ended.reason == "stopped":
        return "interrupted"
    output = place / OUTPUT
    with saving(place):
        digest = hashlib.sha256(output.read_bytes()).hexdigest() if output.exists() else ""
        body = {**facts, "output": digest, "message": _message(ended, output, seconds)}
        body |= {name: getattr(ended, name) for name in ("reason", "status", "seconds", "size", "cut", "left")}
        write_text(place / RUN, sealed(body).decode())
    return body["message"] or "finished"


def _message(ended: Ended, output: Path, seconds: float | None) -> str:
    """What went wrong, in words; nothing when it ended well."""
    if ended.reason == "lost":
        return f"it could not be run: {ended.message}"
    if ended.reason == "timed out":
        return f"it was ended after the time limit of {seconds:g} s"
    if ended.status == 0:
        return ""
    how = f"signal {-ended.status} killed it" if ended.status < 0 else f"exit status {ended.status}"
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return f"{how}; its last line: {lines[-1][:200]}" if lines else f"{how}; it wrote nothing"


def is_done(folder: Path, again: bool = False) -> bool:
    """Whether there is a run that ended by itself or by its time limit; with `again` only one that ended well."""
    try:
        facts = read_sealed(folder / RUN)
    except (FileNotFoundError, NotADirectoryError, ArtifactError):
        return False
    return not again or not facts["message"]


def _write_arm(arm: ProgramArm) -> None:
    with saving(arm.folder):
        arm.folder.mkdir(parents=True, exist_ok=True)
        if not (arm.folder / ARM).exists():
            write_text(arm.folder / ARM, sealed(arm.facts()).decode())


def read_run(arm: ProgramArm, seed: int, repeat: int, metrics: Sequence[MetricSource]) -> ProgramRun:
    """What the folder of a run says, and its metrics.

    Raises:
        ArtifactError: when the record or the output was altered.
    """
    place = arm.place(seed, repeat)
    try:
        facts = read_sealed(place / RUN)
    except FileNotFoundError:
        begun = (place / OUTPUT).exists()
        reason, told = ("interrupted", "it was stopped before its end") if begun else ("not begun", "")
        return ProgramRun(SeedRun(seed, str(place), reason, told, {}), repeat, {})
    told, series = facts["message"], {}
    if not told:
        _check_output(place, facts["output"])
        try:
            series = {metric.title: _series(metric, arm, seed, place, facts["seconds"]) for metric in metrics}
        except DataError as error:
            told = str(error)
    found = measured_run(seed, str(place), series, metrics, told)
    known = {name: facts[name] for name in ("seconds", "cut", "left", "at_once", "git")}
    return replace(found, repeat=repeat, **known)


def _check_output(place: Path, digest: str) -> None:
    try:
        whole = hashlib.sha256(read_file(place / OUTPUT)).hexdigest() == digest
    except OSError:
        whole = False
    if not whole:
        raise ArtifactError(
            f"{place / OUTPUT} is missing or was altered since the run: delete the folder {place}, and it is run again"
        )


def _series(metric: MetricSource, arm: ProgramArm, seed: int, place: Path, seconds: float) -> Series:
    if metric.where == SECONDS:
        return Series((0.0,), (seconds,))
    if metric.file is None:
        return read_series(metric, place / OUTPUT)
    out = place / FILES
    named = Path(metric.file.replace("{seed}", str(seed)).replace("{out}", str(out)))
    return read_series(metric, (out if arm.own_folder else Path(arm.cwd)) / named)
