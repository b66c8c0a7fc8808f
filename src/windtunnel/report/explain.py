"""Explanations as parts, tables with sentences around them: the same parts go to the terminal and to a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from windtunnel.inspect.explain_attention import Head
from windtunnel.inspect.explain_embedding import Lookup
from windtunnel.inspect.explain_head import Matrix
from windtunnel.inspect.explain_loss import LossExplained
from windtunnel.inspect.explain_operations import show
from windtunnel.inspect.explain_parameters import Parameters
from windtunnel.inspect.explain_products import Product
from windtunnel.inspect.explain_replay import Replay
from windtunnel.inspect.explain_shapes import ShapeStep
from windtunnel.report.html import page, scrolling_table
from windtunnel.report.tables import clip
from windtunnel.report.terminal import as_text
from windtunnel.stats.digits import number as shown

MOST_COLUMNS = 8
"""Columns of a lookup that are shown."""


class Limits(NamedTuple):
    """How much of a matrix is shown: tokens down and across, and columns of a width."""

    down: int
    across: int
    width: int


TERMINAL, PAGE = Limits(12, 8, MOST_COLUMNS), Limits(48, 48, 10)


@dataclass(frozen=True)
class Part:
    """A heading, a table, and sentences below it; `shares` are the cells' shades from 0 to 1, row by row."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    says: tuple[str, ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()
    marked: tuple[int, int] | None = None
    """Row and column, the label's not counted, of the entry that is substituted."""


def shape_parts(steps: Sequence[ShapeStep], product: Product | None = None) -> list[Part]:
    """A chain's shapes; of a product, what was solved first."""
    parts = []
    if product is not None and product.solved:
        rows = tuple((f"tensor {s.tensor}, dimension {s.dimension}", str(s.size), s.reason) for s in product.solved)
        parts.append(Part("Solved", ("?", "size", "because"), rows))
    copies = [""] + ["view" if step.is_view else "new" for step in steps[1:]]
    rows4 = tuple((s.operation, show(s.shape), copy, s.says) for s, copy in zip(steps, copies, strict=True))
    says = () if product is not None else ("A view shares the memory of the tensor before it; nothing is copied.",)
    return [*parts, Part(f"Result {show(steps[-1].shape)}", ("step", "shape", "memory", "what happens"), rows4, says)]


def parameter_parts(found: Parameters) -> list[Part]:
    """The terms with their sum, then the hyper-parameters."""
    rows = [(t.name, t.formula, t.substituted, f"{t.n_parameters:,}") for t in found.terms]
    total = ("total", f"torch counts {found.n_counted:,}", "", f"{found.n_parameters:,}")
    return [
        Part(f"Learned: the parameters of {found.model}", ("where", "formula", "with numbers", "parameters"),
             (*rows, total), found.notes),
        Part("Chosen: the hyper-parameters", says=found.hyper),
    ]  # fmt: skip


def embedding_parts(found: Lookup) -> list[Part]:
    """The rows that were looked up."""
    width = min(MOST_COLUMNS, len(found.rows[0]))
    columns = ("id", *(str(i) for i in range(width)))
    rows = tuple((str(id), *map(shown, row[:width])) for id, row in zip(found.ids, found.rows, strict=True))
    n_rows, n_columns = found.table
    says = (
        f"{len(found.ids)} ids, each replaced by its row of {n_columns} numbers: shape {show(found.shape)}"
        + (f"; {width} columns are shown" if width < n_columns else ""),
        f"the table {n_rows} x {n_columns} = {found.n_parameters:,} numbers is learned; "
        f"here it is N(0, 1), seed {found.seed}",
        f"one-hot ids times the table give the same, largest difference {found.one_hot_difference:.0e}",
        f"any other id than 0 to {n_rows - 1} is an IndexError; -1 does not mean the last row",
    )
    return [Part(f"Embedding {n_rows}x{n_columns}", columns, rows[:1000], says)]


