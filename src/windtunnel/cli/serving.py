"""serve: a page and an API for the runs of a folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.terminal import print_text

if TYPE_CHECKING:
    from windtunnel.serve.serving import Started


def serve(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Where to listen; other than this machine alone, it wants the token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="WINDTUNNEL_TOKEN", show_envvar=False, help="By default a new one; or $WINDTUNNEL_TOKEN."),
    ] = None,
    allow_host: Annotated[
        list[str], typer.Option(metavar="NAME", help="A further name that it answers to; may be given several times.")
    ] = [],  # noqa: B006
    root_path: Annotated[str, typer.Option(metavar="PATH", help="What a proxy takes off the path, as /models.")] = "",
    memory: Annotated[
        float | None, typer.Option(min=0.001, help="GB that models may take; by default half of the machine's.")
    ] = None,
) -> None:
    """Serve a page, and an API for OpenAI's clients, on this machine.

    The page shows runs as they train and looks inside a model; the API writes texts and gives probabilities.
    """
    from windtunnel.errors import MissingExtra

    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise MissingExtra(" ".join(missing), "windtunnel serve")
    from windtunnel.serve.serving import serve as answer

    answer(folder, host, port, _say, token, allow_host, root_path, None if memory is None else int(memory * 1e9))


def _say(started: Started) -> None:
    use = "every request needs it" if started.always else "what starts or stops something needs it"
    print_text(f"page:  {started.url}")
    print_text(f"API:   {started.url}v1")
    print_text(f"token: {started.token} ({use})")
