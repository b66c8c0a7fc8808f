"""scale: the best size, tokens and loss for a budget, from anybody's points or from a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from windtunnel.cli.terminal import Json, console, print_json

POINTS = "points.csv"


def scale(
    what: Annotated[
        str, typer.Argument(metavar="fit|FOLDER", help="`fit` and a file of points, or the folder of a study.")
    ],
    points: Annotated[
        Path | None, typer.Argument(metavar="[POINTS]", help="After `fit`: a CSV with N, D or C, loss and seed.")
    ] = None,
    predict: Annotated[
        list[float], typer.Option(metavar="FLOPS", help="Forecast at this budget; else at ten times the largest.")
    ] = [],  # noqa: B006
    samples: Annotated[int, typer.Option(min=100, help="Draws that the intervals are made of.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Where the draws start.")] = 0,
    size: Annotated[str, typer.Option(help="parameters (without embeddings) or all_parameters.")] = "parameters",
    compute: Annotated[str, typer.Option(help="flops (as counted) or 6nd.")] = "flops",
    repeat_data: Annotated[
        bool, typer.Option("--repeat-data", help="Fit runs that saw their text more than four times, too.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for figures, page, JSON and CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Fit scaling laws with intervals, and forecast the best model for a budget; refuse what the points do not show."""
    from windtunnel.errors import ConfigError

    for name, given, known in (
        ("size", size, ("parameters", "all_parameters")),
        ("compute", compute, ("flops", "6nd")),
    ):
        if given not in known:
            raise ConfigError(f"--{name} {given}: expected {' or '.join(known)}")
    fit_and_show(_points_of(what, points), predict, samples, seed, size, compute, repeat_data, out, as_json)


def _points_of(what: str, points: Path | None) -> Path:
    """The file of points that the arguments name."""
    from windtunnel.errors import ConfigError

    if what == "fit":
        if points is None:
            raise ConfigError("scale fit: name a file of points, as in `windtunnel scale fit points.csv`")
        return points
    if points is not None:
        raise ConfigError(f"scale {what} {points}: a file of points comes after `fit`: windtunnel scale fit {points}")
    if (Path(what) / POINTS).is_file():
        return Path(what) / POINTS
    raise ConfigError(f"{what} is no folder of a study, which has {POINTS}; for points of your own: scale fit FILE")


def fit_and_show(
    path: Path, predict: list[float], samples: int, seed: int, size: str, compute: str, repeat_data: bool,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fit a file of points, print what is found, and write the report where it is asked for."""
    from windtunnel.report.scaling import save_scaling, scaling_data, scaling_tables, sentences
    from windtunnel.scaling.choices import exponents_by_choice
    from windtunnel.scaling.fit import fit_scaling
    from windtunnel.scaling.points import read_points

    points = read_points(path)
    counted: dict[str, Any] = {"size": size, "compute": compute}
    found = fit_scaling(points, samples=samples, seed=seed, repeat_data=repeat_data, **counted)
    forecasts = [found.at(budget) for budget in predict or [10 * found.largest_budget]]
    choices = exponents_by_choice(points, samples, repeat_data)
    files = save_scaling(found, forecasts, choices, out, path.parent.name or path.stem) if out else ()
    if as_json:
        print_json({**scaling_data(found, forecasts, choices), "files": [str(file) for file in files]})
        return
    shown = console(stderr=False)
    for part in scaling_tables(found, forecasts, choices):
        shown.print(part.terminal(), highlight=False)
        shown.print()
    for line in [*(f"Refused: {r.what}. {r.why}" for r in found.refusals), *sentences(found, forecasts)]:
        shown.print(line, highlight=False, soft_wrap=True, markup=False)
    for file in files:
        shown.print(f"written: {file}", highlight=False, soft_wrap=True)