def loss_parts(found: LossExplained) -> list[Part]:
    """Every row of logits with its steps, then the mean and what a second softmax does."""
    parts = []
    for number, row in enumerate(found.rows, start=1):
        columns = ("", *(str(i) + (" target" if i == row.target else "") for i in range(len(row.logits))))
        rows = (
            ("logit", *map(shown, row.logits)),
            ("exp", *map(shown, row.exponentials)),
            ("softmax", *map(shown, row.probabilities)),
        )
        parts.append(Part(f"Row {number}", columns, rows, row.steps))
    losses = " + ".join(shown(row.loss, 5) for row in found.rows[:8]) + (" + …" if len(found.rows) > 8 else "")
    n_classes, mean, twice = len(found.rows[0].logits), shown(found.mean, 5), shown(found.second_softmax, 5)
    says = (
        f"mean of the rows = ({losses}) / {len(found.rows)} = {mean} nats; torch: {shown(found.torch_mean, 5)}",
        *(() if found.printed is None else (f"a script in float32 prints {found.printed!r}",)),
        f"a blind guess among {n_classes} costs ln {n_classes} = {math.log(n_classes):.5f}",
        f"cross_entropy takes logits; given probabilities it takes the softmax again: {twice} instead of {mean}, "
        f"and however right the model is never below ln(1 + {n_classes - 1}/e) = {shown(found.floor, 5)}",
    )
    return [*parts, Part(f"Loss {mean} ({found.source})", says=says)]


def replay_parts(found: Replay) -> list[Part]:
    """The numbers of the models since the seed, and what the match means."""
    rows = tuple(
        (str(i), repr(x), "<- printed" if i == found.found else "") for i, x in enumerate(found.values, start=1)
    )
    return [Part(f"Models built after seed {found.seed}", ("model", "value", ""), rows, tuple(_replayed(found)))]


def _replayed(found: Replay) -> Iterable[str]:
    first = found.values[0]
    if found.found is None:
        n = len(found.values)
        yield f"none of {n} models built after seed {found.seed} gives {found.printed}; a clean run gives {first!r}"
        return
    if found.found == 1:
        yield f"{found.printed} is the first model after the seed: a clean run gives it"
        return
    draws = "" if found.draws is None else f", {found.draws:,} random draws"
    yield f"{found.printed} is model {found.found} since the seed: {found.found - 1} others{draws} lie before it"
    yield f"a clean run gives {first!r}; who runs the notebook from top to bottom cannot see the printed number"
    yield "a cell that builds a model was run again without the cell that seeds: seed in the cell that builds"
    if found.expected_by_chance is not None:
        yield f"models expected to show these digits by accident: {found.expected_by_chance:.1g}"


def attention_parts(found: Head, limits: Limits = TERMINAL) -> list[Part]:
    """Who looks at whom, one entry with its numbers, then every matrix."""
    query, key = found.tokens[found.query], found.tokens[found.key]
    return [
        Part(f"{found.title}: who looks at whom", *_who(found), says=tuple(attention_sentences(found))),
        Part(f"The weight of {clip(query)} on {clip(key)}, with its numbers", says=found.steps),
        *(_matrix_part(found, matrix, limits) for matrix in found.matrices),
    ]


def attention_sentences(found: Head) -> Iterable[str]:
    """What the weights say in words, the check of the variance, and the check against the model."""
    weights, tokens, q, k = found.matrix("weights"), found.tokens, found.query, found.key
    by, at = found.looked_at_by[k], found.looks_at[q]
    yield f"row of {tokens[q]} {q + 1}: it looks most at {tokens[at]} {at + 1} ({shown(float(weights[q, at]))})"
    yield f"column of {tokens[k]} {k + 1}: {tokens[by]} {by + 1} looks at it most ({shown(float(weights[by, k]))})"
    if found.variances is not None and found.variance_ratio is not None:
        before, after = found.variances
        yield (
            f"variance of the scores {shown(before)}, after the scaling {shown(after)}: ratio "
            f"{found.variance_ratio:.9g}, which is d_k exactly and for any numbers, since Var(s / √d) = Var(s) / d"
        )
    if found.max_difference is not None:
        yield f"largest difference to the model's own attention weights: {found.max_difference:.1e}"
    yield from found.notes


def _who(found: Head) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    weights, rows = found.matrix("weights"), []
    for i, token in enumerate(found.tokens):
        at, by = found.looks_at[i], found.looked_at_by[i]
        there, back = f"{clip(found.tokens[at])} {at + 1}", f"{clip(found.tokens[by])} {by + 1}"
        rows.append((f"{clip(token)} {i + 1}", there, shown(float(weights[i, at])), back, shown(float(weights[by, i]))))
    return ("token", "looks most at", "weight", "is looked at most by", "weight"), tuple(rows)


