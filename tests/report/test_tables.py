"""The tables say what the trace says, at every width, with and without colour."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from windtunnel.report.tables import (
    clip,
    sampling_line,
    steps_table,
    surprise_legend,
    surprise_text,
    totals_line,
    trace_table,
)


def printed(renderable, width, colour=False):
    file = io.StringIO()
    system = "truecolor" if colour else None
    Console(file=file, width=width, force_terminal=colour, color_system=system).print(renderable)
    return file.getvalue()


def test_each_row_has_the_numbers_of_its_token(hand_made):
    rows = printed(trace_table(hand_made(), 140), 140).splitlines()
    assert rows[1].split() == ["a&b"]
    assert rows[2].split()[:5] == ["[red]b", ".2500", "2", "2.00", "▂"]
    assert rows[3].split()[1:6] == [".7500", ".6250", "1", "0.68", "▁"]
    assert rows[4].split()[1:6] == ["1e-05", "3e-06", "40", "18.20", "█"]


def test_alternatives_are_as_sampled_after_the_prompt_and_at_temperature_one_in_it(hand_made):
    rows = printed(trace_table(hand_made(), 140), 140).splitlines()
    assert rows[2].count(".6250") == 1
    assert rows[3].count(".7500") == 2  # the token's own column and the alternative
    assert "›[red]b" in rows[2]
    assert "›[red]b" not in rows[3]
    greedy = printed(trace_table(hand_made(temperature=0), 140), 140).splitlines()
    assert greedy[3].count(".6250") == 2


@pytest.mark.parametrize("width", [44, 60, 72, 80, 100, 160])
@pytest.mark.parametrize("true", [None, 0.5])
def test_a_narrow_terminal_gets_fewer_alternatives_and_no_broken_row(hand_made, width, true):
    if true and width < 60:
        pytest.skip("the true columns need 60 cells")
    rows = printed(trace_table(hand_made(true=true, evil="e"), width), width).splitlines()
    assert all(cell_len(row) <= width for row in rows)
    assert rows[2].split()[0] == "[red]b"
    assert ".2500" in rows[2]
    assert "…" not in rows[2]
    assert "2.00 ▂" in rows[2]


def test_alternatives_that_do_not_fit_are_said(hand_made):
    there = max(len(token.alternatives) for token in hand_made().tokens)
    assert "fit here" not in printed(trace_table(hand_made(), 200), 200)
    said = " ".join(printed(trace_table(hand_made(), 44), 44).split())
    assert re.search(rf"Of {there} alternatives \d fit here; a wider terminal shows more\.", said)


def test_more_width_shows_more_alternatives(hand_made):
    counts = [printed(trace_table(hand_made(), w), w).splitlines()[2].count(" .") for w in (44, 64, 84, 140)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


def test_the_truth_stands_after_the_slash(hand_made):
    text = printed(trace_table(hand_made(true=0.5), 160), 160)
    assert ".7500/.5000" in text
    assert "true" in text.splitlines()[0]
    assert ".1250" in text.splitlines()[2]
    assert "true" not in printed(trace_table(hand_made(), 160), 160)


def test_steps_stand_as_columns_and_wrap_into_further_tables(hand_made):
    wide = printed(steps_table(hand_made(), 120), 120).splitlines()
    assert re.search(r"1 </script.*2 ⏎", wide[0])
    assert [row.split()[0] for row in wide[1:4]] == ["1", "2", "3"]
    assert wide[1].count(".7500") == 2
    narrow = printed(steps_table(hand_made(), 40), 40).splitlines()
    assert sum("</script" in row and row.lstrip().startswith("1 </") for row in narrow) == 1
    assert all(cell_len(row) <= 40 for row in narrow)


def test_steps_of_a_prompt_alone_are_none(hand_made):
    trace = hand_made()
    alone = type(trace)(**{**vars(trace), "tokens": trace.tokens[:2]})
    assert "Sampling" not in printed(steps_table(alone, 80), 80)


def test_surprise_is_coloured_and_visible_without_colour(hand_made):
    coloured = printed(surprise_text(hand_made()), 80, colour=True)
    assert "48;2;" in coloured
    low, high = (
        [s for s in surprise_text(hand_made()).spans if surprise_text(hand_made()).plain[s.start : s.end] == name]
        for name in ("[red]b", "⏎")
    )
    assert not low or "underline" not in str(low[0].style)
    assert "underline" in str(high[0].style)
    assert "0.0" in surprise_legend(4096).plain
    assert "10.0" in surprise_legend(4096).plain


def test_markup_in_a_token_is_text(hand_made):
    for renderable in (trace_table(hand_made(), 140), steps_table(hand_made(), 140), surprise_text(hand_made())):
        assert "[red]b" in printed(renderable, 140)


def test_the_lines_below_a_trace(hand_made):
    assert sampling_line(hand_made()) == "temperature 0.8, top-k 3, seed 9"
    assert "greedy" in sampling_line(hand_made(temperature=0))
    line = totals_line(hand_made())
    assert "prompt: 2.00 bits over 1 token, perplexity 4.00" in line
    assert "continuation: 18.88 bits over 2 tokens" in line


@pytest.mark.parametrize(("text", "cells"), [("short", 5), ("日本語日本語日本語", 12), ("x" * 40, 12)])
def test_long_tokens_are_clipped_by_cells(text, cells):
    assert cell_len(clip(text)) <= cells
    assert clip(text).endswith("…") == (cell_len(text) > 12)
