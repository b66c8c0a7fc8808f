"""compare: arms x seeds, ending in a verdict."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import (
    CORPUS_HELP,
    Baseline,
    BatchSize,
    Columns,
    ExecutorName,
    Json,
    Rate,
    RecipeName,
    RunsFolder,
    SeedNumber,
    Set,
    TaskName,
    UntilDecided,
    asked_to_stop,
    console,
    print_json,
    settings,
    short_forms,
)


def compare(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help=CORPUS_HELP, autocompletion=completing.corpora)],
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="PATH=A,B",
            autocompletion=completing.settings,
            help="A setting and its values, or A;B where they hold commas; several make a grid.",
        ),
    ] = [],  # noqa: B006
    zip: Annotated[bool, typer.Option("--zip", help="Vary several settings together, not as a grid.")] = False,
    arm: Annotated[
        list[str],
        typer.Option(metavar="NAME=FILE", help="One more arm: a .json or .toml of settings, or FILE.py:FUNCTION."),
    ] = [],  # noqa: B006
    baseline: Baseline = None,
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds of every arm.")] = 6,
    until_decided: UntilDecided = False,
    max_seeds: Annotated[int, typer.Option(min=1, help="The most seeds with --until-decided.")] = 16,
    budget: Annotated[
        str | None, typer.Option(metavar="KIND=AMOUNT", help="The same steps, tokens, flops or seconds for every run.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Share of the baseline's loss below which a difference does not matter.")
    ] = 0.005,
    alpha: Annotated[float, typer.Option(help="The chance of a wrong winner among all arms.")] = 0.05,
    correction: Annotated[str, typer.Option(help="holm, dunnett, bonferroni or none.")] = "holm",
    recipe: RecipeName = "auto",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            autocompletion=completing.runs,
            help="Begin every arm with the weights of this run.",
        ),
    ] = None,
    set: Set = [],  # noqa: B006
    column: Columns = [],  # noqa: B006
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; short for --set train.steps=N.")] = None,
    seed: SeedNumber = None,
    lr: Rate = None,
    batch_size: BatchSize = None,
    task: TaskName = None,
    slices: Annotated[
        bool,
        typer.Option(
            "--slices",
            help="Of arms that translate, judge each kind of source, too; mixes are always judged by corpus.",
        ),
    ] = False,
    executor: ExecutorName = "local",
    out: RunsFolder = None,
    as_json: Json = False,
) -> None:
    """Compare ways to train, paired over seeds, and judge them.

    Runs that exist are used again, interrupted ones go on: the same command continues where it was stopped.
    """
    from windtunnel.comparison.compare import save_comparison, train_arms
    from windtunnel.comparison.plan import make_plan
    from windtunnel.comparison.slices import check_slices, conclude_all
    from windtunnel.report.comparison import print_comparison, save_report
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.runs.arms import Arm, arm_from_file
    from windtunnel.runs.arms import vary as arms_of
    from windtunnel.runs.budget import parse_budget
    from windtunnel.runs.execute import open_executor
    from windtunnel.runs.grid import at_once
    from windtunnel.runs.seeds import RUNS

    err = console()
    with err.status("reading the corpus"):
        changes = [*set, *short_forms(seed=seed, lr=lr, batch_size=batch_size)]
        base = settings(corpus, recipe, start, changes, column, steps, task)
        varied = arms_of(base, vary, zip) if vary else [Arm("base", base)]
        plan = make_plan(
            [*varied, *(arm_from_file(base, named) for named in arm)],
            max_seeds if until_decided else seeds,
            baseline,
            parse_budget(budget) if budget else None,
            margin,
            alpha,
            correction,  # type: ignore[arg-type]
            until_decided,
            out or RUNS,
        )
        if slices:
            check_slices(plan)
    n = len(plan.grid.arms)
    err.print(f"{n} arms, baseline {plan.baseline.name}; the report goes to {plan.folder}")
    with (
        asked_to_stop(err) as asked,
        open_executor(executor, at_once(plan.grid)) as workers,
        TrainingProgress(err, brief=True) as progress,
    ):
        for name, seed, event in train_arms(plan, workers, lambda: bool(asked)):
            progress.show(f"{name}, seed {seed}", event)
    found = conclude_all(plan, slices)
    save_comparison(found)
    files = save_report(found, plan.folder)
    if as_json:
        print_json(found.to_dict())
    else:
        print_comparison(found, console(stderr=False), files)
    reasons = {run.reason for result in found.arms for run in result.seeds if run.loss is None}
    if asked or "interrupted" in reasons:
        err.print("stopped and saved; the same command goes on")
        raise typer.Exit(130 if asked[:1] == [signal.SIGINT] else 75)
    raise typer.Exit(1 if reasons else 0)
