"""What an experiment is: a generator that yields what it finds, in the order in which a reader should meet it.

    def coin(at: Setting) -> Findings:
        \"""A coin.

        It was tossed by a generator.
        \"""
        n = at.size(1000, quick=10)
        yield Given({"tosses": n})
        ...
        yield ROW.within("the coin is fair", mean_interval(tosses), 0.45, 0.55)

The docstring's first line is the title, the rest says what was done. A verdict is never written down, it is computed
by a method of `Row`. A new experiment is one such function in a module of its name, and one line in
`experiments/__init__.py`.
"""

from __future__ import annotations

import inspect
import math
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import windtunnel
from windtunnel.report import charts
from windtunnel.report.outcome import Claim, Outcome, Progress, Verdict
from windtunnel.report.table import Table, interval, table, text
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from windtunnel.comparison.comparison import Judgement

__all__ = [
    "Claim", "Drawing", "Findings", "Given", "Progress", "Row", "Setting", "Steps", "Table", "draw", "interval",
    "table", "text",
]  # fmt: skip
T = TypeVar("T")
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")


@dataclass(frozen=True)
class Setting:
    """How to run: smaller if quick, from which seed, and the folder that figures, page and any runs go to.

    corpus: a corpus to take instead of the experiment's own; only where `Experiment.takes_corpus`.
    """

    quick: bool
    seed: int
    out: Path
    corpus: str | None = None

    def size(self, full: T, quick: T) -> T:
        """The size of something, which is another one in a quick run."""
        return quick if self.quick else full

    def seeds(self, full: int, quick: int = 2) -> range:
        """So many seeds from the first one on. Two decide nothing: a quick run shows that everything works."""
        return range(self.seed, self.seed + self.size(full, quick))


@dataclass(frozen=True)
class Given:
    """What the numbers that follow depend on, by name."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure and the name of its files."""

    name: str
    figure: Figure


Finding = Progress | Given | Claim | Table | Drawing
Steps = Generator[Finding, None, T]
"""A part of an experiment: `yield from` it passes on what it finds, and gives what it returns."""
Findings = Steps[None]


@dataclass(frozen=True)
class Row:
    """A row of a source, by its id. Each method is one way to reach a verdict.

    In all of them `printed` is what the source printed, `shown` what was measured, in which {} is the number judged.
    """

    id: str

    def same(self, statement: str, got: Any, printed: Any, shown: str = "{}") -> Claim:
        """What was counted is what the source printed."""
        return self.shows(statement, got == printed, shown.replace("{}", text(got)), text(printed), got=got)

    def shows(self, statement: str, condition: bool, shown: str, printed: str = "", **values: Any) -> Claim:
        """A condition in which chance plays no part; values are those it was computed from."""
        return Claim(self.id, statement, printed, shown, _exactly(condition), values)

    def equal(self, statement: str, gaps: Any, tolerance: float = 1e-6, printed: str = "", shown: str = "") -> Claim:
        """Two numbers are the same up to rounding, given how far apart they came out, once or several times.

        Args:
            shown: the numbers themselves, to stand before that.
        """
        far, near = float(np.abs(gaps).max()), float(np.abs(gaps).min())
        said, values = f"apart by at most {far:.1e}", {"least_apart": near, "most_apart": far}
        if not np.isfinite(gaps).all():
            return Claim(self.id, statement, printed, "some are not finite", "undecided", {"gaps": str(gaps)})
        if far == 0:
            said = "exact"
        elif far > tolerance:
            said = f"apart by {' to '.join(dict.fromkeys((f'{near:.4g}', f'{far:.4g}')))}"
        measured = f"{shown}; {said}" if shown else said
        return Claim(self.id, statement, printed, measured, _exactly(far <= tolerance), values)

    def within(
        self, statement: str, found: Estimate, low: float = -math.inf, high: float = math.inf, printed: str = "",
        shown: str = "{}",
    ) -> Claim:  # fmt: skip
        """A whole interval lies in [low, high]; undecided where only a part of it does, or it is NaN."""
        verdict: Verdict = "does not hold" if found.high < low or found.low > high else "undecided"
        verdict = "holds" if low <= found.low and found.high <= high else verdict
        return Claim(self.id, statement, printed, shown.replace("{}", str(found)), verdict, {"estimate": found})

    def gathers(self, statement: str, verdicts: Sequence[Verdict], printed: str = "") -> Claim:
        """Several verdicts as one: it does not hold where one of them does not, and holds where all do."""
        counts = {verdict: verdicts.count(verdict) for verdict in ("holds", "does not hold", "undecided")}
        verdict: Verdict = "does not hold" if counts["does not hold"] else "holds"
        verdict = "undecided" if counts["undecided"] and not counts["does not hold"] else verdict
        yes, no, open_ = counts.values()
        shown = f"{yes} of {len(verdicts)} hold, {no} do not, {open_} undecided"
        return Claim(self.id, statement, printed, shown, verdict, counts)

    def judged(
        self, statement: str, judgement: Judgement, words: Sequence[str], printed: str = "", named: bool = True
    ) -> Claim:
        """An arm was judged against the baseline with one of these words.

        Args:
            named: False leaves the names of the arms out of what was measured.
        """
        word, sentence = judgement.verdict.word, judgement.sentence
        verdict: Verdict = "undecided" if word == "undecided" else _exactly(word in words)
        values = {"difference": judgement.verdict.difference, "word": word}
        return Claim(self.id, statement, printed, sentence if named else sentence.partition(": ")[2], verdict, values)


