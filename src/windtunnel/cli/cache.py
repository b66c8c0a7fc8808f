"""cache: what is kept that can be made or fetched again, and clearing it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from windtunnel.cli.terminal import Json, console, print_json

cache_app = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@cache_app.callback()
def cache(context: typer.Context, as_json: Json = False) -> None:
    """List what the cache holds, or clear a part of it."""
    if context.invoked_subcommand is not None:
        return
    from windtunnel.report.runs import cache_table
    from windtunnel.text.corpora.cache import cache_folder, listing

    found = listing()
    if as_json:
        print_json({"folder": str(cache_folder()), "kept": [asdict(kept) for kept in found]})
        return
    console(stderr=False).print(cache_table(found))
    console(stderr=False).print(f"in {cache_folder()}", soft_wrap=True)


@cache_app.command()
def clear(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Folders of the list, e.g. models features.")],
) -> None:
    """Delete folders of the cache.

    What they held is made or fetched again when it is needed.
    """
    from windtunnel.text.corpora.cache import clear as delete

    for name in names:
        console().print(f"{name}: {delete(name) / 1e6:,.1f} MB cleared")
