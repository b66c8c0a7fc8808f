"""train, resume, runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import (
    CORPUS_HELP,
    BatchSize,
    ChangeOption,
    Columns,
    FigurePath,
    Json,
    Parallel,
    Rate,
    RecipeName,
    RunName,
    SeedNumber,
    Set,
    TaskName,
    TrackerName,
    asked_to_stop,
    console,
    print_json,
    print_text,
    refuse_torchrun,
    settings,
    short_forms,
    write_figure,
)
from windtunnel.errors import ConfigError

if TYPE_CHECKING:
    from windtunnel.runs.seeds import Summary
    from windtunnel.training.distributed import Ranks
    from windtunnel.training.events import Stopped
    from windtunnel.training.run import Run
    from windtunnel.training.run_config import RunConfig

NO_RUNS = "no runs below ./runs yet; train one: windtunnel train names"


def train(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help=CORPUS_HELP, autocompletion=completing.corpora)] = "",
    recipe: RecipeName = "auto",
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Begin with the weights and settings of a run, or of a name of `models`.",
            autocompletion=completing.runs,
        ),
    ] = None,
    set: Set = [],  # noqa: B006
    column: Columns = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to train, side by side.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; short for --set train.steps=N.")] = None,
    seed: SeedNumber = None,
    lr: Rate = None,
    batch_size: BatchSize = None,
    task: TaskName = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="all|embeddings|N|none", help="Leave these weights as they are; N: the embeddings and N layers."
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(min=1, metavar="RANK", help="Train thin matrices of this rank beside the frozen weights."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="N|best", help="How many checkpoints to keep; best: the newest and the best on dev, which is used."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; by default one below ./runs.")] = None,
    parallel: Parallel = None,
    log: TrackerName = None,
    change: ChangeOption = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="A .toml or .json of settings, e.g. a run's config.json; options override it.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print all settings as TOML for --config, and train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a language model, a translator, a classifier or CLIP.

    A language model learns from any corpus, a translator from pairs, a classifier from texts with
    labels, CLIP from pictures with captions.
    The same command again continues where it was stopped, or shows the result.
    """
    from windtunnel.runs.seeds import create_seeds

    def config() -> RunConfig:
        short = short_forms(seed=seed, lr=lr, batch_size=batch_size, freeze=freeze, lora=lora, keep=keep)
        found = settings(corpus, recipe, start, [*set, *short], column, steps, task, file)
        if found.lora != type(found.lora)() and not found.lora.rank:
            raise ConfigError(
                "lora.targets and lora.alpha say how thin matrices are trained, and with lora.rank=0 there are none: "
                "all weights would be trained; give --lora RANK, or leave them out"
            )
        return found

    if show:
        _show(config(), seeds, change, as_json)
        return
    if parallel:
        from windtunnel.runs.distributed import create_distributed

        _refuse_alone(change, log)
        if seeds > 1:
            raise ConfigError(f"--parallel trains one seed, given --seeds {seeds}; begin torchrun once for each seed")
        _train_distributed(parallel, lambda ranks: create_distributed(config, out, ranks), as_json)
    refuse_torchrun()
    with console().status("reading the corpus"):
        first = config()
        folders = create_seeds(first, range(first.seed, first.seed + seeds), out, change)
    _train(folders, change, as_json, log)


def _show(config: RunConfig, seeds: int, change: str | None, as_json: bool) -> None:
    from windtunnel.config import to_toml
    from windtunnel.runs.seeds import RUNS, config_folder, resolve_seeds
    from windtunnel.training import speed

    resolved = resolve_seeds(config, seeds, change).config
    print_json(resolved.model_dump(mode="json")) if as_json else print_text(to_toml(resolved), end="")
    if said := speed.said(resolved):
        console().print(said, soft_wrap=True)
    where = RUNS / config_folder(resolved) / f"seed-{resolved.seed}"
    console().print(f"nothing is trained; the run's folder is {where} unless --out says another", soft_wrap=True)


