"""scale CORPUS: a scaling study, planned for the minutes that there are."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from windtunnel.cli.scaling import Fits, Told, show_fits
from windtunnel.cli.terminal import asked_to_stop, console, print_json

if TYPE_CHECKING:
    from windtunnel.scaling.runner import News
    from windtunnel.scaling.study import Asked, Found, Study
    from windtunnel.training.run_config import RunConfig

Result = TypeVar("Result")


def scale_corpus(
    config: RunConfig,
    asked: Asked,
    fits: Fits,
    executor: str,
    jobs: int | None,
    root: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Plan a study, say so, train what is missing, and print what was found."""
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.report.scaling_study import plan_lines, plan_table
    from windtunnel.runs.execute import open_executor
    from windtunnel.scaling.foresight import foresee
    from windtunnel.scaling.runner import Cut, Runner
    from windtunnel.scaling.study import open_base, plan_study, run_study, runs_at_once

    err = console()
    with err.status("reading the corpus"):
        base = open_base(config)
    at_once = jobs or runs_at_once(base)
    with ExitStack() as stack:
        stop = stack.enter_context(asked_to_stop(err))
        workers = stack.enter_context(open_executor(executor, at_once))

        def follow(news: Generator[News, None, Result]) -> Result:
            with TrainingProgress(err, brief=True) as progress:
                return _follow(news, progress.show, lambda said: err.print(said, soft_wrap=True))

        study = follow(plan_study(base, asked, workers, at_once, root))
        shown = console(stderr=as_json or not dry_run)
        shown.print(plan_table(study.plan).terminal())
        for line in plan_lines(study.plan, asked.minutes, foresee(study.plan)):
            shown.print(line, soft_wrap=True)
        err.print(f"the study is {study.folder}", soft_wrap=True)
        if dry_run:
            if as_json:
                print_json(study.plan.to_dict())
            return
        try:
            runner = Runner(root, workers, lambda: bool(stop))
            found = follow(run_study(study, runner, fits.samples, fits.seed))
        except Cut as cut:
            err.print(f"{cut}; the same command goes on", soft_wrap=True)
            raise typer.Exit(130 if stop[:1] == [signal.SIGINT] else 75) from None
    show_fits(found.points, fits, study.folder, study.folder.name, as_json, _told(study, found))


def _follow(news: Generator[News, None, Result], show: Callable[..., None], say: Callable[[str], None]) -> Result:
    """Show what a study says; returns what it comes to."""
    while True:
        try:
            one = next(news)
        except StopIteration as end:
            return end.value
        if isinstance(one, str):
            say(one)
        else:
            show(*one)


def _told(study: Study, found: Found) -> Told:
    from windtunnel.report.scaling_study import found_lines, search_table, sweep_table

    data = {"folder": str(study.folder), "plan": study.plan.to_dict(), **found.to_dict()}
    return Told([sweep_table(found.sweeps), search_table(found.searched)], found_lines(found), data)
