"""Traces for the terminal. Surprise is shown by colour and by a bar or underline, so it survives without colour."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from windtunnel.generation.trace import Alternative, TokenTrace, Trace
from windtunnel.stats.digits import number

BARS = "▁▂▃▄▅▆▇█"
LEVELS = (
    "",
    "black on #ffe9c2",
    "black on #ffd28a",
    "black on #fdb84e underline",
    "black on #f0960f underline",
    "bold white on #a85400 underline",
)
LONGEST = 12
"""Cells that a token's text may take in a table; a longer one ends in …"""


def trace_table(trace: Trace, width: int = 100) -> Table:
    """One row a token: its probabilities, rank and surprise, then as many alternatives as the width has room for.

    Args:
        width: cells of the terminal.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    true = any(token.true_probability is not None for token in trace.tokens)
    longest = max((cell_len(clip(t.text)) for t in trace.tokens), default=0)
    table.add_column("token", no_wrap=True, min_width=longest)
    sampled = len(trace.tokens) > trace.n_prompt
    columns = [*(["p"] if sampled else []), "p T=1", *(["true", "off"] if true else []), "rank"]
    for name in [*columns, "bits"]:
        table.add_column(name, justify="right", no_wrap=True)
    cells = _cells(trace)
    room = width - max(longest, 5) - sum(max(len(name), 5) + 2 for name in columns) - 2 - 9
    wide = 2 + max((cell_len(text.plain) for row in cells for text in row), default=0)
    n_there = max((len(row) for row in cells), default=0)
    n_shown = max(0, min(n_there, room // wide))
    cut = f"Of {n_there} alternatives {n_shown} fit here; a wider terminal shows more." if n_shown < n_there else ""
    table.caption = f"{_caption(trace)} {cut}".rstrip()
    for i in range(n_shown):
        table.add_column("alternatives" if i == 0 else "", no_wrap=True)
    for token, row in zip(trace.tokens, cells, strict=True):
        numbers = [*([token.probability] if sampled else []), token.probability_1]
        numbers += [token.true_probability, token.total_variation] if true else []
        shown = [Text(_number(x)) for x in numbers]
        rank = Text("" if token.rank is None else str(token.rank))
        style = surprise_style(token, trace.vocab_size)
        shown_token = Text(clip(token.text), style=style)
        table.add_row(shown_token, *shown, rank, _bits(token, trace.vocab_size), *row[:n_shown])
    return table


def steps_table(trace: Trace, width: int = 100) -> RenderableType:
    """Steps as columns: under each generated token the most probable ones of its position, the taken one marked ›.

    As many steps as fit stand beside each other; the others follow below.
    """
    new = trace.tokens[trace.n_prompt :]
    cells = _cells(trace)[trace.n_prompt :]
    wide = 2 + max((cell_len(text.plain) for row in cells for text in row), default=10)
    beside = max(1, (width - 4) // wide)
    tables: list[RenderableType] = []
    for first in range(0, len(new), beside):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", justify="right", style="dim")
        for step, token in enumerate(new[first : first + beside], start=first + 1):
            table.add_column(Text(f"{step} {clip(token.text)}"), no_wrap=True, min_width=wide - 2)
        chunk = cells[first : first + beside]
        for rank in range(max(len(row) for row in chunk)):
            table.add_row(str(rank + 1), *(row[rank] if rank < len(row) else "" for row in chunk))
        tables += [table, Text()]
    return Group(*tables, Text(_caption(trace), style="dim italic"))


def surprise_text(trace: Trace) -> Text:
    """The text itself, each token on the colour of its surprise; the more surprising ones are underlined too."""
    text = Text()
    for index, token in enumerate(trace.tokens):
        if index == trace.n_prompt and index > 0:
            text.append("│", style="dim")
        text.append(token.text.replace("·", " "), style=surprise_style(token, trace.vocab_size))
        if token.text == "⏎":
            text.append("\n")
    return text


def surprise_legend(vocab_size: int) -> Text:
    """Which colour stands for how many bits."""
    text = Text("surprise, bits from: ")
    top = math.log2(max(2, vocab_size))
    for level, style in enumerate(LEVELS):
        text.append(f" {top * level / len(LEVELS):.1f} ", style=style)
    return text


def totals_line(trace: Trace) -> str:
    """Bits and perplexity of the prompt and of the continuation, in one line."""
    parts = []
    for part in ("prompt", "continuation"):
        total = trace.total(part)
        if total.n_tokens:
            tokens = f"{total.n_tokens} token{'s' if total.n_tokens > 1 else ''}"
            parts.append(
                f"{part}: {number(total.bits, 2)} bits over {tokens}, perplexity {number(total.perplexity, 2)}"
            )
    return "; ".join(parts)


def sampling_line(trace: Trace) -> str:
    """The settings that the continuation was drawn with."""
    s = trace.sampling
    if s.temperature == 0:
        return "greedy: always the most probable token"
    parts = [f"temperature {s.temperature:g}"]
    parts += [f"top-k {s.top_k}"] if s.top_k is not None else []
    parts += [f"top-p {s.top_p:g}"] if s.top_p is not None else []
    return ", ".join([*parts, f"seed {trace.seed}"])


def surprise_share(token: TokenTrace, vocab_size: int) -> float | None:
    """Surprise on a scale from 0, certain, to 1, what a blind guess among all tokens costs: log2(V) bits."""
    return None if token.surprise_bits is None else min(1.0, token.surprise_bits / math.log2(max(2, vocab_size)))


def surprise_style(token: TokenTrace, vocab_size: int) -> str:
    """The rich style of a token's surprise."""
    share = surprise_share(token, vocab_size)
    return "" if share is None else LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def shows_sampled(trace: Trace, token: TokenTrace) -> bool:
    """Whether alternatives are shown as sampled; of a prompt, and of greedy decoding, only T = 1 says something."""
    return token.probability is not None and trace.sampling.temperature > 0


