"""experiment: the built-in experiments, run and judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.terminal import Json, console, print_json


def experiment(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A name or a row; without one, the list.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller run, with rougher numbers.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Where its random numbers start.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and report; else one below ./runs.")] = None,
    corpus: Annotated[str | None, typer.Option(help="A name or path, for an experiment on any text.")] = None,
    as_json: Json = False,
) -> None:
    """List the built-in experiments, or run one and judge its claims."""
    from windtunnel.errors import ConfigError
    from windtunnel.experiments import EXPERIMENTS, find_experiment, listing
    from windtunnel.experiments.frame import Setting, collect
    from windtunnel.report.outcome_tables import listing_table, outcome_parts, showing

    if name is None:
        rows = listing()
        print_json(rows) if as_json else console(stderr=False).print(listing_table(rows))
        return
    chosen = find_experiment(name)
    if corpus is not None and not chosen.takes_corpus:
        able = ", ".join(one.name for one in EXPERIMENTS.values() if one.takes_corpus)
        raise ConfigError(
            f"{chosen.name} has its own data, given --corpus {corpus}; leave it out, or run one of {able}"
        )
    from windtunnel.report.outcome_page import save_outcome  # not above: it takes its time, and a list needs none

    # A quick run does not take the place of a whole one.
    folder = out or Path("runs") / "experiments" / (chosen.name + ("-quick" if quick else ""))
    with showing(console()) as show:
        outcome = collect(chosen, Setting(quick, seed, folder, corpus), show)
    files = [str(path) for path in save_outcome(outcome, folder)]
    if as_json:
        print_json({"name": chosen.name, "rows": chosen.rows, **outcome.to_dict(), "files": files})
        return
    for part in outcome_parts(outcome):
        console(stderr=False).print(part, highlight=False)
    for path in files:
        console(stderr=False).print(f"written: {path}", highlight=False, soft_wrap=True)
