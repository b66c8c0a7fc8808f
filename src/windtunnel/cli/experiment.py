"""experiment: the built-in experiments, run and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import Json, console, print_json


def experiment(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A name or a row; without one, the list.", autocompletion=completing.experiments
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller run, with rougher numbers.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Where its random numbers start.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and report; else one below ./runs.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="A name or path, for an experiment on any text.", autocompletion=completing.corpora),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the built-in experiments, or run one and judge its claims."""
    from windtunnel.report.outcome_tables import listing_table, outcome_parts

    if name is None:
        from windtunnel.experiments import listing

        rows = listing()
        print_json(rows) if as_json else console(stderr=False).print(listing_table(rows))
        return
    from windtunnel.library.experimenting import run_experiment  # not above: it takes its time, and a list needs none

    chosen, outcome, written = run_experiment(name, quick, seed, out, corpus, console())
    files = [str(path) for path in written]
    if as_json:
        print_json({"name": chosen.name, "rows": chosen.rows, **outcome.to_dict(), "files": files})
        return
    for part in outcome_parts(outcome):
        console(stderr=False).print(part)
    for path in files:
        console(stderr=False).print(f"written: {path}", soft_wrap=True)
