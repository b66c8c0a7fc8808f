"""What a notebook shows of a result: its numbers, as HTML that needs no script and that no text can break."""

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from test_comparison_report import made

from windtunnel.inspect.attention import AttentionMap
from windtunnel.inspect.doctor.findings import Finding
from windtunnel.library.checking import Diagnosis
from windtunnel.report.outcome import Claim, Outcome
from windtunnel.stats.intervals import Estimate

EVIL = "</script><script>alert(1)</script>"


class Read(HTMLParser):
    """The tags, attributes and text of a piece of HTML."""

    def __init__(self, piece):
        super().__init__()
        self.tags, self.names, self.text = set(), set(), ""
        self.feed(piece)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.fixture(params=["trace", "estimate", "attention", "comparison", "outcome", "diagnosis"], name="shown")
def _shown(request, hand_made):
    """(what a notebook shows, texts that must be in it)."""
    claims = (Claim("000", EVIL, "7", "7.01", "holds"),)
    exam = SimpleNamespace(
        name="run", config=SimpleNamespace(corpus=EVIL), n_parameters=9, is_run=True, step=4, steps=120
    )
    found, texts = {
        "trace": lambda: (hand_made(), [EVIL, "3 tokens of 20.88 bits"]),
        "estimate": lambda: (Estimate(0.5, 0.25, 0.75, 4, EVIL), ["0.5000 [0.2500, 0.7500]", EVIL]),
        "attention": lambda: (AttentionMap(np.tril(np.ones((2, 3, 4, 4), np.float32)), 1e-7), ["2 layers, 3 heads"]),
        "comparison": lambda: (made({"base": [2.0, 2.1, 2.2], EVIL: [1.0, 1.1, 1.25]}), [EVIL, "undecided", "2.1000"]),
        "outcome": lambda: (Outcome("title", EVIL, {}, (), {}, claims, False, "signed"), [EVIL, "7.01", "holds"]),
        "diagnosis": lambda: (Diagnosis(exam, (Finding("spike", "problem", EVIL, "less"),)), [EVIL, "problem: spike"]),
    }[request.param]()
    return found._repr_html_(), texts


def test_it_has_the_numbers_and_nothing_that_runs(shown):
    piece, texts = shown
    read = Read(piece)
    assert not read.tags & {"script", "img", "iframe", "link", "style"}
    assert not any(name.startswith("on") or name in ("src", "href") for name in read.names)
    for text in texts:
        assert text in read.text


def test_a_map_of_a_long_text_is_named_only():
    assert AttentionMap(np.zeros((1, 1, 99, 99), np.float32), 0.0)._repr_html_().startswith("<span>AttentionMap(")


def test_each_weight_is_a_square_as_dark_as_it_is():
    weights = np.array([[[[1.0, 0.0], [0.25, 0.75]]]], np.float32)
    piece = AttentionMap(weights, 0.0)._repr_html_()
    assert piece.count("fill-opacity") == 3
    assert '<rect x="0" y="1" width="1" height="1" fill-opacity="0.25"/>' in piece
