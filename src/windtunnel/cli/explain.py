"""explain: shapes, parameters, lookups, losses, attention and augmentation, step by step with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.terminal import (
    FigurePath,
    Json,
    SeedNumber,
    Set,
    console,
    load_model,
    print_json,
    write_figure,
    write_text,
)

if TYPE_CHECKING:
    from windtunnel.report.explain import Part

explain_app = typer.Typer(no_args_is_help=True, help="Explain shapes, parameters, losses and attention in numbers.")
NEGATIVE = {"ignore_unknown_options": True}  # so that -1 is a value
Html = Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Also write a self-contained page.")]
Seed = Annotated[int, typer.Option(help="What torch.manual_seed is given.")]


@explain_app.command()
def shapes(
    text: Annotated[
        str,
        typer.Argument(metavar="SHAPES", help='"(3,1,4) -> squeeze(1) -> @ (4,5)", or "bmm (2,3,4) (2,?,5)".'),
    ],
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Follow a shape through operations, or solve a product."""
    from windtunnel.inspect.explain_products import explain_product
    from windtunnel.inspect.explain_shapes import explain_chain
    from windtunnel.report.explain import shape_parts

    product = None if text.lstrip().startswith("(") else explain_product(text)
    steps = product.steps if product else explain_chain(text)
    data = {"solved": product.solved if product else (), "steps": steps, "result": steps[-1].shape}
    _show(f"Shapes: {text}", shape_parts(steps, product), data, html, as_json)