def _matrix_part(found: Head, matrix: Matrix, limits: Limits) -> Part:
    """A matrix, cut where it is large, with the row and column of the entry that is substituted."""
    n_rows, n_columns = matrix.values.shape
    of_tokens = [kind == "token" for kind in (matrix.rows, matrix.columns)]
    down = _kept(n_rows, limits.down, found.query) if of_tokens[0] else _kept(n_rows, limits.width)
    across = _kept(n_columns, limits.across, found.key) if of_tokens[1] else _kept(n_columns, limits.width)
    labels = [f"{clip(token)} {place}" for place, token in enumerate(found.tokens, start=1)]
    cells = [[float(matrix.values[i, j]) for j in across] for i in down]
    left_out = [(n_rows - len(down), "rows"), (n_columns - len(across), "columns")]
    more = ", ".join(f"{n} more {what}" for n, what in left_out if n)
    return Part(
        title=f"{matrix.name} {show(matrix.values.shape)}: {matrix.formula}",
        columns=("", *(labels[j] if of_tokens[1] else str(j + 1) for j in across)),
        rows=tuple(
            (labels[i] if of_tokens[0] else str(i + 1), *(_number(x) for x in row))
            for i, row in zip(down, cells, strict=True)
        ),
        says=(more,) if more else (),
        shares=tuple(tuple(row) for row in cells) if matrix.name == "weights" else (),
        marked=(down.index(found.query), across.index(found.key)) if all(of_tokens) else None,
    )


def _kept(n: int, most: int, chosen: int = 0) -> list[int]:
    """The first places of n, and the chosen one instead of the last of them when it lies beyond."""
    return list(range(n)) if n <= most else [*range(most - 1), max(most - 1, chosen)]


def _number(x: float) -> str:
    return shown(x) if math.isfinite(x) else "-∞"


def terminal(parts: Iterable[Part]) -> RenderableType:
    """The parts for rich, one below the other."""
    shown: list[RenderableType] = []
    for part in parts:
        shown += [Text(), as_text(part.title, "bold")]
        if part.rows:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for index, column in enumerate(part.columns):
                table.add_column(
                    as_text(column), justify="right" if _is_numeric(part, index) else "left", overflow="fold"
                )
            for r, row in enumerate(part.rows):
                table.add_row(*(as_text(x, "reverse" if part.marked == (r, c - 1) else "") for c, x in enumerate(row)))
            shown.append(table)
        shown += [as_text(sentence) for sentence in part.says]
    return Group(*shown)


def explain_page(title: str, parts: Iterable[Part], data: Any) -> str:
    """The parts as a self-contained page; the data goes with it as JSON."""
    body = f"<h1>{escape(title)}</h1>\n" + "\n".join(_html(part) for part in parts)
    return page(title, body, data, style=STYLE)


STYLE = """
th, td { border-bottom: 1px solid var(--line); }
td.words { text-align: left; white-space: normal; min-width: 12rem; }
td[style] { background: color-mix(in oklab, var(--calm), var(--surprise) calc(var(--s) * 100%)); }
td.marked { outline: 3px solid var(--focus); outline-offset: -3px; font-weight: 700; }
"""


def _html(part: Part) -> str:
    says = "".join(f"<p>{escape(sentence)}</p>" for sentence in part.says)
    heading = f"<h2>{escape(part.title)}</h2>"
    if not part.rows:
        return heading + says
    numeric = [_is_numeric(part, column) for column in range(len(part.columns))]
    names = zip(part.columns, numeric, strict=True)
    head = "".join(f'<th scope="col"{"" if right else _LEFT}>{escape(name)}</th>' for name, right in names)
    rows = [[_cell(part, r, c, x, numeric[c]) for c, x in enumerate(row)] for r, row in enumerate(part.rows)]
    body = (f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"{heading}{scrolling_table(head, body)}{says}"


_LEFT = ' style="text-align:left"'


def _cell(part: Part, row: int, column: int, text: str, is_numeric: bool) -> str:
    kinds = ["words"] if column and not is_numeric else []
    kinds += ["marked"] if part.marked == (row, column - 1) else []
    shade = f' style="--s:{part.shares[row][column - 1]:.3f}"' if part.shares and column else ""
    return f'<td class="{" ".join(kinds)}"{shade}>{escape(text)}</td>'


def _is_numeric(part: Part, column: int) -> bool:
    """Whether a column holds numbers, which stand at the right."""
    return column > 0 and all(_reads_as_number(row[column]) for row in part.rows if column < len(row))


def _reads_as_number(text: str) -> bool:
    return text == "-∞" or re.fullmatch(r"-?[\d,]+(\.\d*)?(e[+-]\d+)?", text) is not None
