"""search: the pictures that a few words fit best."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.terminal import ChangeOption, Json, RunName, console, load_model, print_json, write_text
from windtunnel.errors import ConfigError


def search(
    run: RunName,
    text: Annotated[str, typer.Argument(help="What the picture shows, in a few words.")],
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Search the pictures of this folder, not those of the run's own corpus."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the run's own corpus; by default test, or dev where there is no test.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many pictures to show.")] = 8,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PATH", help="Also write a page that shows the pictures.")
    ] = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Find pictures by words, with a run on pictures and captions.

    The pictures with their scores, and which words mattered. What the model makes of a folder's pictures is kept in
    the cache, so that only new ones are read again.
    """
    from windtunnel.inspect.search import open_gallery
    from windtunnel.inspect.search import search as find
    from windtunnel.report.search import (
        WORDS,
        about_lines,
        first_line,
        hits_table,
        search_dict,
        search_page,
        words_table,
    )

    if pictures is not None and split is not None:
        raise ConfigError("--split is of the run's own pictures, and --pictures are others; leave one of them out")
    trained = load_model(run, change)
    with console().status("reading the pictures") as status:

        def progress(done: int, n: int) -> None:
            status.update(f"indexing new pictures: {done:,} of {n:,}")

        found = find(trained, text, open_gallery(trained, pictures, split, progress), top)
    if html is not None:
        write_text(html, search_page(found))
    if as_json:
        print_json(search_dict(found))
        return
    out = console(stderr=False)
    out.print(first_line(found), soft_wrap=True)
    out.print(hits_table(found).terminal())
    if found.words:
        out.print(WORDS, soft_wrap=True)
        out.print(words_table(found).terminal())
    for line in about_lines(found):
        out.print(line, soft_wrap=True)