def clip(text: str, longest: int = LONGEST) -> str:
    """A token's text in at most `longest` terminal cells."""
    return text if cell_len(text) <= longest else set_cell_size(text, longest - 1).rstrip() + "…"


def _cells(trace: Trace) -> list[list[Text]]:
    """The alternatives of every token as `text probability[/true]`, padded so that the numbers line up."""
    wide = max((cell_len(clip(a.text)) for t in trace.tokens for a in t.alternatives), default=0)
    return [[_cell(trace, t, a, wide) for a in t.alternatives] for t in trace.tokens]


def _cell(trace: Trace, token: TokenTrace, other: Alternative, wide: int) -> Text:
    taken = other.id == token.id
    p = other.probability if shows_sampled(trace, token) else other.probability_1
    true = "" if other.true_probability is None else f"/{_number(other.true_probability)}"
    name = set_cell_size(clip(other.text), wide)
    return Text(f"{'›' if taken else ' '}{name} {_number(p)}{true}", style="bold" if taken else "")


def _bits(token: TokenTrace, vocab_size: int) -> Text:
    share = surprise_share(token, vocab_size)
    if share is None or token.surprise_bits is None:
        return Text("")
    bar = BARS[min(len(BARS) - 1, int(share * len(BARS)))]
    return Text(f"{token.surprise_bits:.2f} {bar}")


def _number(p: float | None) -> str:
    """A probability in five cells: .5432, 1.000, 2e-05."""
    if p is None:
        return ""
    if 0 < p < 0.00005:
        return f"{p:.0e}"
    return f"{p:.4f}".removeprefix("0") if p < 0.99995 else "1.000"


def _caption(trace: Trace) -> str:
    sentences = [
        f"Sampling: {sampling_line(trace)}. p: as sampled." if len(trace.tokens) > trace.n_prompt else "",
        "Alternatives at T=1"
        + (
            " (prompt) and as sampled (continuation)."
            if trace.sampling.temperature > 0 and 0 < trace.n_prompt < len(trace.tokens)
            else "."
        ),
        "After the slash: the true probability; off: total variation distance."
        if any(a.true_probability is not None for t in trace.tokens for a in t.alternatives)
        else "",
        trace.note,
    ]
    return " ".join(sentence for sentence in sentences if sentence)
