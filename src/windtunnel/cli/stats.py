"""stats: the statistics of this package for numbers of your own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windtunnel.cli.terminal import FigurePath, Json, console, print_json, write_figure

if TYPE_CHECKING:
    from windtunnel.report.stats_rows import Rows

stats_app = typer.Typer(no_args_is_help=True, help="Statistics of your own numbers: means, pairs, rates, power.")
NEGATIVE = {"ignore_unknown_options": True}  # so that -0.5 is a value
SMALLEST_ALPHA = 1e-12  # 1 - alpha is a confidence, and a float
Alpha = Annotated[float, typer.Option(min=0, max=1, help="The chance of a wrong finding.")]


@stats_app.command()
def proportions(
    counts: Annotated[list[str], typer.Argument(metavar="NAME=K/N ...", help="Successes of n, e.g. A=100/1000.")],
    control: Annotated[
        str | None, typer.Option(help="The arm that the others are compared with; else the first.")
    ] = None,
    alpha: Alpha = 0.05,
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """Compare proportions with a control, under every correction."""
    from windtunnel.config import plain
    from windtunnel.errors import ConfigError
    from windtunnel.report.stats_figures import variants_figure
    from windtunnel.report.stats_rows import chi_square, correction_rows, decided, difference_rows
    from windtunnel.stats.proportions import against_control

    arms: dict[str, tuple[int, int]] = {}
    for text in counts:
        name, equals, count = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"expected NAME=SUCCESSES/N, e.g. A=100/1000, given {text!r}")
        if name in arms:
            raise ConfigError(f"the arm {name} is given twice; every arm needs a name of its own")
        arms[name] = _count(count)
    if len(arms) < 2:
        raise ConfigError(f"a comparison needs at least two arms, given {len(arms)}: {', '.join(arms)}")
    if control is not None and control not in arms:
        raise ConfigError(f"the control {control!r} is not among the arms {', '.join(arms)}")
    with _user_input(alpha):
        found = against_control(arms, control or next(iter(arms)), alpha)
    if figure:
        write_figure(variants_figure(found), figure)
    if as_json:
        print_json({**plain(found), "decided": decided(found)})
        return
    _print_rows("Uncorrected", difference_rows(found))
    _print_rows(f"p under each correction ({chi_square(found)})", correction_rows(found))
    _say(decided(found))


@stats_app.command()
def coin(
    counts: Annotated[list[str], typer.Argument(metavar="K/N ...", help="Successes of n; of two, which is better.")],
    prior: Annotated[str, typer.Option(metavar="A,B", help="The Beta prior; 1,1 is flat.")] = "1,1",
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """Estimate a rate: MLE, posterior mean, MAP, with intervals."""
    from windtunnel.errors import ConfigError
    from windtunnel.report.stats_figures import posterior_figure
    from windtunnel.stats.bayes import coin as estimate
    from windtunnel.stats.bayes import probability_better
    from windtunnel.stats.digits import interval, probability

    before = _numbers([prior])
    if len(before) != 2 or len(counts) > 2:
        raise ConfigError(
            f"expected one or two counts K/N and a prior of two numbers, given {len(counts)} and {prior!r}"
        )
    with _user_input():
        coins = [estimate(*_count(text), prior=(before[0], before[1])) for text in counts]
    better = probability_better(coins[0], coins[1]) if len(coins) == 2 else None
    if figure:
        write_figure(posterior_figure(coins, (before[0], before[1])), figure)
    if as_json:
        print_json({"coins": coins, "probability_second_is_better": better})
        return
    rows = []
    for found in coins:
        mle = interval(found.mle) if found.mle else "-"
        mode = interval(found.hdi) if found.hdi else "none: the density is flat or unbounded"
        rows.append((f"{found.successes}/{found.n}", mle, interval(found.interval), mode))
    columns = ("coin", "MLE [95 % Wilson]", "posterior mean [95 % equal tails]", "MAP [95 % highest density]")
    _print_rows(
        f"Posterior Beta({coins[0].alpha:g}, {coins[0].beta:g})" if len(coins) == 1 else "", (columns, tuple(rows))
    )
    if better is not None:
        _say(f"The second rate is higher than the first with probability {probability(better)}.")


@stats_app.command(context_settings=NEGATIVE)
def mean(
    values: Annotated[list[str], typer.Argument(metavar="VALUE ...", help="Numbers, with spaces or commas between.")],
    above: Annotated[float | None, typer.Option(help="Is the true mean above this?")] = None,
    below: Annotated[float | None, typer.Option(help="Is the true mean below this?")] = None,
    equal: Annotated[float | None, typer.Option(help="Does the true mean differ from this?")] = None,
    alpha: Alpha = 0.05,
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """The mean of repeats with its interval; a t test, if asked."""
    from windtunnel.errors import ConfigError
    from windtunnel.report.stats_figures import values_figure
    from windtunnel.report.stats_rows import shown
    from windtunnel.stats.intervals import mean_interval
    from windtunnel.stats.paired import Alternative, t_test

    numbers = _numbers(values)
    asked: list[tuple[float, Alternative, str]] = []
    for number, alternative, word in (
        (above, "greater", "above"),
        (below, "less", "below"),
        (equal, "two-sided", "not"),
    ):
        if number is not None and not math.isfinite(number):
            raise ConfigError(f"expected a finite number to compare the mean with, given {number}")
        if number is not None:
            asked.append((number, alternative, word))  # type: ignore[arg-type]
    if len(asked) > 1:
        raise ConfigError("choose one of --above, --below and --equal: a test has one question")
    if asked and len(numbers) < 2:
        raise ConfigError("a test needs at least two values: one says nothing about the spread")
    with _user_input(alpha):
        found = mean_interval(numbers, 1 - alpha)
        tests = [(t_test(numbers, number, side), f"the true mean is {word} {number:g}") for number, side, word in asked]
    if figure:
        write_figure(values_figure(numbers, found, asked[0][0] if asked else None), figure)
    sentences = [shown(test, claim, alpha) for test, claim in tests]
    if as_json:
        test = tests[0][0] if tests else None
        print_json({"mean": found, "test": test, "sentence": sentences[0] if sentences else None})
        return
    _say(str(found))
    for sentence in sentences:
        _say(sentence)


@stats_app.command(context_settings=NEGATIVE)
def paired(
    samples: Annotated[
        list[str],
        typer.Argument(metavar="A,A,... B,B,... | FILE.csv", help="Two lists in the same order, or two columns."),
    ],
    margin: Annotated[float | None, typer.Option(help="Is the difference smaller than this? (TOST)")] = None,
    alpha: Alpha = 0.05,
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """The difference of two paired samples, B minus A."""
    from windtunnel.report.stats_figures import values_figure
    from windtunnel.report.stats_rows import shown
    from windtunnel.stats.bootstrap import bca_interval
    from windtunnel.stats.intervals import paired_difference
    from windtunnel.stats.paired import sign_flip_test, t_test, tost

    a, b = _pairs(samples)
    with _user_input(alpha):
        found = paired_difference(a, b, 1 - alpha)
        differences = [y - x for x, y in zip(a, b, strict=True)]
        tests = [(test(differences), "A and B differ") for test in (t_test, sign_flip_test)]
        if margin is not None:
            tests.append((tost(differences, margin), f"A and B differ by less than {margin:g}"))
        bootstrap = bca_interval(differences, confidence=1 - alpha)
    if figure:
        write_figure(values_figure(differences, found, 0.0, "B minus A"), figure)
    sentences = [shown(test, claim, alpha) for test, claim in tests]
    if as_json:
        results = [test for test, _ in tests]
        print_json({"difference": found, "bca": bootstrap, "tests": results, "sentences": sentences})
        return
    for line in (f"B minus A: {found}", f"B minus A: {bootstrap}", *sentences):
        _say(line)


@stats_app.command(context_settings=NEGATIVE)
def power(
    effect: Annotated[float, typer.Option(help="The mean difference to be found.")],
    sd: Annotated[float, typer.Option(help="The standard deviation of the paired differences.")],
    target: Annotated[float, typer.Option("--power", help="How often it should be found.")] = 0.8,
    alpha: Alpha = 0.05,
    figure: FigurePath = None,
    as_json: Json = False,
) -> None:
    """How many pairs a paired t test needs, and its power."""
    from windtunnel.errors import ConfigError
    from windtunnel.report.stats_figures import power_figure
    from windtunnel.stats.digits import probability
    from windtunnel.stats.power import power_paired, seeds_needed

    if not (math.isfinite(effect) and math.isfinite(sd)) or effect == 0 or sd <= 0:
        raise ConfigError(f"expected an effect other than 0 and a deviation above 0, given {effect:g} and {sd:g}")
    with _user_input(alpha):
        needed = seeds_needed(effect, sd, target, alpha)
        if needed is None:
            raise ConfigError(f"an effect of {effect:g} beside a deviation of {sd:g} needs more than 100,000 pairs")
        sizes = sorted({2, 3, 4, 6, 8, needed, *(max(2, round(needed * share)) for share in (0.25, 0.5, 0.75, 1.5, 2))})
        curve = {n: power_paired(effect, sd, n, alpha) for n in sizes}
    if figure:
        write_figure(power_figure(curve, needed, target), figure)
    if as_json:
        print_json({"pairs_needed": needed, "power": curve})
        return
    _print_rows("", (("pairs", "power"), tuple((str(n), probability(value)) for n, value in curve.items())))
    _say(f"{needed} pairs find an effect of {effect:g} with probability {probability(curve[needed])}.")


@contextmanager
def _user_input(alpha: float = 0.05) -> Iterator[None]:
    """What the statistics refuse is here a mistake of the user."""
    from windtunnel.errors import ConfigError

    if not SMALLEST_ALPHA <= alpha < 1:
        raise ConfigError(f"expected an alpha from {SMALLEST_ALPHA:g} to below 1, e.g. 0.05, given {alpha:g}")
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _count(text: str) -> tuple[int, int]:
    """Successes and n of K/N."""
    from windtunnel.errors import ConfigError

    successes, _, n = text.partition("/")
    try:
        found = int(successes), int(n)
    except ValueError:
        raise ConfigError(f"expected SUCCESSES/N in whole numbers, e.g. 7/10, given {text!r}") from None
    if not (0 <= found[0] <= found[1] and found[1] > 0):
        raise ConfigError(f"expected at least one trial and from 0 to all of them successes, given {text}")
    return found


def _numbers(texts: list[str]) -> list[float]:
    """Finite numbers, with spaces or commas between."""
    from windtunnel.errors import ConfigError

    found = []
    for text in " ".join(texts).replace(",", " ").split():
        try:
            number = float(text)
        except ValueError:
            raise ConfigError(f"expected a number, given {text!r}") from None
        if not math.isfinite(number):
            raise ConfigError(f"expected finite numbers, given {text}: leave diverged runs out and say so")
        found.append(number)
    if not found:
        raise ConfigError("expected numbers with spaces or commas between, given none")
    return found


def _pairs(samples: list[str]) -> tuple[list[float], list[float]]:
    """Two lists, from two comma lists or from the two columns of a CSV file with or without names above them."""
    import csv

    from windtunnel.errors import ConfigError, DataError

    if len(samples) == 2:
        a, b = _numbers([samples[0]]), _numbers([samples[1]])
    elif len(samples) == 1:
        try:
            rows = [row for row in csv.reader(Path(samples[0]).read_text(encoding="utf-8").splitlines()) if row]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{samples[0]} cannot be read as a CSV file: {error}") from error
        if any(len(row) != 2 for row in rows):
            raise DataError(
                f"{samples[0]}: expected two columns in every row, given {sorted({len(row) for row in rows})}"
            )
        named = bool(rows) and not any(_is_number(cell) for cell in rows[0])
        a, b = ([_numbers([row[i]])[0] for row in rows[named:]] for i in (0, 1))
    else:
        raise ConfigError(f"expected two lists with commas, or one CSV file, given {len(samples)} arguments")
    if len(a) != len(b) or len(a) < 2:
        raise ConfigError(f"expected at least two pairs, as many values in A as in B, given {len(a)} and {len(b)}")
    return a, b


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _print_rows(title: str, rows: Rows) -> None:
    from windtunnel.report.table import table

    console(stderr=False).print(table(title, *rows).terminal())


def _say(text: str) -> None:
    console(stderr=False).print(text, soft_wrap=True)