def resume(
    run: RunName,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Extend finished runs to this many steps, in a new folder.")
    ] = None,
    parallel: Parallel = None,
    log: TrackerName = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Continue stopped runs, or extend finished ones.

    A stopped run goes on to its last step, a finished one to the step that --steps names. A run that is extended
    stays as it is: the longer one begins with its newest checkpoint and its log, in a folder named by all settings,
    `schedule.ends` among them.
    """
    from windtunnel.runs.extend import extend_seeds
    from windtunnel.runs.seeds import find_seeds

    if parallel:
        from windtunnel.runs.distributed import find_distributed

        _refuse_alone(change, log)
        if steps:
            raise ConfigError(f"--steps {steps} extends runs in one process; leave --parallel out, then resume with it")
        _train_distributed(parallel, lambda ranks: find_distributed(run, ranks), as_json)
    refuse_torchrun()
    folders = find_seeds(run)
    if steps:
        extended = extend_seeds(folders, steps)
        console().print(extended[0].said, soft_wrap=True)
        folders = [one.folder for one in extended]
    _train(folders, change, as_json, log)


def _train_distributed(parallel: str, folder_of: Callable[[Ranks], Path], as_json: bool) -> NoReturn:
    """Train one run in the processes of torchrun, of which this is one; rank 0 speaks for all."""
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.runs.distributed import train_distributed
    from windtunnel.training.distributed import open_ranks
    from windtunnel.training.events import Stopped

    ended = Stopped(0, "failed")
    with open_ranks(parallel) as ranks:
        err = console(quiet=ranks.rank > 0)
        # Until the process ends: the first rank that exits has torchrun send SIGTERM to those that are not so far.
        with asked_to_stop(err, until_exit=True) as asked, TrainingProgress(err) as progress:
            folder = folder_of(ranks)
            for event in train_distributed(folder, lambda: bool(asked), ranks):
                progress.show(folder.name, event)
                ended = event if isinstance(event, Stopped) else ended
    if ranks.rank == 0:
        _say_result([folder], {0: ended}, as_json)
    _exit({ended.reason}, asked, folder)


def _refuse_alone(change: str | None, log: str | None) -> None:
    if log:
        raise ConfigError(f"--log {log}: a run of several processes is not told to a tracker; leave --parallel out")
    if change:
        raise ConfigError(f"--change {change}: a changed run trains in one process; leave --parallel out")


def _train(folders: list[Path], change: str | None, as_json: bool, log: str | None) -> None:
    from windtunnel.library.training import train_seeds
    from windtunnel.report.forwarding import Forwarding
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.runs.seeds import unfinished
    from windtunnel.training.events import Stopped

    err, endings, missing = console(), {}, unfinished(folders)
    tracker = Forwarding(log, [folders[i] for i, _ in missing], lambda said: err.print(said, soft_wrap=True))
    err.print(f"{len(missing)} of {len(folders)} runs to train in {folders[0].parent}")
    with asked_to_stop(err) as asked, tracker, TrainingProgress(err) as progress:
        for index, event in train_seeds(missing, change, lambda: bool(asked)):
            progress.show(folders[index].name, event)
            tracker.look(folders[index])
            if isinstance(event, Stopped):
                endings[index] = event
    summary = _say_result(folders, endings, as_json, change)
    _exit({result.reason for result in summary.seeds}, asked, folders[0].parent)


def _say_result(folders: list[Path], endings: dict[int, Stopped], as_json: bool, change: str | None = None) -> Summary:
    from windtunnel.cli.classifying import judge, say
    from windtunnel.report.classification import judged_dict
    from windtunnel.report.training import floor_line, save_curves, seeds_table, verdict_line
    from windtunnel.runs.seeds import summarise
    from windtunnel.training.run import open_run

    summary = summarise(folders, endings)
    for seed in (seed for seed in summary.seeds if seed.reason == "damaged"):
        console().print(f"left out: {seed.message}", soft_wrap=True)
    sound = [open_run(Path(seed.folder)) for seed in summary.seeds if seed.reason != "damaged"]
    first = sound[0]
    picture = save_curves(sound, first.folder.parent / "curves.png")
    finished = [Path(seed.folder) for seed in summary.seeds if seed.reason == "finished"]
    judged = judge(finished, change=change) if first.config.task.kind == "classification" and finished else None
    if as_json:
        print_json(summary.to_dict() | ({"judged": judged_dict(judged)} if judged else {}))
    else:
        out = console(stderr=False)
        if judged:
            say(judged)
        noun = first.config.task.noun
        out.print(seeds_table(summary, noun))
        out.print(verdict_line(summary, noun), soft_wrap=True)
        if floor := floor_line(first):
            out.print(floor, soft_wrap=True)
        out.print(f"curves: {picture}", soft_wrap=True)
        out.print(f"next: {_next(first)}", soft_wrap=True)
    return summary


def _next(run: Run) -> str:
    """What to try with a trained run."""
    if run.config.task.kind == "classification":
        return f"windtunnel classify {run.folder} 'a text'"
    if run.config.task.kind == "translation":
        return f"windtunnel translate {run.folder} 'a text', or windtunnel evaluate {run.folder} --slices"
    if run.config.task.kind == "contrastive":
        return f"windtunnel search {run.folder} 'a caption', or windtunnel evaluate {run.folder}"
    prompt = "'your prompt'" if run.config.text.unit == "text" else "''"
    return f"windtunnel generate {run.folder} {prompt}"


def _exit(reasons: set[str], asked: list[int], folder: Path) -> NoReturn:
    if "interrupted" in reasons:
        console().print(f"stopped and saved; go on with: windtunnel resume {folder}", soft_wrap=True)
        raise typer.Exit(130 if asked[:1] == [signal.SIGINT] else 75)
    codes = {"diverged": 4, "failed": 1, "damaged": 3}
    raise typer.Exit(next((code for reason, code in codes.items() if reason in reasons), 0))


def runs(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN]...",
            autocompletion=completing.runs,
            help="Show this run in full; of two, how they differ.",
        ),
    ] = [],  # noqa: B006
    sort: Annotated[str, typer.Option(metavar="loss|time", help="The best first, or the newest.")] = "time",
    corpus: Annotated[
        str | None, typer.Option(help="Only runs on this corpus.", autocompletion=completing.corpora)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the list as it changes, until Ctrl-C.")] = False,
    figure: FigurePath = None,
    export: Annotated[
        str | None, typer.Option(metavar="tensorboard|csv|json", help="Give the history in this form.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of --export, for tensorboard a folder; else printed, or ./tensorboard.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs below ./runs, show one, or compare settings.

    Of two or more runs it says in which settings they differ; --figure draws their curves together. --export gives the
    losses of each step and evaluation, of all seeds where a folder of several is named.
    """
    if export is not None or out is not None:
        _export(run, export, out)
        return
    from windtunnel.report.runs import run_table, runs_table
    from windtunnel.runs.listing import describe, describe_all, listed
    from windtunnel.runs.seeds import find_run, find_runs

    if watch:
        _watch(run, sort, corpus, figure, as_json)
        return
    if len(run) > 1 or figure:
        _differ(run, figure, as_json)
        return
    found = [describe(find_run(run[0]))] if run else listed(describe_all(find_runs()), sort, corpus)
    if as_json:
        print_json(found[0] if run else found)
    elif not found:
        console().print(NO_RUNS)
    else:
        console(stderr=False).print(run_table(found[0]) if run else runs_table(found))
        for damaged in (entry for entry in found if entry["state"] == "damaged"):
            console().print(damaged["message"], soft_wrap=True)


