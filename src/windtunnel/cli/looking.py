"""generate, look, cost: what is inside a model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import (
    RECIPES,
    ChangeOption,
    Json,
    RunName,
    Set,
    console,
    load_model,
    print_json,
    print_text,
    warn,
    write_text,
)

if TYPE_CHECKING:
    from windtunnel.generation.compiled import Steps
    from windtunnel.generation.write import Written


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
    stop: Annotated[list[str], typer.Option(help="End before this text; may be given several times.")] = [],  # noqa: B006
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a message: put it into the model's own chat template.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Several texts at once, of this seed and those after it.")] = 1,
    weights: Annotated[
        str, typer.Option(help="fp32; or bf16 or int8, which round the weights and read less memory.")
    ] = "fp32",
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--eager", help="Compile now (half a minute, once a shape); by default when that saves time."
        ),
    ] = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt, every token with its probability.

    Past the model's context the window slides: each token is predicted from the last context_length ones.
    """
    from windtunnel.config import parse
    from windtunnel.generation.compiled import Steps, prepare_process
    from windtunnel.generation.request import Request
    from windtunnel.generation.sampling import SamplingConfig
    from windtunnel.generation.trace import as_trace, corpus_truth
    from windtunnel.generation.trace import generate as stream
    from windtunnel.generation.weights import read_as
    from windtunnel.generation.write import write_samples

    sampling = parse(SamplingConfig, {"temperature": temperature, "top_k": top_k, "top_p": top_p})
    request = Request(prompt, tokens, sampling, seed, alternatives, tuple(stop), chat)
    loaded = load_model(run, change)
    prepare_process(loaded.model, samples)  # before read_as, which leaves hardly a parameter to count
    trained = read_as(loaded, weights)
    steps = Steps(trained.model, "auto" if compile is None else compile)
    if samples > 1:
        _print_samples(write_samples(trained, request, samples, steps), seed, as_json)
        _say_eager(compile, steps)
        return
    made = []
    for token in stream(trained, request, corpus_truth(trained), steps):
        made.append(token)
        if not as_json:
            print_text(token.piece, end="")
    from windtunnel.report.page import trace_page
    from windtunnel.report.tables import steps_table, totals_line, trace_table

    record = as_trace(trained, request, made)
    if html is not None:
        write_text(html, trace_page(record))
    _say_eager(compile, steps)
    if as_json:
        print_json(record.to_dict())
        return
    print()
    out = console(stderr=False)
    if alternatives:
        out.print(steps_table(record, out.width) if columns else trace_table(record, out.width))
        out.print(totals_line(record))


def _print_samples(samples: list[Written], seed: int, as_json: bool) -> None:
    if as_json:
        print_json([{"seed": seed + row, **sample._asdict()} for row, sample in enumerate(samples)])
        return
    texts = [sample.text for sample in samples]
    print_text(("\n\n" if any("\n" in text for text in texts) else "\n").join(texts))


def _say_eager(compile: bool | None, steps: Steps) -> None:
    if compile and steps.eager_because:
        warn(f"decoded without a compiled step: {steps.eager_because}")


def look(
    run: RunName,
    text: Annotated[str, typer.Argument(help="The text to look at.")] = "",
    layer: Annotated[int | None, typer.Option(min=1, help="One layer's heads only, from 1.")] = None,
    head: Annotated[int | None, typer.Option(min=1, help="One head only, from 1.")] = None,
    alternatives: Annotated[int, typer.Option(min=0, help="Most probable tokens shown at each position.")] = 6,
    ablate: Annotated[
        list[str],
        typer.Option(metavar="LAYER.HEAD|SITE", help="Set this head (LAYER.HEAD, from 1) or site to zero."),
    ] = [],  # noqa: B006
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge each --ablate by the dev loss of all seeds, in place of a text.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for picture and pages; by default one in `look`, beside the run."),
    ] = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Show a text's surprise in a model, and its attention.

    Of a recurrent network it shows how far each state reaches.
    """
    from windtunnel.inspect.sites import ablated
    from windtunnel.report.look import Look, look_at, look_folder
    from windtunnel.report.tables import surprise_legend, surprise_text, totals_line, trace_table

    sites = {name: _site(name) for name in ablate}
    if judge:
        _judge_ablations(run, text, sites, as_json)
        return
    trained = load_model(run, change)
    settings = {"layer": layer, "head": head, "alternatives": alternatives, "ablate": ablate, "change": change}
    folder = out or look_folder(trained, text, settings)
    with ablated(trained.model, list(sites.values())) if sites else nullcontext():
        seen = look_at(trained, text, folder, alternatives, layer, head)
    if as_json:
        print_json(seen.to_dict())
        return
    shown = console(stderr=False)
    shown.print(surprise_text(seen.trace), soft_wrap=True)
    shown.print(surprise_legend(seen.trace.vocab_size))
    shown.print(trace_table(seen.trace, shown.width))
    shown.print(totals_line(seen.trace))
    if isinstance(seen, Look):
        shown.print(f"attention: largest difference of the logits to the fast path {seen.max_difference:.1e}")
    else:
        shown.print(seen.sentence)
    for path in seen.files:
        shown.print(f"written: {path}", soft_wrap=True)


def _site(name: str) -> str:
    """The site of LAYER.HEAD, counted from 1 as --layer and --head are; any other name is one."""
    from windtunnel.errors import ConfigError
    from windtunnel.inspect.sites import head_site

    layer, _, head = name.partition(".")
    if not (layer.isdecimal() and head.isdecimal()):
        return name
    if int(layer) < 1 or int(head) < 1:
        raise ConfigError(f"--ablate {name}: layers and heads are counted from 1")
    return head_site(int(layer) - 1, int(head) - 1)


def _judge_ablations(run: str, text: str, sites: dict[str, str], as_json: bool) -> None:
    from windtunnel.comparison.ablation import judge_ablations
    from windtunnel.errors import ConfigError
    from windtunnel.runs.seeds import find_seeds

    if text or not sites:
        raise ConfigError("--judge takes --ablate LAYER.HEAD, once or more, and no text: it reads the whole dev split")
    with console().status("evaluating with and without"):
        found = judge_ablations(find_seeds(run), {f"without {name}": [site] for name, site in sites.items()})
    if as_json:
        print_json(found)
        return
    for judgement in found:
        print_text(judgement.sentence)
        if judgement.over_documents is not None:
            print_text(f"  over the documents of the dev split, for these models: {judgement.over_documents}")


def cost(
    recipe: Annotated[str, typer.Argument(help=f"{RECIPES}; or a run.", autocompletion=completing.recipes_and_runs)],
    corpus: Annotated[str | None, typer.Option(help="Take the vocabulary of this corpus; else GPT-2's 50,257.")] = None,
    set: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Count parameters, shapes, FLOPs and memory."""
    from windtunnel.inspect.cost import cost as count
    from windtunnel.report.cost_tables import cost_tables
    from windtunnel.runs.seeds import planned

    found = count(planned(recipe, corpus, set))
    if as_json:
        print_json(found.to_dict())
    else:
        out = console(stderr=False)
        for table in cost_tables(found):
            out.print(table)
