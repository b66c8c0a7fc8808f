"""What an experiment found: claims with verdicts, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from windtunnel.report import html
from windtunnel.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Progress:
    """`done` of `total` pieces of what is being done now; what comes next ends it."""

    what: str
    done: int = 0
    total: int = 1


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

    def __repr__(self) -> str:
        verdicts = [claim.verdict for claim in self.claims]
        counts = (f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
        return f"Outcome({self.title}: {', '.join(counts) or 'no claims'})"

    def _repr_html_(self) -> str:
        """In a notebook: the claims with their verdicts."""
        rows = [(claim.id, claim.statement, claim.published, claim.measured, claim.verdict) for claim in self.claims]
        claims = html.table(("row", "claim", "source", "measured", "verdict"), rows)
        return f"<b>{escape(self.title)}</b><p>{escape(self.what)}</p>{claims}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a figure is named, not drawn."""
        plain = {name: getattr(self, name) for name in ("title", "what", "quick", "signature")}
        claims, tables = [asdict(claim) for claim in self.claims], [asdict(table) for table in self.tables]
        lists = {"claims": claims, "tables": tables, "figures": [*self.figures]}
        return {**plain, "settings": dict(self.settings), **lists}
