"""evaluate: the loss of a run on a split, and of one that translates what it writes, by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import (
    ChangeOption,
    FigurePath,
    Json,
    RunName,
    console,
    load_model,
    print_json,
    write_figure,
)
from windtunnel.errors import ArtifactError, ConfigError


def evaluate(
    run: RunName,
    split: Annotated[str, typer.Option(help="train, dev or test; all: the whole of --corpus.")] = "dev",
    corpus: Annotated[
        str | None,
        typer.Option(help="Another text than the run's own, as for `train`.", autocompletion=completing.corpora),
    ] = None,
    slices: Annotated[
        bool, typer.Option("--slices", help="Translate every source, and judge by kind of source.")
    ] = False,
    stress: Annotated[
        bool, typer.Option("--stress", help="With --slices: made-up sources too, up to 300 of each kind.")
    ] = False,
    wrong: Annotated[int, typer.Option(min=0, help="With --slices: how many of the wrong ones to list.")] = 10,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of a classifier: answer only from this probability on.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            autocompletion=completing.runs,
            help="Compare a classifier with another one on the same texts.",
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="With --against: the share of the other's accuracy that does not matter.")
    ] = None,
    figure: FigurePath = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Measure the loss of a run, or of all its seeds, on a split.

    A run that classifies or finds pictures is judged beside its baselines. --slices is for a run that translates; of
    several seeds it takes the first.
    """
    if slices and corpus:
        raise ConfigError("--slices judges a run on its own pairs; leave --corpus out")
    if margin is not None and against is None:
        raise ConfigError(f"--margin {margin:g} goes with --against RUN; add it, or leave --margin out")
    classifiers = {"--threshold": threshold, "--against": against}
    asked = [name for name, value in classifiers.items() if value is not None]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are two questions; ask them one by one")
    if slices and asked:
        raise ConfigError(f"--slices is for a run that translates, and {asked[0]} for a classifier; leave one out")
    if slices:
        _by_slice(run, split, stress, wrong, figure, change, as_json)
        return
    if stress or figure:
        raise ConfigError(f"{'--stress' if stress else '--figure'} goes with --slices; add it, or leave both out")
    folders = _seeds(run)
    kind = _task_kind(folders[0], sure=bool(asked))
    if kind == "contrastive" and not asked:
        _find(folders, split, corpus, change, as_json)
        return
    if kind == "classification":
        if corpus:
            raise ConfigError("a classifier is judged on its own table; leave --corpus out")
        if against and change:
            raise ConfigError("--against loads two runs, and --change names the code of one; leave one of them out")
        if against:
            _compare(folders, _seeds(against), split, margin, as_json)
        else:
            _judge(folders, split, threshold, change, as_json)
        return
    if against:
        raise ConfigError(f"--against compares classifiers, and {run} is none; for other runs: windtunnel compare")
    if threshold is not None:
        raise ConfigError(f"--threshold goes with a classifier, and {run} is none; leave it out")
    _loss(folders, split, change, as_json, corpus)


def _seeds(run: str) -> list[Path]:
    from windtunnel.runs.seeds import find_seeds

    return find_seeds(run)


def _task_kind(folder: Path, sure: bool) -> str:
    """What a run learned; of a damaged one, unless it has to be sure, nothing: another seed may be sound."""
    from windtunnel.training.run import open_run

    try:
        return open_run(folder).config.task.kind
    except ArtifactError:
        if sure:
            raise
        return ""


def _find(folders: list[Path], split: str, corpus: str | None, change: str | None, as_json: bool) -> None:
    from windtunnel.inspect.retrieval import judge_retrieval
    from windtunnel.report.retrieval import classes_table, first_lines, ranks_table, retrieval_dict, retrieval_lines
    from windtunnel.runs.seeds import WHOLE, other_store
    from windtunnel.training.run import load

    whole = corpus is not None and split == WHOLE
    with console().status(f"searching the {split} split"):
        store = other_store(load(folders[0], change), corpus, whole) if corpus else None
        found = judge_retrieval(folders, "train" if whole else split, store, change)
    if as_json:
        print_json(retrieval_dict(found))
        return
    out = console(stderr=False)
    for line in first_lines(found):
        out.print(line, soft_wrap=True)
    for table in (ranks_table(found), classes_table(found)):
        if table:
            out.print(table.terminal())
    for line in retrieval_lines(found):
        out.print(line, soft_wrap=True)


def _compare(mine: list[Path], theirs: list[Path], split: str, margin: float | None, as_json: bool) -> None:
    from windtunnel.comparison.classifiers import compare_classifiers
    from windtunnel.comparison.plan import MARGIN
    from windtunnel.report.classifiers import between_dict, between_line, between_lines, between_table

    margin = MARGIN if margin is None else margin
    if not 0 < margin < 1:
        raise ConfigError(f"--margin is the share of the other's accuracy that does not matter, given {margin:g}")
    with console().status(f"comparing on the {split} split"):
        found = compare_classifiers(mine[0], theirs[0], split, margin)
    if as_json:
        print_json(between_dict(found))
        return
    out = console(stderr=False)
    out.print(between_line(found), soft_wrap=True)
    out.print(between_table(found).terminal())
    seeds = ["of several seeds the first was taken; arms over seeds: windtunnel compare"]
    for line in between_lines(found) + seeds * (len(mine) + len(theirs) > 2):
        out.print(line, soft_wrap=True)


def _judge(folders: list[Path], split: str, threshold: float | None, change: str | None, as_json: bool) -> None:
    from windtunnel.cli.classifying import judge, say
    from windtunnel.report.classification import judged_dict

    found = judge(folders, split, threshold, change)
    print_json(judged_dict(found)) if as_json else say(found)


def _loss(folders: list[Path], split: str, change: str | None, as_json: bool, corpus: str | None) -> None:
    from windtunnel.report.training import evaluation_lines
    from windtunnel.runs.seeds import evaluate_seeds

    with console().status(f"evaluating on {corpus if corpus and split == 'all' else f'the {split} split'}"):
        found = evaluate_seeds(folders, split, partial=True, change=change, corpus=corpus)
    if as_json:
        print_json(found.to_dict())
    else:
        for line in evaluation_lines(found):
            console(stderr=False).print(line, soft_wrap=True)
    for _, message in found.damaged:
        console().print(f"left out: {message}", soft_wrap=True)
    if found.damaged:
        raise typer.Exit(3)


def _by_slice(
    run: str, split: str, stress: bool, wrong: int, figure: Path | None, change: str | None, as_json: bool
) -> None:
    from windtunnel.inspect.slices import evaluate_slices, evaluate_stress
    from windtunnel.report.figures import check_ending
    from windtunnel.report.slices import slice_lines, slice_tables, slices_figure

    if figure:
        check_ending(figure)
    trained, out = load_model(run, change), console(stderr=False)
    with console().status("translating"):
        made = [evaluate_stress(trained, n_wrong=wrong)] if stress else []
        found = [evaluate_slices(trained, split, wrong), *made]
    if as_json:
        print_json({"held_out": found[0], "stress": made[0] if made else None})
    else:
        for one in found:
            for table in slice_tables(one):
                out.print(table.terminal())
                out.print()
            for line in slice_lines(one):
                out.print(line, soft_wrap=True)
            out.print()
    if figure:
        write_figure(slices_figure(found), figure)
