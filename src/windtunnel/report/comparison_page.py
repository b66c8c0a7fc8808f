"""The page of a comparison: verdicts, picture, tables, every seed, and what is needed to cite and to repeat it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape

from windtunnel.comparison.comparison import Comparison
from windtunnel.comparison.verdict import Word
from windtunnel.report.charts import INK
from windtunnel.report.comparison_figure import COLOURS
from windtunnel.report.comparison_rows import SLICES, Rows, arm_rows, evidence_rows, slice_rows, verdict_rows
from windtunnel.report.html import inline_svg, page, scrolling_table
from windtunnel.stats.digits import number

CLASSES: dict[Word, str] = {
    "better": "better",
    "worse": "worse",
    "no difference that matters": "same",
    "undecided": "undecided",
}
THEME = {INK: "ink", "#ffffff": "page", "#b0b0b0": "quiet", **{COLOURS[word]: name for word, name in CLASSES.items()}}
WORDS = ' class="words"'
STYLE = """
:root { --better: #00734f; --worse: #b3470b; --same: #0067a3; --undecided: #5d5d58; }
@media (prefers-color-scheme: dark) {
  :root { --better: #2fc99c; --worse: #f2a05a; --same: #6bbdee; --undecided: #a5a6a2; }
}
.better, .worse, .same, .undecided { border-left: .3rem solid; padding-left: .6rem; margin: .35rem 0; }
.better { border-color: var(--better); } .worse { border-color: var(--worse); }
.same { border-color: var(--same); } .undecided { border-color: var(--undecided); }
.picture svg { fill: var(--ink); width: 100%; min-width: 56rem; height: auto; }
th, td { vertical-align: top; }
th { vertical-align: bottom; }
thead tr, tbody tr { border-bottom: 1px solid var(--line); }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: min(14rem, 40vw); max-width: 20rem; }
.words, .texts td, .texts th { text-align: left; } td.words { font-weight: 700; }
.scroll + .scroll { margin-top: 1rem; }
td small { color: var(--quiet); font-size: .85em; }
td strong { color: var(--worse); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; }
button { font: inherit; }
"""


def comparison_page(found: Comparison, drawings: Mapping[str, str]) -> str:
    """A page that needs no other file.

    Args:
        drawings: the figures as SVG by name, `comparison` and `slices`; their colours become those of the page's theme.
    """
    costs = "" if found.is_of_programs else "; x: times the baseline's cost"
    margin = f"{number(found.rule.margin)} {found.unit}".strip()
    body = f"""\
<h1>{escape(found.corpus)}: {len(found.arms)} arms, the baseline is {escape(found.baseline.name)}</h1>
{_held_out(found)}
{_verdicts(found)}
{_picture("comparison", drawings)}
<h2>Arms</h2>
<p class="quiet">±: 95 % interval of the mean over seeds{costs}</p>
{_table(arm_rows(found))}
<h2>Verdicts</h2>
<p class="quiet">The interval of a difference is at the level of its test, so that it and p say the same.
The t test asks whether there is a difference, TOST whether it is smaller than the margin,
{margin}.</p>
{_table(verdict_rows(found))}
{_table(evidence_rows(found))}
{_slices(found, drawings)}
{f"<h2>On the way</h2>{_picture('series', drawings)}" if "series" in drawings else ""}
<h2>Settings that differ</h2>
{_table(_setting_rows(found), "texts")}
<h2>What is paired</h2>
{_list(found.pairing)}
{f"<h2>Notes</h2>{_list(found.notes)}" if found.notes else ""}
<h2>Signature</h2>
<section class="panel"><button id="copy" type="button">copy</button>
<pre id="signature">{escape(found.signature)}</pre></section>
<details><summary>Every seed</summary>{_table(_seed_rows(found))}</details>"""
    return page(f"{found.corpus}: comparison", body, found.to_dict(), ["comparison.js"], STYLE)


def _held_out(found: Comparison) -> str:
    if not found.n_documents:
        return ""
    return (
        f'<p class="quiet">Judged on {found.n_documents:,} held-out documents of {found.n_tokens:,} {found.noun}s.</p>'
    )


def _verdicts(found: Comparison) -> str:
    lines = [f'<p class="{CLASSES[j.verdict.word]}">{escape(j.sentence)}</p>' for j in found.judgements]
    return "\n".join(lines) or "<p>Nothing can be judged yet: no seed of an arm can be held against the baseline's.</p>"


def _slices(found: Comparison, drawings: Mapping[str, str]) -> str:
    if not found.slices:
        return ""
    return f"""<h2>By slice</h2>
<p class="quiet">{SLICES.removeprefix("by slice: ").capitalize()}.</p>
{_picture("slices", drawings) if "slices" in drawings else ""}
{_table(slice_rows(found))}"""


def _picture(name: str, drawings: Mapping[str, str]) -> str:
    return f'<div class="picture scroll">{inline_svg(name, drawings[name], THEME)}</div>'


def _setting_rows(found: Comparison) -> Rows:
    paths = list(dict.fromkeys(path for arm in found.arms for path in arm.settings))
    return ["arm", *paths], [[arm.name, *(str(arm.settings.get(p, "-")) for p in paths)] for arm in found.arms]


def _seed_rows(found: Comparison) -> Rows:
    names = list(dict.fromkeys(name for arm in found.arms for run in arm.seeds for name in run.scores))
    rows = [
        [arm.name, str(run.seed), run.reason, *(_score(run.scores.get(name)) for name in names), run.folder]
        for arm in found.arms
        for run in arm.seeds
    ]
    return ["arm", "seed", "ended", *(found.title(name).replace(" per ", "\nper ") for name in names), "run"], rows


def _score(value: float | None) -> str:
    return "-" if value is None or math.isinf(value) else number(value, 6)


def _table(rows: Rows, kind: str = "") -> str:
    heads, body = rows
    named = [escape(head).replace("-\n", "").replace("\n", "<br>") for head in heads]
    head = "".join(f'<th scope="col"{WORDS if name == "verdict" else ""}>{name}</th>' for name in named)
    return scrolling_table(head, (f"<tr>{''.join(map(_cell, row))}</tr>" for row in body), kind)


def _cell(text: str) -> str:
    """What stands below a number is smaller; a higher cost is set off."""
    first, *below = escape(text).split("\n")
    tag = "strong" if below and below[0].endswith("x") else "small"
    kind = WORDS if first in CLASSES else ""
    return f"<td{kind}>{first}{''.join(f'<br><{tag}>{line}</{tag}>' for line in below)}</td>"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