@explain_app.command()
def parameters(
    what: Annotated[str, typer.Argument(metavar="WIDTHS|RECIPE|RUN", help="E.g. 236-472-472-10, tiny, last.")],
    bias: Annotated[
        bool, typer.Option("--bias/--no-bias", help="Whether a network given by its widths has biases.")
    ] = True,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Count parameters term by term, and list what is chosen."""
    from windtunnel.errors import ConfigError
    from windtunnel.inspect.explain_parameters import network_parameters, parse_widths, run_parameters
    from windtunnel.report.explain import parameter_parts
    from windtunnel.runs.seeds import planned

    widths = parse_widths(what)
    if widths is None and not bias:
        raise ConfigError(f"--no-bias is for widths such as 236-472-10; {what} says itself whether it has biases")
    found = run_parameters(what, planned(what, None, [])) if widths is None else network_parameters(widths, bias)
    _show(f"Parameters of {what}", parameter_parts(found), found, html, as_json)


@explain_app.command(context_settings=NEGATIVE)
def embedding(
    table: Annotated[str, typer.Argument(metavar="ROWSxWIDTH", help="The table, e.g. 10x5.")],
    ids: Annotated[str, typer.Argument(metavar="IDS", help="What to look up, e.g. 1,3,5.")],
    seed: Seed = 42,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Look ids up in an embedding table."""
    from windtunnel.inspect.explain_embedding import explain_embedding
    from windtunnel.report.explain import embedding_parts

    found = explain_embedding(table, ids, seed)
    _show(f"Embedding {table}", embedding_parts(found), found, html, as_json)


@explain_app.command()
def loss(
    logits: Annotated[str, typer.Option(help="Rows of logits, e.g. '2,0,-1; 0,1,3'.")] = "2,0,-1",
    targets: Annotated[str, typer.Option(help="The right column of each row, from 0, e.g. 0,2.")] = "0",
    network: Annotated[str | None, typer.Option(help="Logits of this network instead: 002-3.")] = None,
    seed: Seed = 42,
    model: Annotated[int, typer.Option(help="Which model built after the seed; 1 is a clean run.")] = 1,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Softmax and cross-entropy, row by row.

    What a second softmax does to them is shown, too.
    """
    from windtunnel.inspect.explain_loss import explain_loss, explain_row_network, parse_logits, parse_targets
    from windtunnel.report.explain import loss_parts

    if network is None:
        found = explain_loss(parse_logits(logits), parse_targets(targets))
    else:
        _known_network(network)
        found = explain_row_network(seed, model)
    _show("Cross-entropy", loss_parts(found), found, html, as_json)


@explain_app.command()
def attention(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run; without one, row 002-4 by hand.")] = None,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The text to look at.")] = None,
    layer: Annotated[int, typer.Option(help="Which layer, from 1.")] = 1,
    head: Annotated[int, typer.Option(help="Which head, from 1.")] = 1,
    query: Annotated[int | None, typer.Option(help="The token that looks, from 1; else the last.")] = None,
    key: Annotated[int | None, typer.Option(help="The token looked at, from 1; else the one it looks at most.")] = None,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Every matrix of an attention head, and one weight in full."""
    from windtunnel.errors import ConfigError
    from windtunnel.generation.opening import opening
    from windtunnel.generation.prompt import token_text
    from windtunnel.generation.request import Request
    from windtunnel.inspect.explain_attention import explain_head, explain_row
    from windtunnel.report.explain import PAGE, attention_parts

    if run is None:
        if (layer, head) != (1, 1):
            raise ConfigError("--layer and --head choose a head of a run; give a run and a text")
        found = explain_row(query, key)
    elif text is None:
        raise ConfigError(f"a text is missing: windtunnel explain attention {run} TEXT")
    else:
        trained = load_model(run)
        ids = opening(trained, Request(text, 0)).ids
        tokens = [token_text(trained.tokenizer, id) for id in ids]
        title = f"{trained.run.folder.name}, step {trained.step}, "
        found = explain_head(trained.model, ids, tokens, layer, head, query, key, title)
    data = found.to_dict()
    wide = attention_parts(found, PAGE) if html else []
    _show(f"Attention: {found.title}", attention_parts(found), data, html, as_json, wide)


@explain_app.command(context_settings=NEGATIVE)
def replay(
    value: Annotated[str, typer.Argument(help="The printed number; the default is the one of row 002-3.1.")] = (
        "1.3744735717773438"
    ),
    network: Annotated[str, typer.Option(help="Which network printed it: 002-3.")] = "002-3",
    seed: Seed = 42,
    most: Annotated[int, typer.Option(help="The most models to build.")] = 50,
    html: Html = None,
    as_json: Json = False,
) -> None:
    """Find how many models were built before a number was printed."""
    from windtunnel.inspect.explain_replay import row_replay
    from windtunnel.report.explain import replay_parts

    _known_network(network)
    found = row_replay(value, seed, most)
    _show(f"Replay of {found.printed}", replay_parts(found), found, html, as_json)


@explain_app.command()
def augmentation(
    what: Annotated[str, typer.Argument(metavar="RUN|CORPUS", help="A run on pictures, or pictures: emoji, photos.")],
    pictures: Annotated[int, typer.Option(min=1, max=100, help="How many pictures.")] = 6,
    draws: Annotated[int, typer.Option(min=1, max=100, help="As how many epochs draw each.")] = 6,
    step: Annotated[int, typer.Option(min=1, help="The pictures that the batch of this step begins with.")] = 1,
    seed: SeedNumber = None,
    changes: Set = [],  # noqa: B006
    html: Html = None,
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """See how training changes pictures, epoch by epoch of a seed."""
    from windtunnel.inspect.explain_augmentation import explain_augmentation
    from windtunnel.library.settings import run_or_corpus
    from windtunnel.report.augmentation import (
        augmentation_dict,
        augmentation_figure,
        augmentation_page,
        augmentation_parts,
    )
    from windtunnel.report.explain import terminal
    from windtunnel.report.figures import check_ending

    if figure:
        check_ending(figure)
    found = explain_augmentation(*run_or_corpus(what, changes), pictures, draws, step, seed)
    if html:
        write_text(html, augmentation_page(found))
    if figure:
        write_figure(augmentation_figure(found), figure)
    if as_json:
        print_json(augmentation_dict(found))
    else:
        console(stderr=False).print(terminal(augmentation_parts(found)))


def _known_network(name: str) -> None:
    from windtunnel.errors import ConfigError

    if name != "002-3":
        raise ConfigError(f"there is no network {name!r}; known is 002-3")


def _show(
    title: str, parts: Sequence[Part], data: Any, html: Path | None, as_json: bool, on_page: Sequence[Part] = ()
) -> None:
    """Print the parts or the data, and write the page when it is asked for."""
    from windtunnel.report.explain import explain_page, terminal

    if html is not None:
        write_text(html, explain_page(title, on_page or parts, data))
    if as_json:
        print_json(data)
    else:
        console(stderr=False).print(terminal(parts))
