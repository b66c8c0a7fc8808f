"""The command line: parse, call a public function, print. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any, TextIO

import typer

from windtunnel import __version__
from windtunnel.cli.cache import cache_app
from windtunnel.cli.check import check
from windtunnel.cli.classifying import classify
from windtunnel.cli.compare import compare
from windtunnel.cli.corpora import corpora_app
from windtunnel.cli.evaluating import evaluate
from windtunnel.cli.experiment import experiment
from windtunnel.cli.explain import explain_app
from windtunnel.cli.groups import Grouped, epilog
from windtunnel.cli.judge import judge
from windtunnel.cli.labelling import label
from windtunnel.cli.looking import cost, generate, look
from windtunnel.cli.models import models_app
from windtunnel.cli.pretrained import alter, export, fold, import_
from windtunnel.cli.scaling import scale
from windtunnel.cli.searching import search
from windtunnel.cli.serving import serve
from windtunnel.cli.settings import settings
from windtunnel.cli.stats import stats_app
from windtunnel.cli.terminal import warn
from windtunnel.cli.training import resume, runs, train
from windtunnel.cli.translating import translate
from windtunnel.errors import WindtunnelError

app = typer.Typer(
    cls=Grouped,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"windtunnel {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A wind tunnel for language models: train small ones, look inside, trust the numbers."""


COMMANDS = (
    train, resume, check, compare, judge, scale, generate, translate, classify, look, cost, evaluate, label, search,
    runs, settings, experiment, serve, export, alter, fold,
)  # fmt: skip
for command in COMMANDS:
    app.command(epilog=epilog(command.__name__))(command)
app.command("import", epilog=epilog("import"))(import_)
SUBJECTS = {
    "corpora": corpora_app, "models": models_app, "cache": cache_app, "explain": explain_app, "stats": stats_app,
}  # fmt: skip
for name, subject in SUBJECTS.items():
    for part in subject.registered_commands:
        part.epilog = epilog(f"{name} {part.callback.__name__}" if part.callback else name)
    app.add_typer(subject, name=name, epilog=epilog(name))


def main() -> None:
    """Run the command line; every error of windtunnel is one line on stderr and its exit code.

    A character that the terminal's encoding lacks is printed as a question mark. When the reader of the output goes
    away, as `| head` does, the command ends silently with 141, as one that SIGPIPE ends.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _exit_code()
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141
        for stream in (sys.__stdout__, sys.__stderr__):
            _drop_unreadable(stream)
    sys.exit(code)


def _exit_code() -> Any:
    try:
        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer makes an exit with 1 of it
            raise end.__context__ from None
        return end.code
    except WindtunnelError as error:
        warn(str(error))
        return error.exit_code


def _drop_unreadable(stream: TextIO | None) -> None:
    """Send what is left in a stream without a reader nowhere; Python would complain of it at its end."""
    if stream is not None:
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
