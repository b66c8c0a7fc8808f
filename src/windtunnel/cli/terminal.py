"""What the commands share: options, the console, JSON, and how they are asked to stop."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli import completing, words
from windtunnel.errors import ConfigError
from windtunnel.text.visible import STEERING, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.report.terminal import PlainConsole
    from windtunnel.training.run import TrainedModel
    from windtunnel.training.run_config import RunConfig

TaskName = Annotated[
    str | None,
    typer.Option("--task", help="language, translation, classification or contrastive; by default the corpus decides."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
*_first, _last = words.RECIPES.split()[1:]  # without auto
RECIPES = f"{', '.join(_first)} or {_last}"

Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a setting, e.g. model.n_layers=6.",
        autocompletion=completing.settings,
    ),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help=f"{RECIPES}; by default one that fits.", autocompletion=completing.recipes)
]
Parallel = Annotated[
    str | None,
    typer.Option(
        metavar="ddp|fsdp", help="Share the run among torchrun's processes: ddp copies the model, fsdp shards it."
    ),
]
TrackerName = Annotated[
    str | None,
    typer.Option("--log", metavar="trackio|wandb", help="Also give the numbers to this tracker, as they come."),
]
FigurePath = Annotated[Path | None, typer.Option("--figure", metavar="PATH", help="Write a .png, .svg or .pdf.")]
SeedNumber = Annotated[int | None, typer.Option("--seed", min=0, help="The first seed; short for --set seed=N.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Peak learning rate; short for --set optimizer.lr=X.")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Examples per step; short for --set train.batch_size=N.")
]
SHORT = {
    "seed": "seed", "lr": "optimizer.lr", "batch_size": "train.batch_size", "freeze": "train.freeze",
    "lora": "lora.rank", "keep": "train.keep",
}  # fmt: skip
"""The setting that each option is short for."""
CORPUS_HELP = "A name from `windtunnel corpora`, or a file, folder or glob; a mix: a.txt:0.7,b.txt:0.3."
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run folder, its name below ./runs, or `last`.", autocompletion=completing.runs
    ),
]
Columns = Annotated[
    list[str],
    typer.Option(
        "--column",
        metavar="FIELD=NAME",
        help="For a table: source=NAME target=NAME, text=NAME [label=NAME].",
    ),
]
Baseline = Annotated[str | None, typer.Option(help="The arm that the others are compared with; else the first.")]
UntilDecided = Annotated[
    bool, typer.Option("--until-decided", help="Add seeds until every arm is decided; the error rate stays at --alpha.")
]
ExecutorName = Annotated[str, typer.Option("--executor", help="local, dask, or dask=ADDRESS of a scheduler.")]
RunsFolder = Annotated[Path | None, typer.Option("--out", help="Where runs are found and made; by default ./runs.")]
ChangeOption = Annotated[
    str | None,
    typer.Option("--change", metavar="FILE:FUNCTION", help="A function that changes the run; it is executed."),
]


def given_options(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Which of the options and arguments of these names were given; those of a default, and of no command, were not."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


def settings(
    corpus: str,
    recipe: str,
    start: str | None,
    changes: list[str],
    columns: list[str],
    steps: int | None,
    task: str | None = None,
    file: Path | None = None,
) -> RunConfig:
    """The config that the options of train, compare and check ask for; a table that is read as text is told."""
    from windtunnel.library.settings import config_for

    config = config_for(corpus, recipe, start, changes, columns_of(columns) if columns else None, task, steps, file)
    _say_plain_tables(config)
    return config


def short_forms(**given: float | str | None) -> list[str]:
    """What the options that are short for a setting say, as --set takes it; None for one that was not given."""
    return [f"{SHORT[name]}={value}" for name, value in given.items() if value is not None]


def columns_of(given: list[str]) -> dict[str, str]:
    """The columns of --column FIELD=NAME. Raises ConfigError unless there are two fields or more, each once."""
    pairs = [one.partition("=") for one in given]
    fields = dict.fromkeys(field for field, _, name in pairs if field and name)
    if len(fields) < len(pairs) or (len(fields) < 2 and "text" not in fields):
        raise ConfigError(
            f"--column {' --column '.join(given)}: expected each field once, as --column source=en --column target=de, "
            "--column text=review --column label=stars, or --column text=body alone"
        )
    return {field: name for field, _, name in pairs}


def _say_plain_tables(config: RunConfig) -> None:
    """Say which column of a table was taken, and what looks like data and is read as prose."""
    from windtunnel.text.corpora.mixes import corpora_in

    if config.task.kind == "language" and not config.text.columns and config.text.unit == "auto":
        for corpus in corpora_in(config.corpus):
            _say_plain_table(corpus)


def _say_plain_table(corpus: str) -> None:
    from windtunnel.text.corpora import CORPORA, open_corpus
    from windtunnel.text.corpora.tables import KINDS

    path, looks_like_data = Path(corpus), corpus.removesuffix(".gz").endswith((*KINDS, ".json"))
    if corpus in CORPORA or (path.is_file() and not looks_like_data):
        return
    read = open_corpus(corpus)
    if read.description.startswith("a table of"):
        warn(f"{corpus} is read as {read.description}, a document a row")
    elif path.is_file():
        cure = (
            "write one object a line, as .jsonl" if ".json" in path.suffixes else "say which column: --column text=NAME"
        )
        warn(
            f"{corpus} is read as running text; to read its rows as documents, "
            f"{cure}; to read two of its columns as pairs: --column source=NAME --column target=NAME"
        )


def load_model(name: str, change: str | None = None) -> TrainedModel:
    """The model of a run, with the change that it was begun with; what was found wrong on the way to it is said."""
    from windtunnel.runs.seeds import find_run
    from windtunnel.training.run import load

    trained = load(find_run(name), change)
    for warning in trained.warnings:
        warn(warning)
    return trained


def write_text(path: Path, text: str) -> None:
    """Write where the user said: into a file whole or not at all, into a pipe or a device directly."""
    from windtunnel import files
    from windtunnel.training.disk import saving

    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # a link stays, and what it leads to is replaced
        # /dev/stdout leads to whatever the shell has opened, perhaps a file that holds more than this.
        opened = path.is_symlink() and path.absolute().parts[1] in ("dev", "proc")
        if opened or (target.exists() and not target.is_file()):
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            files.write_text(target, text)
    console().print(f"written: {path}", soft_wrap=True)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure where the user said."""
    from windtunnel.report.figures import save_figure
    from windtunnel.training.disk import saving

    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    console().print(f"written: {path}", soft_wrap=True)


