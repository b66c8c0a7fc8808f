"""translate: the target of a source, by a run that was trained on pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.terminal import (
    ChangeOption,
    Json,
    RunName,
    console,
    load_model,
    print_json,
    print_text,
    warn,
    write_figure,
    write_text,
)
from windtunnel.text.visible import one_line

if TYPE_CHECKING:
    from windtunnel.generation.translate import Translated
    from windtunnel.training.run import TrainedModel

TOKENS_SHOWN = 6
"""Alternatives at every token of a target in the JSON and on the page, as many as `generate` shows."""


def translate(
    run: RunName,
    text: Annotated[str, typer.Argument(help="What to translate: words, or lines.")] = "",
    file: Annotated[Path | None, typer.Option(help="Translate the lines of this file.")] = None,
    beam: Annotated[int, typer.Option(help="How many hypotheses to follow; 1 is greedy.")] = 1,
    alternatives: Annotated[
        int | None, typer.Option(help="How many targets to show of each source, the best first; at most the beam.")
    ] = None,
    length_penalty: Annotated[
        float, typer.Option(help="Exponent of Wu et al. 2016; the higher, the longer the targets.")
    ] = 0.6,
    attention: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write what each head looked at: a page (.html) or a .png, .svg or .pdf."),
    ] = None,
    change: ChangeOption = None,
    as_json: Json = False,
) -> None:
    """Translate a text with a run that was trained on pairs.

    `windtunnel train pig-latin` trains one. Each line is translated by itself, and a blank line stays blank; where
    the run's tokenizer knows no space, word by word. The most probable token is taken at each step; with --beam the
    best of several targets. --attention shows from inside how the best target of each source was written.
    """
    from windtunnel.errors import ConfigError
    from windtunnel.generation.translate import translate_lines

    if bool(text) == (file is not None):
        raise ConfigError("expected a text or --file PATH, one of the two")
    given = text if file is None else read_lines(file)
    if attention is not None:
        from windtunnel.report.figures import ENDINGS, check_ending

        check_ending(attention, "attention", (".html", *ENDINGS))
    loaded = load_model(run, change)
    lines = translate_lines(loaded, given, beam, 1 if alternatives is None else alternatives, length_penalty)
    if attention is not None:
        _write_attention(loaded, [one for line in lines for one in line], attention)
    if as_json:
        print_json(_as_json(loaded, lines))
        return
    for cut in (one for line in lines for one in line if not one.complete):
        warn(f"the target of {cut.source[:60]!r} does not end: the context is full")
    for line in lines:
        if alternatives is None:
            print_text(" ".join(one_line(one.target) for one in line))
        else:
            for one in line:
                _show(one)


def read_lines(file: Path) -> str:
    """What a file that the user names holds. Raises ConfigError when it cannot be read as UTF-8."""
    from windtunnel.errors import ConfigError
    from windtunnel.files import read_given

    try:
        return read_given(file, 1 << 24)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; convert it: iconv -t UTF-8") from None


def _show(one: Translated) -> None:
    from windtunnel.report.table import table

    columns = ("rank", "target", "probability", "score", "complete")
    rows = [
        (str(rank), one_line(each.target), each.probability, each.score, "yes" if each.complete else "no")
        for rank, each in enumerate(one.alternatives, start=1)
    ]
    console(stderr=False).print(table(one.source, columns, rows).terminal())


def _write_attention(trained: TrainedModel, translations: Sequence[Translated], path: Path) -> None:
    from windtunnel.inspect.translation_attention import copying, translation_attention
    from windtunnel.report.translation import copying_line, translation_figure, translation_page

    seen = translation_attention(trained, translations, TOKENS_SHOWN)
    if path.suffix == ".html":
        write_text(path, translation_page(seen, trained.run.name, trained.step))
    else:
        write_figure(translation_figure(seen), path)
    console().print(copying_line(copying(seen)))


def _as_json(trained: TrainedModel, lines: Sequence[Sequence[Translated]]) -> list[dict[str, Any]]:
    """Each source with its line (from 1), its targets, and at every token of the best the tokens it could have been."""
    from dataclasses import asdict

    different = {one.source: one for line in lines for one in line}
    tokens = {source: _tokens(trained, one) for source, one in different.items()}
    return [
        {"line": n, **asdict(one), "tokens": tokens[one.source]}
        for n, line in enumerate(lines, start=1)
        for one in line
    ]


def _tokens(trained: TrainedModel, one: Translated) -> list[dict[str, Any]]:
    from windtunnel.generation.translate import target_tokens

    return [
        {
            "piece": token.piece,
            "text": token.text,
            "probability": token.probability_1,
            "alternatives": [{"text": other.text, "probability": other.probability_1} for other in token.alternatives],
        }
        for token in target_tokens(trained, one, TOKENS_SHOWN)
    ]