@dataclass(frozen=True)
class Experiment:
    """An entry of the registry; rows are the ids of rows and claims that it answers to beside its name.

    question: what it answers, in one line.
    takes_corpus: whether a user may give it a corpus.
    fetched: corpora and models that must have been got before, by name; it says so when they are not there.
    """

    name: str
    rows: tuple[str, ...]
    question: str
    takes_corpus: bool = False
    fetched: tuple[str, ...] = ()

    @property
    def run(self) -> Callable[[Setting], Findings]:
        """The function, whose module is imported now; it and the module have the experiment's name."""
        name = self.name.replace("-", "_")
        function: Callable[[Setting], Findings] = getattr(import_module(f"windtunnel.experiments.{name}"), name)
        return function


def draw(name: str, *panels: charts.Panel, **layout: Any) -> Drawing:
    """Charts as one figure, see `charts.figure`."""
    return Drawing(name, charts.figure(*panels, **layout))


def collect(
    experiment: Experiment,
    at: Setting,
    shown: Callable[[Progress], None] = lambda _: None,
    claimed: Callable[[Claim], None] = lambda _: None,
) -> Outcome:
    """Run an experiment to its end, showing its progress and each claim as soon as it is judged."""
    found: list[Finding] = []
    for finding in experiment.run(at):
        shown(finding) if isinstance(finding, Progress) else found.append(finding)
        if isinstance(finding, Claim):
            claimed(finding)
    title, _, what = inspect.cleandoc(experiment.run.__doc__ or "").partition("\n")
    return Outcome(
        title.removesuffix("."),
        " ".join(what.split()),
        {name: value for part in found if isinstance(part, Given) for name, value in part.values.items()},
        tuple(part for part in found if isinstance(part, Table)),
        {part.name: part.figure for part in found if isinstance(part, Drawing)},
        tuple(part for part in found if isinstance(part, Claim)),
        at.quick,
        _signature(at),
    )


def _exactly(condition: bool) -> Verdict:
    return "holds" if condition else "does not hold"


def _signature(at: Setting) -> str:
    """Versions and seed: with these the same numbers come out again."""
    found = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    size = ", quick" if at.quick else ""
    return f"windtunnel {windtunnel.__version__}, python {platform.python_version()}, {found}, seed {at.seed}{size}"
