"""The report of a scaling study: its sentences, tables, page and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from windtunnel.config import plain
from windtunnel.files import write_text
from windtunnel.report.figures import save_figures
from windtunnel.report.html import inline_svg, page
from windtunnel.report.scaling_figure import scaling_figures
from windtunnel.report.table import Table, table
from windtunnel.scaling.fit import Forecast, Scaling
from windtunnel.scaling.points import write_points
from windtunnel.stats.intervals import Estimate
from windtunnel.training.disk import saving

Choices = dict[str, Estimate | None]
STYLE = """
:root { --holds: #00734f; --not: #b3470b; }
@media (prefers-color-scheme: dark) { :root { --holds: #2fc99c; --not: #f2a05a; } }
thead tr, tbody tr { border-bottom: 1px solid var(--line); }
.scroll { margin: .5rem 0 1rem; }
@media (max-width: 40rem) { td:first-child { white-space: normal; } }
figure { margin: 1rem 0; overflow-x: auto; }
figure svg { fill: var(--ink); max-width: 100%; min-width: 34rem; height: auto; }
.refused { border-left: .3rem solid var(--not); padding-left: .6rem; margin: .35rem 0; }
"""
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
FAR = 1.0
"""Decades beyond the largest budget from which on a forecast is called far."""


def count(found: Estimate | None) -> str:
    """`36.2k [34.1k, 38.5k]`, in thousands, millions (M), 1e9 (G) or 1e12 (T); - for None."""
    return "-" if found is None else f"{_count(found.estimate)} [{_count(found.low)}, {_count(found.high)}]"


def _count(x: float) -> str:
    for size, unit in UNITS:
        if x >= 0.9995 * size:
            return f"{_three(x / size)}{unit}"
    return f"{x:.3g}"


def _three(x: float) -> str:
    """Three digits, and no exponent below a million: 36.2, 1,230."""
    return f"{x:,.{max(0, 2 - int(math.log10(max(x, 1))))}f}" if x < 1e6 else f"{x:.3g}"


def _plain(found: Estimate | None, digits: int = 3) -> str:
    if found is None:
        return "-"
    return f"{found.estimate:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def sentences(found: Scaling, forecasts: Sequence[Forecast]) -> list[str]:
    """What the study says, the forecasts first; the refusals are apart."""
    said = [_forecast_sentence(found, f) for f in forecasts]
    return [*said, *([found.disagreement] if found.disagreement else []), *found.notes]


def _forecast_sentence(found: Scaling, f: Forecast) -> str:
    far = ", within the budgets"
    if (away := max(f.decades, f.below)) > 0:
        far = f", {away:.1f} decades " + ("beyond the largest budget" if f.decades > 0 else "below the smallest budget")
    if f.parameters is None or f.tokens is None:
        return f"At {f.compute:.3g} FLOPs{far}, no size is forecast: its line was refused."
    loss = f" and a loss of {_plain(f.loss)}" if f.loss else ""
    trust = "; that is far, and the band holds only if the law does" if away > FAR else ""
    return (
        f"At {f.compute:.3g} FLOPs{far}, the best model has {count(f.parameters)} parameters, "
        f"{count(f.tokens)} tokens{loss}{trust}."
    )


def scaling_tables(found: Scaling, forecasts: Sequence[Forecast], choices: Choices) -> list[Table]:
    """The lowest point of each budget, the forecasts, the laws, and what the counting changes."""
    tables = [_parabolas(found), _laws(found)]
    if forecasts:
        tables.append(_forecasts(forecasts))
    if len(choices) > 1:
        rows = [(name, _plain(exponent)) for name, exponent in choices.items()]
        tables.append(table("What the counting changes", ("counted", "exponent of N*"), rows))
    return [t for t in tables if t.rows]


def _parabolas(found: Scaling) -> Table:
    rows = [
        (f"{p.budget:.3g}", str(p.runs), count(p.parameters), count(p.tokens), _plain(p.loss)) for p in found.parabolas
    ]
    return table("The lowest point of each budget, 95 %", ("FLOPs", "runs", "best N", "D there", "loss there"), rows)


def _laws(found: Scaling) -> Table:
    rows: list[tuple[str, str]] = []
    if found.parameters and found.tokens:
        rows += [
            ("N*(C), exponent", _plain(found.parameters.exponent)),
            ("D*(C), exponent", _plain(found.tokens.exponent)),
        ]
    if found.envelope:
        rows += [("L*(C) = E + K / C^g, g", _plain(found.envelope.exponent)), ("its E", _plain(found.envelope.floor))]
    if found.law:
        law = found.law
        rows += [
            ("E + A / N^a + B / D^b, a", _plain(law.a)), ("its b", _plain(law.b)), ("its E", _plain(law.floor)),
            ("its exponent of N*, b / (a + b)", _plain(law.exponent)), ("its residual of ln L", f"{law.residual:.4f}"),
        ]  # fmt: skip
    return table("The laws, 95 %", ("law", "value"), rows)


def _forecasts(forecasts: Iterable[Forecast]) -> Table:
    rows = []
    for f in forecasts:
        rows.append((f"{f.compute:.3g}", "parabolas", count(f.parameters), count(f.tokens), _plain(f.loss)))
        if f.law_parameters:
            law = (count(f.law_parameters), count(f.law_tokens), _plain(f.law_loss))
            rows.append((f"{f.compute:.3g}", "law", *law))
    return table("Forecasts, 95 %", ("C, FLOPs", "by", "N*", "D*", "L*"), rows)


def scaling_data(found: Scaling, forecasts: Sequence[Forecast], choices: Choices) -> dict[str, Any]:
    """Plain data for JSON."""
    return {**found.to_dict(), "forecasts": plain(list(forecasts)), "exponents_by_choice": plain(choices)}


def save_scaling(
    found: Scaling,
    forecasts: Sequence[Forecast],
    choices: Choices,
    folder: Path,
    title: str,
    said: Sequence[str] = (),
    tables: Sequence[Table] = (),
) -> tuple[Path, ...]:
    """Write the figures as .png and .svg, points.csv, scaling.json and report.html into a folder.

    Args:
        said, tables: of the study that trained the points, for the page.

    Raises:
        SaveError: when the disk refuses.
    """
    files, drawings = save_figures(scaling_figures(found, [f.compute for f in forecasts]), folder)
    data, points, report = folder / "scaling.json", folder / "points.csv", folder / "report.html"
    content = scaling_data(found, forecasts, choices)
    refused = "".join(f'<p class="refused">{escape(r.what)}: {escape(r.why)}</p>' for r in found.refusals)
    body = f"""\
<h1>{escape(title)}</h1>
<p class="quiet">{len(found.points)} runs at {len(found.points.budgets)} budgets; intervals are 95 %.</p>
{"".join(f"<p>{escape(line)}</p>" for line in [*sentences(found, forecasts), *said])}
{f"<h2>Refused</h2>{refused}" if refused else ""}
{"".join(f"<figure>{inline_svg(name, svg)}</figure>" for name, svg in drawings.items())}
{"".join(f"<h2>{escape(t.title)}</h2>{t.html()}" for t in [*scaling_tables(found, forecasts, choices), *tables])}"""
    with saving(folder):
        write_text(data, json.dumps(content, indent=2, ensure_ascii=False))
        write_points(found.points, points)
        write_text(report, page(f"{title}: scaling", body, content, style=STYLE))
    return (*files, points, data, report)
