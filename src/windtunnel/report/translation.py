"""A translation seen from inside: the page and the figure of its attention, and which heads copy, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from windtunnel.generation.trace import TokenTrace
from windtunnel.inspect.translation_attention import Copying, Heads, TranslationAttention, copying
from windtunnel.report.figures import Map, maps_figure
from windtunnel.report.html import packed, page, table
from windtunnel.stats.digits import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { --surprise: var(--bar); max-width: 110rem; }
section.source { border-top: 1px solid var(--line); margin-top: 2rem; }
p { max-width: 64rem; }
h2 { overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 0; }
h4 { font-size: .9rem; font-weight: 400; color: var(--quiet); margin: .5rem 0 0; }
.row { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; }
figure { margin: 0; max-width: 100%; overflow-x: auto; }
figcaption { color: var(--quiet); font-size: .8rem; }
#readout { position: sticky; bottom: .5rem; margin-top: 1rem; }
"""


def copying_line(found: Sequence[Copying]) -> str:
    """Which head copies most, in a sentence."""
    if not found:
        return "No source has a token of its target: how far a head copies cannot be measured."
    best = max(found, key=lambda head: head.weight)
    n = best.n_tokens
    tokens = f"mean over the {n} tokens written that their" if n > 1 else "of the one token written that its"
    which = f"Of {len(found)} heads, layer {best.layer}, head {best.head} copies most" if found[1:] else "The one head"
    return (
        f"{which}: {number(best.weight)} of its weight "
        f"lies on source tokens that equal the token being written, where a head that looks at everything alike has "
        f"{number(best.chance)} ({tokens} source has, too)."
    )


def translation_page(seen: Sequence[TranslationAttention], run: str, step: int) -> str:
    """A section for each source: its target token by token with alternatives, then every layer and head."""
    found = copying(seen)
    rows = [(str(c.layer), str(c.head), number(c.weight), number(c.chance), str(c.n_tokens)) for c in found]
    columns = ("layer", "head", "weight on an equal source token", "looking at everything alike", "tokens")
    body = f"""\
<h1>{escape(run)}, step {step}: translations and their attention</h1>
<p class="quiet">Weights of the model that was trained; its logits in this pass differ from those of the fast path
by at most {max(one.max_difference for one in seen):.1e}. Each row of a map sums to 1.
Hover over a map, or move in it with the arrow keys, to read its weights.</p>
<h2>Copying</h2><p>{escape(copying_line(found))}</p>{table(columns, rows) if rows else ""}
<div class="legend quiet"><span>weight: 0</span><span class="scale"></span><span>1</span>
<span>grey: what a token may not look at</span><span>framed: a source token that equals the token written</span></div>
{"".join(_section(one, place) for place, one in enumerate(seen))}
<p id="readout" class="panel" aria-live="polite">No weight is chosen.</p>"""
    data = [[heads_data(heads) for heads in one.kinds] for one in seen]
    return page(f"{run}: translations", body, data, ["heat.js", "translation.js"], STYLE)


def translation_figure(seen: Sequence[TranslationAttention]) -> Figure:
    """Every layer and head of each translation's attention.

    Raises:
        ConfigError: when that is too much for one figure.
    """
    return maps_figure([_map(one, heads) for one in seen for heads in one.kinds])


def _map(one: TranslationAttention, heads: Heads) -> Map:
    title = f"{one.translated.source} → {one.translated.target}: {heads.kind}, rows: {heads.row}"
    split = heads.n_source if 0 < heads.n_source < len(heads.columns) else None
    return Map(title, heads.weights, heads.rows, heads.columns, split)


def _section(one: TranslationAttention, place: int) -> str:
    made = one.translated
    head = (
        f'<section class="source"><h2>{escape(made.source)} → {escape(made.target)}</h2>'
        f'<p class="quiet">probability {number(made.probability)}{"" if made.complete else "; it does not end"}</p>'
    )
    most = max(len(token.alternatives) for token in one.tokens)
    columns = ("written", "probability", "rank", *(f"rank {n}" for n in range(1, most + 1)))
    tokens = table(columns, [_token_row(token) for token in one.tokens])
    return head + tokens + "".join(_maps(heads, place, k) for k, heads in enumerate(one.kinds)) + "</section>"


def _token_row(token: TokenTrace) -> tuple[str, ...]:
    others = (f"{other.text} {number(other.probability_1)}" for other in token.alternatives)
    return token.text, number(token.probability_1 or 0.0), str(token.rank), *others


def _maps(heads: Heads, place: int, kind: int) -> str:
    parts = [
        f"<h3>{escape(heads.kind)}</h3>"
        f'<p class="quiet">Rows: each {heads.row}, {escape(" ".join(heads.rows))}. {escape(_columns(heads))}</p>'
    ]
    n_layers, n_heads = heads.weights.shape[:2]
    for layer in range(n_layers):
        canvases = "".join(
            f'<figure><canvas tabindex="0" role="img" data-at="{place},{kind},{layer},{head}" aria-label="'
            f'{escape(heads.kind)}, layer {layer + 1}, head {head + 1}; arrow keys move"></canvas>'
            f"<figcaption>head {head + 1}</figcaption></figure>"
            for head in range(n_heads)
        )
        parts.append(f'<h4>layer {layer + 1}</h4><div class="row">{canvases}</div>')
    return "".join(parts)


def _columns(heads: Heads) -> str:
    source, target = heads.columns[: heads.n_source], heads.columns[heads.n_source :]
    said = [f"{name} {' '.join(texts)}" for name, texts in (("source", source), ("target", target)) if texts]
    return f"Columns: what it looks at, {' | '.join(said)}."


def heads_data(heads: Heads) -> dict[str, Any]:
    """A kind of attention for the script: what each row may not look at as the first and last column that it may, the
    equal tokens as row and column."""
    n_columns = heads.seen.shape[-1]
    first, last = heads.seen.argmax(-1), n_columns - 1 - heads.seen[:, :, ::-1].argmax(-1)
    return {
        "kind": heads.kind,
        "rows": heads.rows,
        "columns": heads.columns,
        "n_heads": heads.weights.shape[1],
        "split": heads.n_source,
        "first": first.tolist(),
        "last": last.tolist(),
        "equal": [] if heads.equal is None else np.argwhere(heads.equal).tolist(),
        "weights": packed(heads.weights),
    }