def _export(names: list[str], form: str | None, out: Path | None) -> None:
    """The history of runs as other trackers read it."""
    from windtunnel.report.tracking import export_history
    from windtunnel.runs.seeds import find_seeds
    from windtunnel.training.run import open_run

    if form is None or not names:
        given = "--out has no --export" if form is None else "--export names no run"
        raise ConfigError(f"{given}; give both: windtunnel runs RUN --export csv --out FILE")
    folders = dict.fromkeys(folder for name in names for folder in find_seeds(name))
    made = export_history([open_run(folder) for folder in folders], form, out)
    if isinstance(made, str):
        print_text(made, end="")
    else:
        for path in made:
            console().print(f"written: {path}", soft_wrap=True)


def _watch(run: list[str], sort: str, corpus: str | None, figure: Path | None, as_json: bool) -> None:
    """Draw the list again whenever it changes; Ctrl-C leaves the last one."""
    from rich.live import Live
    from rich.text import Text

    from windtunnel.report.runs import runs_table
    from windtunnel.runs.listing import listed
    from windtunnel.runs.watching import watch_runs

    others = {"RUN": bool(run), "--figure": figure is not None, "--json": as_json}
    if given := [name for name, there in others.items() if there]:
        raise ConfigError(f"--watch shows the list of runs as it changes, and nothing else; leave {given[0]} out")
    if not sys.stdout.isatty():
        raise ConfigError("--watch draws on a terminal, and stdout is none; leave it out, or give --json instead")
    listed([], sort)
    out = console(stderr=False)
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        for found in watch_runs():
            chosen = listed(found, sort, corpus)
            live.update(runs_table(chosen) if chosen else Text(NO_RUNS), refresh=True)


def _differ(names: list[str], figure: Path | None, as_json: bool) -> None:
    """In which settings two runs differ, and their curves in one figure."""
    from windtunnel.config import differences
    from windtunnel.report.runs import differences_table
    from windtunnel.report.training import both_curves_figure
    from windtunnel.runs.seeds import find_run
    from windtunnel.training.run import open_run

    if len(names) != 2:
        raise ConfigError(
            f"two runs are compared with each other, given {len(names)}: windtunnel runs A B --figure FILE"
        )
    a, b = (open_run(find_run(name)) for name in names)
    differ = differences(a.config, b.config)
    if as_json:
        print_json({"runs": [str(a.folder), str(b.folder)], "differences": differ})
    elif differ:
        console(stderr=False).print(differences_table(a.name, b.name, differ))
    else:
        console(stderr=False).print("no setting differs")
    if figure:
        write_figure(both_curves_figure(a, b), figure)
