"""settings: what `--set` can change."""

from __future__ import annotations

from typing import Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import Json, console, print_json, print_text


def settings(
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="[PREFIX]",
            help="Only those that begin with it, e.g. train or model.n_.",
            autocompletion=completing.setting_names,
        ),
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/settings.md.")] = False,
    as_json: Json = False,
) -> None:
    """List every setting with its type, its default and its meaning.

    A setting of one kind of model or task alone names the kind; a recipe has defaults of its own.
    """
    from windtunnel.errors import ConfigError
    from windtunnel.library.reference import as_dicts, as_markdown, settings_reference
    from windtunnel.report.runs import settings_table

    if markdown and (prefix or as_json):
        raise ConfigError("--markdown prints the page of all settings; give neither PREFIX nor --json")
    if markdown:
        print_text(as_markdown(), end="")
        return
    found = as_dicts(settings_reference(prefix))
    print_json(found) if as_json else console(stderr=False).print(settings_table(found))
