"""judge: anybody's commands and results, ending in a verdict."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.terminal import (
    Baseline,
    ExecutorName,
    Json,
    RunsFolder,
    UntilDecided,
    asked_to_stop,
    console,
    given_options,
    print_json,
    print_text,
)
from windtunnel.errors import ConfigError

if TYPE_CHECKING:
    from windtunnel.programs.judge import Judged


def judge(
    context: typer.Context,
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN.toml]", help="A .toml file of these options; those given here override it."),
    ] = None,
    arm: Annotated[
        list[str],
        typer.Option(metavar="NAME=COMMAND", help="A shell command with {seed}; {out} is a folder of the run's own."),
    ] = [],  # noqa: B006
    results: Annotated[
        list[str], typer.Option(metavar="NAME=PATH", help="Runs that exist: CSV, JSONL, logs, TensorBoard, trackio.")
    ] = [],  # noqa: B006
    metric: Annotated[
        list[str], typer.Option(help="A pattern like 'loss ([0-9.]+)', a JSON key or a column; the first decides.")
    ] = [],  # noqa: B006
    metric_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where the program writes it: '{out}/log.csv'; else its output.")
    ] = None,
    higher: Annotated[
        bool | None,
        typer.Option(
            "--higher/--lower", help="Whether higher or lower is better; lower if not given.", show_default=False
        ),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Take the best value in the output, not the last.")] = False,
    pair: Annotated[
        str | None, typer.Option(help="How --results are paired: the column of the seeds, or `order`.")
    ] = None,
    baseline: Baseline = None,
    baseline_from: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Take the runs in this arm's folder as the baseline; run none of them again."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Paired seeds of every arm; 6 if not given.")] = None,
    first_seed: Annotated[int | None, typer.Option(min=0, help="The first seed; 0 if not given.")] = None,
    until_decided: UntilDecided = False,
    max_seeds: Annotated[int | None, typer.Option(min=1, help="The most seeds with --until-decided; 16.")] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="How often to run each arm at each seed: shows the noise at one seed.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Share of the baseline below which a difference does not matter; .005.")
    ] = None,
    margin_in_units: Annotated[float | None, typer.Option(help="The same in the metric's unit.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The chance of a wrong winner among all arms; .05.")] = None,
    correction: Annotated[str | None, typer.Option(help="holm (if not given), dunnett, bonferroni or none.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs side by side; 1 if not given.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds after which a run is ended.")
    ] = None,
    output_limit: Annotated[
        float | None, typer.Option(metavar="MB", help="Megabytes to keep of a run's output; 16.")
    ] = None,
    own_folder: Annotated[bool, typer.Option("--own-folder", help="Run each in an empty folder of its own.")] = False,
    track: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="A file or folder that is part of the arms: when it changes, they run again."
        ),
    ] = [],  # noqa: B006
    power: Annotated[
        bool, typer.Option("--plan", help="Run two seeds (or --seeds), and say how many the margin takes.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", help="Keep each verdict in this file; say the false discovery rate over all."
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Run again what failed.")] = False,
    executor: ExecutorName = "local",
    out: RunsFolder = None,
    as_json: Json = False,
) -> None:
    """Judge programs or their results, paired over seeds.

    An arm is any command, or results that exist.

    Exit status with one arm beside the baseline: 0 better, 10 no difference that matters, 11 undecided, 12 worse, 1 an
    arm failed. Runs that exist are used again: the same command continues where it was stopped.
    """
    from windtunnel.programs.arms import make_plan
    from windtunnel.programs.judge import prepare, run_arms
    from windtunnel.runs.execute import open_executor
    from windtunnel.runs.seeds import RUNS

    settings = _settings(context, plan, {"arms": _named(arm, "--arm"), "results": _named(results, "--results")})
    asked_for = make_plan(_measured_by(settings, metric, metric_file, higher, best))
    if power:
        asked_for = asked_for.replace(seeds=seeds or 2, until_decided=False)
    judged, err = prepare(asked_for, out or RUNS), console()
    err.print(f"{len(judged.names)} arms, baseline {judged.names[0]}; the report goes to {judged.folder}")
    with (
        asked_to_stop(err, what="the running commands are ended") as asked,
        open_executor(executor, asked_for.jobs) as workers,
    ):
        for name, seed, told in run_arms(judged, workers, lambda: bool(asked), again):
            err.print(f"{name}, seed {seed}: {told}", soft_wrap=True)
    if power and not asked:
        raise typer.Exit(_print_needs(judged, as_json))
    status = _report(judged, None if asked else ledger, as_json)
    if asked:
        err.print("stopped; the same command goes on")
        raise typer.Exit(130 if asked[:1] == [signal.SIGINT] else 75)
    raise typer.Exit(status)


def _report(judged: Judged, ledger: Path | None, as_json: bool) -> int:
    """Judge the runs that are there, write the report, and print; the exit status."""
    from windtunnel.comparison.compare import save_comparison
    from windtunnel.programs.judge import conclude, exit_code
    from windtunnel.programs.ledger import keep_verdicts
    from windtunnel.report.comparison import print_comparison, save_report
    from windtunnel.report.comparison_series import series_figure

    measured = judged.measured()
    found = conclude(judged, measured)
    save_comparison(found)
    kept = keep_verdicts(found, ledger) if ledger else None
    series = series_figure(measured, found.metric)
    files = save_report(found, judged.folder, {"series": series} if series else {})
    if as_json:
        print_json(found.to_dict() | ({"ledger": kept} if kept else {}))
    else:
        print_comparison(found, console(stderr=False), files)
        for line in kept.lines if kept else ():
            print_text(line)
    return exit_code(found, judged, measured)


def _print_needs(judged: Judged, as_json: bool) -> int:
    """The exit status: 1 when an arm failed, or ignores its seed."""
    from windtunnel.programs.notes import problems
    from windtunnel.programs.power import needs

    measured = judged.measured()
    found = needs(judged.plan, measured)
    if as_json:
        print_json(found)
    for one in () if as_json else found:
        print_text(one.sentence)
    wrong = [line for arm in measured for line in problems(arm, judged.plan)]
    for line in wrong:
        console().print(line, soft_wrap=True)
    return 1 if wrong else 0


def _named(words: list[str], option: str) -> dict[str, str]:
    """NAME=VALUE, each name once."""
    pairs = [one.partition("=") for one in words]
    for one, (name, _, value) in zip(words, pairs, strict=True):
        if not name or not value:
            raise ConfigError(f"{option} {one!r}: expected NAME=VALUE, as {option} base=...")
    if len(found := {name: value for name, _, value in pairs}) < len(pairs):
        raise ConfigError(f"each {option} needs a name of its own, given {', '.join(name for name, _, _ in pairs)}")
    return found


def _settings(context: typer.Context, plan: Path | None, arms: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The settings of the file, and over them the options that were given: those of the same name, and the arms."""
    from windtunnel.config import read_settings
    from windtunnel.programs.arms import JudgePlan

    told = {name: context.params[name] for name in given_options(context, JudgePlan.model_fields)}
    return {**(read_settings(plan) if plan else {}), **told, **{name: own for name, own in arms.items() if own}}


def _measured_by(
    settings: dict[str, Any], wanted: list[str], file: str | None, higher: bool | None, best: bool
) -> dict[str, Any]:
    """The settings with the metrics that are wanted, and with what the options say of them, be they of the file or not.

    The first is taken as the options say; of the others the last value is.
    """
    first = ({} if higher is None else {"better": "higher" if higher else "lower"}) | ({"take": "best"} if best else {})
    metrics = [{"where": one} for one in wanted] or settings.get("metrics")
    if isinstance(metrics, list) and all(isinstance(one, dict) for one in metrics):
        every = {} if file is None else {"file": file}
        metrics = [{**one, **every, **({} if i else first)} for i, one in enumerate(metrics)]
    if not metrics:
        raise ConfigError("what decides? --metric 'val loss ([0-9.]+)', a key of JSON lines, or a column")
    return {**settings, "metrics": metrics}
