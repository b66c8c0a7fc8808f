"""label: which texts to label next, whether choosing helps, and which labels look wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.terminal import Json, console, print_json
from windtunnel.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from windtunnel.labelling.examples import Columns, Example
    from windtunnel.labelling.next import Data, Shown
    from windtunnel.report.table import Table


def label(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A .csv, .tsv or .jsonl of texts, some with labels.")],
    labels: Annotated[
        list[Path], typer.Option("--labels", metavar="FILE", help="A table of ids and labels, or a folder of them.")
    ] = [],  # noqa: B006
    budget: Annotated[
        int | None, typer.Option(min=1, help="How many to label next (50); with --simulate, in all rounds together.")
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="auto, random, entropy, margin, least-confidence, diverse or cluster-margin.")
    ] = "auto",
    simulate: Annotated[
        bool, typer.Option("--simulate", help="What each strategy would have gained on the labels that are there.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of a simulation.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of a simulation.")] = 8,
    margin: Annotated[float, typer.Option(min=1e-6, help="A difference of accuracy that does not matter.")] = 0.01,
    checks: Annotated[int, typer.Option(min=0, help="How many labels to check again at most.")] = 20,
    text: Annotated[str, typer.Option(metavar="COLUMN", help="The column of the texts.")] = "text",
    label: Annotated[str, typer.Option(metavar="COLUMN", help="The column of the labels.")] = "label",
    id: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column of the ids; by default rows are numbered.")
    ] = "id",
    annotator: Annotated[str, typer.Option(metavar="COLUMN", help="The column of who answered.")] = "annotator",
    features: Annotated[
        str, typer.Option(metavar="WHAT", help="words, characters, auto, or a model: a run, or a name as minilm-l6.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Where its random numbers start.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables, page and figure; else one below ./labels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which texts to label next, and which labels to check.

    Each comes with its reason. The command writes a table to fill in and a page to read. Give the filled-in tables
    back: --labels FOLDER.
    """
    from windtunnel.labelling.examples import Columns

    columns = Columns(text, label, id, annotator)
    with console().status("reading"):
        found = _data(_examples(data, labels, columns), features)
    folder = out or Path("labels") / Path(data).name.split(".")[0]
    if simulate:
        _simulate(found, seeds, rounds, budget, margin, seed, folder, as_json)
        return
    _next(found, columns, budget or 50, strategy, seeds, rounds, margin, checks, seed, folder, as_json)


def _examples(data: str, labels: list[Path], columns: Columns) -> tuple[Example, ...]:
    from windtunnel.labelling.examples import add_answers, corpus_examples, read_examples
    from windtunnel.labelling.table import tables_of
    from windtunnel.text.corpora import CORPORA, open_corpus

    found = corpus_examples(open_corpus(data)) if data in CORPORA else read_examples(Path(data), columns)
    for path in (path for given in labels for path in tables_of(given)):
        found = add_answers(found, path, columns)
    return found


def _data(examples: tuple[Example, ...], features: str) -> Data:
    from windtunnel.labelling.next import prepare

    if features in ("auto", "words", "characters"):
        return prepare(examples, None if features == "auto" else features)  # type: ignore[arg-type]
    from windtunnel.runs.seeds import find_start
    from windtunnel.training.run import load
    from windtunnel.training.vectors import text_vectors

    try:
        trained = load(find_start(features))
    except ArtifactError as error:
        raise ConfigError(f"--features {features}: expected auto, words, characters or a model; {error}") from None
    return prepare(examples, model=(features, lambda texts: text_vectors(trained.model, trained.tokenizer, texts)))


@contextmanager
def _progress() -> Iterator[Shown]:
    """How many curves of a simulation are done, on stderr."""
    with console().status("choosing") as status:
        yield lambda done, total: status.update(f"simulating: {done} of {total} curves")


def _simulate(
    found: Data, seeds: int, rounds: int, budget: int | None, margin: float, seed: int, folder: Path, as_json: bool
) -> None:
    from windtunnel.labelling.next import simulated
    from windtunnel.report.labelling import data_lines, save_page, simulation_dict, simulation_lines, simulation_table

    with _progress() as shown:
        simulation = simulated(found, seeds, rounds, budget, margin, seed, shown)
    said = [*simulation_lines(simulation), *data_lines(found)]
    files = save_page(folder, "What would choosing have gained?", said, simulation, name="simulation")
    if as_json:
        print_json({**simulation_dict(simulation), "files": files})
        return
    _print(simulation_table(simulation), [*said, *(f"written: {path}" for path in files)])


def _next(
    data: Data, columns: Columns, budget: int, strategy: str, seeds: int, rounds: int, margin: float, checks: int,
    seed: int, folder: Path, as_json: bool,
) -> None:  # fmt: skip
    from windtunnel.labelling.next import next_round
    from windtunnel.labelling.table import tasks, write_tasks
    from windtunnel.report.labelling import round_dict, round_lines, save_page, tasks_table

    with _progress() as shown:
        found = next_round(data, budget, strategy, seeds, rounds, margin, seed, shown)
    todo, said = tasks(found, checks), round_lines(found, data)
    table = write_tasks(todo, folder, columns)
    files = [table, *save_page(folder, "What to label next", said, found.simulation, todo, table.stem)]
    if as_json:
        print_json({**round_dict(found, todo), "files": files})
        return
    then = [f"fill in the column {columns.label!r} of {table}, then: --labels {folder}"] if todo else []
    _print(tasks_table(todo), [*said, *(f"written: {path}" for path in files), *then])


def _print(table: Table, lines: list[str]) -> None:
    out = console(stderr=False)
    out.print(table.terminal())
    for line in lines:
        out.print(line, soft_wrap=True)
