"""Self-contained HTML pages: no network, no library, light and dark, usable with the keyboard alone.

Everything that comes from a corpus or a prompt goes through `html.escape`, or into a JSON block in which no `<`
is left; scripts put it on the page as text, never as HTML.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from windtunnel.config import plain
from windtunnel.report.charts import DEV, INK, QUIET, TRAIN

THEME = {INK: "ink", "#ffffff": "page", QUIET: "quiet", TRAIN: "bar", DEV: "truth"}
"""Colours of a figure that become those of the page's theme."""


def page(title: str, body: str, data: Any, scripts: Sequence[str] = (), style: str = "") -> str:
    """A whole page: the house style and `style`, the body, the data as a JSON block, scripts from the assets as one."""
    block = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    code = f'<script type="module">\n{"".join(map(_inlined, scripts))}</script>' if scripts else ""
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title>
<style>
{_asset("style.css")}{style}
</style>
</head>
<body>
{body}
<script type="application/json" id="data">{block}</script>
{code}
</body>
</html>
"""


def _asset(name: str) -> str:
    return (files("windtunnel.report") / "assets" / name).read_text(encoding="utf-8")


def _inlined(name: str) -> str:
    """A script as a part of one that has those which it imports before it."""
    return "".join(line for line in _asset(name).splitlines(keepends=True) if not line.startswith("import "))


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts that scrolls sideways when it must."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return scrolling_table(head, (f"<tr>{cells(row)}</tr>" for row in rows))


def scrolling_table(head: str, rows: Iterable[str], kind: str = "") -> str:
    """A table of cells and rows that are HTML already."""
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="{f"scroll {kind}".strip()}">{inner}</div>'


def texts_table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose last column holds texts to read, whole and as they are; in a narrow window each stands below."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return scrolling_table(head, (f"<tr>{cells(about)}<td>{escape(text)}</td></tr>" for *about, text in rows), "texts")


def cells(row: Iterable[str]) -> str:
    """The cells of a row; a number and its per cent sign stay on one line, and so do the ends of an interval."""
    return "".join(f"<td>{_together(escape(cell))}</td>" for cell in row)


def _together(cell: str) -> str:
    return re.sub(r"\[([^][,]+), ([^][,]+)\]", r"[\1,&nbsp;\2]", cell).replace(" %", "&nbsp;%")


def packed(shares: npt.NDArray[np.floating[Any]]) -> str:
    """Numbers from 0 to 1 as 16-bit fractions of 65535 (steps of 1.5e-5), base64; `unpack` of heat.js reads them."""
    return base64.b64encode(np.rint(shares.clip(0, 1) * 65535).astype("<u2").tobytes()).decode()


def inline_svg(name: str, svg: str, colours: Mapping[str, str] = THEME) -> str:
    """The drawing alone, its ids made its own, in the page's colours.

    Without comments, in which matplotlib repeats the texts.
    """
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in colours.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}: the numbers are in the tables below"', 1)