@contextmanager
def asked_to_stop(
    err: PlainConsole, until_exit: bool = False, what: str = "the step ends and the state is saved"
) -> Iterator[list[int]]:
    """While this lasts, or until the process ends, SIGINT and SIGTERM are collected instead of ending it.

    Until it ends means that they are ignored from here on: Python puts its own handlers away before it ends.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            err.print(f"stopping: {what}")
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if until_exit else handler)


def refuse_torchrun() -> None:
    """Raises ConfigError in one of several processes that torchrun started: each would train the same."""
    if "RANK" in os.environ and (size := int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise ConfigError(f"torchrun started {size} processes; say how they share the run: --parallel ddp or fsdp")


def console(stderr: bool = True, quiet: bool = False) -> PlainConsole:
    from windtunnel.report import terminal

    return terminal.console(stderr, quiet)


def print_text(text: str, end: str = "\n") -> None:
    """Print a text of a user, a model or a corpus: as it is into a pipe or a file, `visible` on a terminal."""
    print(visible(text) if sys.stdout.isatty() else text, end=end, flush=True)


def warn(text: str) -> None:
    """Print a message on stderr."""
    print(f"windtunnel: {visible(text)}", file=sys.stderr)


def print_json(data: Any) -> None:
    """Print one JSON document, in which no character steers a terminal."""
    from windtunnel.config import plain

    ascii = not (sys.stdout.encoding or "").lower().startswith("utf")  # which could not write every character
    text = json.dumps(plain(data), indent=2, ensure_ascii=ascii, allow_nan=False, default=str)
    print(STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
