"""scale: the best size, tokens and loss for a budget, from a study of a corpus or from anybody's points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli import completing
from windtunnel.cli.terminal import RECIPES, Columns, ExecutorName, Json, Set, console, given_options, print_json

if TYPE_CHECKING:
    from windtunnel.report.table import Table
    from windtunnel.scaling.points import Points

POINTS = "points.csv"


@dataclass(frozen=True)
class Fits:
    """What the options say about fits."""

    predict: list[float]
    samples: int
    seed: int
    size: str
    compute: str
    repeat_data: bool


@dataclass(frozen=True)
class Told:
    """What a study says of its runs: tables, sentences, and plain data."""

    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)


TRAINING = (
    "minutes", "recipe", "seeds", "budgets", "set", "column", "hold_out", "hold_out_seeds", "dry_run", "jobs",
    "executor",
)  # fmt: skip
"""The options of runs: where points are there and are fitted, they would do nothing."""


def scale(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS|FOLDER|fit",
            help="A corpus, the folder of a study, or `fit` and points.",
            autocompletion=completing.corpora,
        ),
    ],
    points: Annotated[
        Path | None,
        typer.Argument(metavar="[POINTS]", help="After `fit`: a CSV with N, D or C, loss and seed."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Minutes that all runs of a study may take; they decide its budgets.")
    ] = 30,
    recipe: Annotated[
        str,
        typer.Option(help=f"The recipe whose sizes a study changes: {RECIPES}.", autocompletion=completing.recipes),
    ] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds at the two lowest budgets; the others have one.")] = 3,
    budgets: Annotated[int, typer.Option(min=3, help="How many budgets, a factor of sqrt(10) apart.")] = 4,
    set: Set = [],  # noqa: B006
    column: Columns = [],  # noqa: B006
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Test the forecast at 4 times the largest budget.")
    ] = False,
    hold_out_seeds: Annotated[
        int, typer.Option(min=1, help="Seeds of the hold-out; it takes 4 to call a size the best.")
    ] = 1,
    repeat_data: Annotated[
        bool, typer.Option("--repeat-data", help="Accept runs that see their text more than four times.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Time a few steps, print the plan, and stop.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs side by side; by default one a core.")] = None,
    executor: ExecutorName = "local",
    predict: Annotated[
        list[float], typer.Option(metavar="FLOPS", help="Forecast at this budget; by default ten times the largest.")
    ] = [],  # noqa: B006
    samples: Annotated[int, typer.Option(min=100, help="How many draws the intervals are computed from.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Where the draws start.")] = 0,
    size: Annotated[
        str, typer.Option(help="The size to fit: parameters (without embeddings) or all_parameters.")
    ] = "parameters",
    compute: Annotated[str, typer.Option(help="The compute to fit: flops (as counted) or 6nd.")] = "flops",
    out: Annotated[
        Path | None,
        typer.Option(help="Of a study the folder of its runs, by default ./runs; of a fit that of its report."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the best model for a budget of FLOPs, with its band.

    Given a CORPUS it plans runs for the minutes, trains what is missing and fits. Given a FOLDER, or `fit POINTS`, it
    fits what is there. It refuses to say what the runs do not show.
    """
    from windtunnel.errors import ConfigError

    for name, given, known in (
        ("size", size, ("parameters", "all_parameters")),
        ("compute", compute, ("flops", "6nd")),
    ):
        if given not in known:
            raise ConfigError(f"--{name} {given}: expected {' or '.join(known)}")
    fits = Fits(predict, samples, seed, size, compute, repeat_data)
    if (file := _points_of(what, points)) is not None:
        _refuse_training_options(context, file)
        fit_and_show(file, fits, out, as_json)
        return
    from windtunnel.cli.scaling_study import scale_corpus
    from windtunnel.cli.terminal import settings
    from windtunnel.runs.seeds import RUNS
    from windtunnel.scaling.study import Asked

    if given_options(context, ("hold_out_seeds",)) and not hold_out:
        raise ConfigError("--hold-out-seeds: of a hold-out, and none is asked for; add --hold-out, or leave it out")
    asked = Asked(minutes, seeds, budgets, hold_out_seeds if hold_out else 0, repeat_data)
    config = settings(what, recipe, None, set, column, None)
    scale_corpus(config, asked, fits, executor, jobs, out or RUNS, dry_run, as_json)


