"""check: the training doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import RECIPES, Columns, Json, Set, console, print_json, settings


def check(
    what: Annotated[
        str,
        typer.Argument(metavar="RECIPE|RUN", help=f"{RECIPES}; or a run.", autocompletion=completing.recipes_and_runs),
    ],
    corpus: Annotated[
        str | None,
        typer.Option(
            help="For a recipe: a corpus name, file, folder or glob; by default names.",
            autocompletion=completing.corpora,
        ),
    ] = None,
    set: Set = [],  # noqa: B006
    column: Columns = [],  # noqa: B006
    steps: Annotated[int, typer.Option(min=20, help="How many steps to train copies of the model.")] = 120,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and page; by default below ./checks.")] = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a recipe before it runs, or with a run.

    Copies of the model are trained for a short while; a run's history and newest checkpoint are read, too. Each
    finding comes with its evidence, its severity and a cure.

    Exit code 0: no problem (warnings may be there). 1: a problem was found.
    """
    from windtunnel.errors import ConfigError
    from windtunnel.inspect.doctor.checks import judge
    from windtunnel.inspect.doctor.exam import measure
    from windtunnel.inspect.doctor.subject import recipe_subject, run_subject
    from windtunnel.report.doctor import findings_tables, save_report, to_dict
    from windtunnel.runs.seeds import find_run
    from windtunnel.training.recipes import RECIPES as KNOWN

    with console().status("looking, and training copies"):
        if what in KNOWN or what == "auto":
            subject = recipe_subject(what, settings(corpus or "names", what, None, set, column, None))
        elif set or column or corpus:
            option = "--set" if set else "--column" if column else "--corpus"
            raise ConfigError(f"{option} changes a recipe, and {what} is none; a run is what it is")
        else:
            subject = run_subject(find_run(what))
        exam = measure(subject, steps)
        findings = judge(exam)
    if as_json:
        print_json(to_dict(exam, findings))
    else:
        shown = console(stderr=False)
        for part in findings_tables(exam, findings):
            shown.print(part, soft_wrap=not hasattr(part, "columns"))
    for path in save_report(exam, findings, out or Path("checks") / Path(what).name):
        console().print(f"written: {path}", soft_wrap=True)
    raise typer.Exit(1 if any(finding.severity == "problem" for finding in findings) else 0)
