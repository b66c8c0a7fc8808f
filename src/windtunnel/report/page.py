"""The pages of a trace and of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from windtunnel.generation.trace import TokenTrace, Trace
from windtunnel.inspect.attention import AttentionMap
from windtunnel.report.html import packed, page
from windtunnel.report.tables import sampling_line, surprise_share, totals_line
from windtunnel.stats.digits import number


def trace_page(trace: Trace) -> str:
    """The text with each token on the colour of its surprise; hover or focus one to see its alternatives."""
    top = math.log2(max(2, trace.vocab_size))
    body = f"""\
<h1>{escape(trace.run)}, step {trace.step}: every token's probability</h1>
<p class="quiet">{escape(_how(trace))}</p>
<div class="legend quiet"><span>surprise: 0 bits</span><span class="scale"></span>
<span>{top:.1f} bits, a blind guess among {trace.vocab_size} tokens</span><span>dashed: the prompt</span></div>
<div class="text" role="listbox" aria-label="tokens; arrow keys move">{_spans(trace)}</div>
<section class="panel bars" id="panel" aria-live="polite">
<p>Hover over a token, or move with the arrow keys, to see its alternatives.</p></section>
<p class="quiet">{escape(totals_line(trace))}</p>
<details><summary>All numbers as a table</summary><div class="scroll">{_table(trace)}</div></details>"""
    return page(f"{trace.run}: trace", body, trace.to_dict(), ["trace.js"])


def attention_page(found: AttentionMap, labels: Sequence[str], run: str, step: int) -> str:
    """Heat maps of every layer and head: rows are the tokens that look, columns what they look at.

    Args:
        labels: the text of each of the T tokens.
    """
    n_layers, n_heads = found.weights.shape[:2]
    layers = "".join(f'<option value="{i}">{i + 1}</option>' for i in range(n_layers))
    heads = "".join(f'<option value="{i}">{i + 1}</option>' for i in range(n_heads))
    tokens = "".join(
        f'<span class="token" role="option" tabindex="-1" style="--s:0">{escape(label)}</span><wbr>' for label in labels
    )
    body = f"""\
<h1>{escape(run)}, step {step}: attention</h1>
<p class="quiet">Weights of the model that was trained; its logits in this pass differ from those of the fast path
by at most {found.max_difference:.1e}. In each map a row is a token that looks, a column a token looked at; each row
sums to 1; a token sees itself and what stands before it.</p>
<div class="controls"><label>layer <select id="layer">{layers}</select></label>
<label>head <select id="head">{heads}</select></label>
<span class="legend quiet"><span>weight: 0</span><span class="scale"></span><span>1</span></span></div>
<div class="text" role="listbox" aria-label="tokens; arrow keys choose the one that looks">{tokens}</div>
<div class="split"><div class="map"><p class="quiet">↓ token that looks, → token looked at</p>
<canvas id="map" tabindex="0" role="img"
aria-label="attention of the chosen layer and head; arrow keys move"></canvas></div>
<section class="panel bars" aria-live="polite"><p id="readout"></p><table><tbody id="rows"></tbody></table></section>
</div>
<h2>All heads</h2><div class="heads" id="heads"></div>"""
    style = "body { --surprise: var(--bar); }"
    return page(f"{run}: attention", body, attention_data(found, labels), ["heat.js", "attention.js"], style)


def attention_data(found: AttentionMap, labels: Sequence[str]) -> dict[str, Any]:
    """An attention map as attention.js reads it."""
    n_layers, n_heads = found.weights.shape[:2]
    return {
        "labels": list(labels),
        "n_layers": n_layers,
        "n_heads": n_heads,
        "weights": packed(_lower(found)),
        "max_difference": found.max_difference,
    }


def _how(trace: Trace) -> str:
    drawn = f"Sampling: {sampling_line(trace)}. " if len(trace.tokens) > trace.n_prompt else ""
    return drawn + trace.note


def _spans(trace: Trace) -> str:
    return "".join(_span(trace, index, token) for index, token in enumerate(trace.tokens))


def _span(trace: Trace, index: int, token: TokenTrace) -> str:
    """One token; a line may break after it, and does after a newline."""
    share = surprise_share(token, trace.vocab_size)
    kinds = ["token", *(["prompt"] if index < trace.n_prompt else []), *(["unknown"] if share is None else [])]
    bits = "" if token.surprise_bits is None else f", {number(token.surprise_bits, 2)} bits"
    after = "<br>" if token.text.endswith("⏎") else "<wbr>"
    return (
        f'<span class="{" ".join(kinds)}" role="option" tabindex="{-1 if index else 0}" style="--s:{share or 0:.3f}" '
        f'aria-label="{escape(token.text + bits)}">{escape(token.text)}</span>{after}'
    )


def _table(trace: Trace) -> str:
    sampled = len(trace.tokens) > trace.n_prompt
    names = ["token", *(["as sampled"] if sampled else []), "T = 1", "rank", "bits"]
    true = any(token.true_probability is not None for token in trace.tokens)
    names += ["true", "total variation"] if true else []
    rows = []
    for t in trace.tokens:
        numbers: list[float | int | None] = [
            *([t.probability] if sampled else []),
            t.probability_1,
            t.rank,
            t.surprise_bits,
        ]
        numbers += [t.true_probability, t.total_variation] if true else []
        shown = ["" if x is None else str(x) if isinstance(x, int) else f"{x:.4g}" for x in numbers]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in [t.text, *shown]) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _lower(found: AttentionMap) -> npt.NDArray[np.float32]:
    """The weights on and below each diagonal."""
    return found.weights[:, :, *np.tril_indices(found.weights.shape[-1])]
