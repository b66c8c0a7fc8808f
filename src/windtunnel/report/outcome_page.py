"""The files of an outcome: its figures, its data, and a self-contained page in light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from windtunnel.files import write_text
from windtunnel.report.figures import save_figures
from windtunnel.report.html import cells, inline_svg, page, scrolling_table, table
from windtunnel.report.outcome import Claim, Outcome
from windtunnel.training.disk import saving

STYLE = """
:root { --holds: #00734f; --not: #b3470b; }
@media (prefers-color-scheme: dark) { :root { --holds: #2fc99c; --not: #f2a05a; } }
th, td { vertical-align: top; }
thead tr, tbody tr { border-bottom: 1px solid var(--line); }
.claims td, .claims th, .settings td, .settings th { text-align: left; white-space: normal; }
.claims td:not(:first-child, :last-child) { overflow-wrap: anywhere; min-width: 8.5rem; }
.claims td:last-child { white-space: nowrap; font-weight: 700; }
.claims td:first-child { white-space: nowrap; }
.holds td:last-child { color: var(--holds); } .not td:last-child { color: var(--not); }
@media (max-width: 48rem) { /* a claim is a block: its row and verdict, then the rest, each on lines of its own */
  .claims thead { display: none; }
  .claims table, .claims tbody { display: block; }
  .claims tr { display: flex; flex-wrap: wrap; justify-content: space-between; padding: .3rem 0; }
  .claims td { padding: 0; min-width: 0; }
  .claims td:last-child { order: -1; }
  .claims td:first-child { order: -2; }
  .claims td:not(:first-child, :last-child) { flex: 0 0 100%; }
  .claims td:nth-child(3):empty { display: none; }
  .claims td:nth-child(3)::before { content: "source: "; color: var(--quiet); }
  .claims td:nth-child(4)::before { content: "measured: "; color: var(--quiet); }
  td:first-child { white-space: normal; min-width: 8rem; }
}
.scroll { margin: .5rem 0 1rem; }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { fill: var(--ink); max-width: 100%; min-width: 34rem; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.warning { border-left: .3rem solid var(--not); padding-left: .6rem; }
"""


def save_outcome(outcome: Outcome, folder: Path) -> tuple[Path, ...]:
    """Write every figure as .png and .svg, outcome.json and report.html into a folder.

    Raises:
        SaveError: when the disk refuses.
    """
    files, drawings = save_figures(outcome.figures, folder)
    data, report = folder / "outcome.json", folder / "report.html"
    with saving(folder):
        write_text(data, json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, default=str))
        write_text(report, outcome_page(outcome, drawings))
    return (*files, data, report)


def outcome_page(outcome: Outcome, drawings: Mapping[str, str]) -> str:
    """A page that needs no other file.

    Args:
        drawings: the figures by name, as SVG.
    """
    quick = '<p class="warning">A quick run: smaller than the experiment, so its numbers are rougher.</p>'
    figures = "".join(f"<figure>{inline_svg(name, svg)}</figure>" for name, svg in drawings.items())
    tables = "".join(f"<h2>{escape(t.title)}</h2>{t.html()}" for t in outcome.tables)
    settings = [(name, str(value)) for name, value in outcome.settings.items()]
    body = f"""\
<h1>{escape(outcome.title)}</h1>
<p>{escape(outcome.what)}</p>
{quick if outcome.quick else ""}
<h2>Claims</h2>
{_claims(outcome.claims)}
{figures}
{tables}
<h2>Settings</h2>
<div class="settings">{table(("setting", "value"), settings)}</div>
<section class="panel"><pre>{escape(outcome.signature)}</pre></section>"""
    return page(f"{outcome.title}: experiment", body, outcome.to_dict(), style=STYLE)


def _claims(claims: Iterable[Claim]) -> str:
    marks = {"holds": "holds", "does not hold": "not", "undecided": "open"}
    heads = ("row", "claim", "source", "measured", "verdict")
    rows = [
        f'<tr class="{marks[c.verdict]}">{cells((c.id, c.statement, c.published, c.measured, c.verdict))}</tr>'
        for c in claims
    ]
    return scrolling_table("".join(f'<th scope="col">{name}</th>' for name in heads), rows, "claims")
