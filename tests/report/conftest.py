"""A trace written out by hand, of a text that would do harm if a page did not escape it."""

from __future__ import annotations

import pytest

from windtunnel.generation.sampling import SamplingConfig
from windtunnel.generation.trace import Alternative, TokenTrace, Trace

EVIL = "</script><script>alert(1)</script>"


def _token(id, text, p, p_1, bits, rank, others, true=None, off=None) -> TokenTrace:
    alternatives = tuple(Alternative(i, name, None if p is None else q, r, true and 0.5) for i, name, q, r in others)
    return TokenTrace(id, text, p, p_1, rank, bits, alternatives, true, off)


def hand_made(temperature: float = 0.8, evil: str = EVIL, true: float | None = None) -> Trace:
    others = [(7, evil, 0.75, 0.625), (3, "[red]b", 0.25, 0.25), (4, "c", 0.0, 0.0625)]
    tokens = (
        TokenTrace(1, "a&b", None, None, None, None, ()),
        _token(3, "[red]b", None, 0.25, 2.0, 2, others, true, true and 0.125),
        _token(7, evil, 0.75, 0.625, 0.678, 1, others, true, true and 0.125),
        _token(5, "⏎", 0.000012, 0.0000034, 18.2, 40, others, true, true and 0.125),
    )
    sampling = SamplingConfig(temperature=temperature, top_k=3)
    return Trace(tokens, 2, "text", sampling, 9, f"run{evil}", 40, 4096, 12, "A note <b>.")


@pytest.fixture(name="hand_made")
def _hand_made():
    return hand_made
