"""The command line: parse, call a public function, print. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from typing import Annotated

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
from windtunnel.cli.settings import settings
from windtunnel.cli.stats import stats_app
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
    train, resume, check, compare, judge, scale, generate, translate, classify, look, cost, evaluate, label, runs,
    settings, experiment, export, alter, fold,
)  # fmt: skip
for command in COMMANDS:
    app.command(epilog=epilog(command.__name__))(command)
app.command("import", epilog=epilog("import"))(import_)
app.add_typer(corpora_app, name="corpora")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(explain_app, name="explain")
app.add_typer(stats_app, name="stats")


def main() -> None:
    """Run the command line; every error of windtunnel is one line on stderr and its exit code."""
    try:
        app()
    except WindtunnelError as error:
        print(f"windtunnel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        sys.exit(1)