def _refuse_training_options(context: typer.Context, file: Path) -> None:
    from windtunnel.errors import ConfigError

    if options := [f"--{name.replace('_', '-')}" for name in given_options(context, TRAINING)]:
        raise ConfigError(
            f"{', '.join(options)}: of runs that are trained, and {file} holds points, which are fitted as they are; "
            "leave that out, or name the corpus of a study"
        )


def _points_of(what: str, points: Path | None) -> Path | None:
    """The file of points that the arguments name; None where they name a corpus."""
    from windtunnel.errors import ConfigError

    if what == "fit":
        if points is None:
            raise ConfigError("scale fit: name a file of points, as in `windtunnel scale fit points.csv`")
        return points / POINTS if (points / POINTS).is_file() else points
    if points is not None:
        raise ConfigError(f"scale {what} {points}: a file of points comes after `fit`: windtunnel scale fit {points}")
    if (Path(what) / POINTS).is_file():
        return Path(what) / POINTS
    if _are_points(Path(what)):
        raise ConfigError(f"{what} holds points and no text: to fit them, windtunnel scale fit {what}")
    if (Path(what) / "study.json").is_file():
        raise ConfigError(f"the study {what} has no {POINTS} yet: no budget is finished; its command goes on with it")
    return None


def _are_points(path: Path) -> bool:
    """Whether a table is one of points: as a text of a corpus it would be trained on, for all of the minutes."""
    from windtunnel.errors import DataError
    from windtunnel.scaling.points import read_points

    try:
        return path.suffix in (".csv", ".tsv") and path.is_file() and len(read_points(path)) > 0
    except DataError:
        return False


def fit_and_show(path: Path, fits: Fits, out: Path | None, as_json: bool) -> None:
    """Fit a file of points, print what is found, and write the report where it is asked for."""
    from windtunnel.scaling.points import read_points

    show_fits(read_points(path), fits, out, path.parent.name if path.name == POINTS else path.stem, as_json)


def show_fits(
    points: Points, fits: Fits, out: Path | None, title: str, as_json: bool, study: Told | None = None
) -> None:
    """Fit points, print what is found, and write the report where it is asked for.

    Args:
        study: what the study that trained the points says beside the fits.
    """
    from windtunnel.report.scaling import save_scaling, scaling_data, scaling_tables, sentences
    from windtunnel.scaling.choices import exponents_by_choice
    from windtunnel.scaling.fit import fit_scaling

    study = study or Told()
    counted: dict[str, Any] = {"size": fits.size, "compute": fits.compute}
    found = fit_scaling(points, samples=fits.samples, seed=fits.seed, repeat_data=fits.repeat_data, **counted)
    forecasts = [found.at(budget) for budget in fits.predict or [10 * found.largest_budget]]
    choices = exponents_by_choice(points, fits.samples, fits.repeat_data)
    files = save_scaling(found, forecasts, choices, out, title, study.lines, study.tables) if out else ()
    if as_json:
        data = {**scaling_data(found, forecasts, choices), "files": [str(file) for file in files]}
        print_json(data | ({"study": study.data} if study.data else {}))
        return
    shown = console(stderr=False)
    for part in [*study.tables, *scaling_tables(found, forecasts, choices)]:
        shown.print(part.terminal())
        shown.print()
    refused = [f"Refused: {r.what}. {r.why}" for r in found.refusals]
    for line in [*study.lines, *refused, *sentences(found, forecasts)]:
        shown.print(line, soft_wrap=True)
    for file in files:
        shown.print(f"written: {file}", soft_wrap=True)
