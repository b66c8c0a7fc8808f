"""translate: the target of a source, by a run that was trained on pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.terminal import Json, RunName, load_model, print_json


def translate(
    run: RunName,
    text: Annotated[str, typer.Argument(help="What to translate: words, or lines.")] = "",
    file: Annotated[Path | None, typer.Option(help="Translate the lines of this file.")] = None,
    as_json: Json = False,
) -> None:
    """Translate a text with a run that was trained on pairs (`train pig-latin --recipe translate`).

    Greedy: the most probable token at each step. Where the run's tokenizer knows no space, word by word.
    """
    from dataclasses import asdict

    from windtunnel.errors import ConfigError
    from windtunnel.files import read_given
    from windtunnel.generation.translate import translate as translated

    if bool(text) == (file is not None):
        raise ConfigError("expected a text or --file PATH, one of the two")
    if file is not None:
        try:
            text = read_given(file, 1 << 24)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; convert it: iconv -t UTF-8") from None
    loaded = load_model(run)
    lines = [translated(loaded, line) for line in text.splitlines() if line.strip()] or [translated(loaded, text)]
    if as_json:
        print_json([asdict(one) for line in lines for one in line])
        return
    for line in lines:
        print(" ".join(one.target for one in line))
