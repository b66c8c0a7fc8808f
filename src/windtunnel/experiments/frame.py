"""What an experiment is: a generator that yields its progress and returns an `Outcome` with judged claims.

A verdict is never written down, it is computed: by `exactly` from a condition that needs no chance, or by
`within` from an interval. A new experiment is one function in one file and one line in `experiments/__init__.py`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import windtunnel
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Setting:
    """How to run: smaller if quick, from which seed, and the folder that figures, page and any runs go to."""

    quick: bool
    seed: int
    out: Path


@dataclass(frozen=True)
class Progress:
    """`done` of `total` pieces of what is being done now."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Claim:
    """A statement of a source, the number it printed (if any), what was measured, and the verdict on the statement.

    values: the measured numbers behind `measured`, for programs.
    """

    id: str
    statement: str
    published: str
    measured: str
    verdict: Verdict
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Outcome:
    """All that an experiment found, with the line that makes it repeatable."""

    title: str
    what: str
    settings: Mapping[str, Any]
    tables: tuple[Table, ...]
    figures: Mapping[str, Figure]
    claims: tuple[Claim, ...]
    quick: bool
    signature: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a figure is named, not drawn."""
        plain = {name: getattr(self, name) for name in ("title", "what", "quick", "signature")}
        claims, tables = [asdict(claim) for claim in self.claims], [asdict(table) for table in self.tables]
        return {
            **plain,
            "settings": dict(self.settings),
            "claims": claims,
            "tables": tables,
            "figures": [*self.figures],
        }


Run = Callable[[Setting], Generator[Progress, None, Outcome]]


@dataclass(frozen=True)
class Experiment:
    """An entry of the registry; rows are the ids of rows and claims that it answers to beside its name."""

    name: str
    rows: tuple[str, ...]
    run: Run

    @property
    def question(self) -> str:
        """What it answers, in one line: the docstring of its function."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def exactly(condition: bool) -> Verdict:
    """The verdict where chance plays no part."""
    return "holds" if condition else "does not hold"


def within(estimate: Estimate, low: float, high: float) -> Verdict:
    """Holds if the whole interval lies in [low, high], does not if none of it does, else (NaN too) undecided."""
    if low <= estimate.low and estimate.high <= high:
        return "holds"
    return "does not hold" if estimate.high < low or estimate.low > high else "undecided"


def equal(
    id: str, statement: str, published: str, gaps: Sequence[float], tolerance: float = 1e-6, shown: str = ""
) -> Claim:
    """The claim that two numbers are the same up to rounding, given how far apart they came out each time.

    Args:
        shown: the numbers themselves, to stand before that.
    """
    if not all(map(math.isfinite, gaps)):
        return Claim(id, statement, published, "some are not finite", "undecided", {"gaps": [str(gap) for gap in gaps]})
    far, near = max(gaps), min(gaps)
    holds = far <= tolerance
    span = " to ".join(dict.fromkeys((f"{near:.4g}", f"{far:.4g}")))
    apart = "exact" if far == 0 else f"apart by at most {far:.1e}" if holds else f"apart by {span}"
    measured = f"{shown}; {apart}" if shown else apart
    return Claim(id, statement, published, measured, exactly(holds), {"least_apart": near, "most_apart": far})


def signature(setting: Setting, packages: Sequence[str]) -> str:
    """Versions and seed: with these the same numbers come out again."""
    found = ", ".join(f"{name} {version(name)}" for name in packages)
    size = ", quick" if setting.quick else ""
    return (
        f"windtunnel {windtunnel.__version__}, python {platform.python_version()}, {found}, seed {setting.seed}{size}"
    )


def finish(run: Generator[Progress, None, Outcome], show: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """Run an experiment to its end, showing its progress."""
    while True:
        try:
            show(next(run))
        except StopIteration as end:
            return end.value
