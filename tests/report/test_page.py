"""Pages are whole, safe and complete: nothing is loaded, nothing from a corpus becomes HTML."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest

from windtunnel.generation.trace import Alternative, TokenTrace
from windtunnel.generation.translate import Translated
from windtunnel.inspect.attention import AttentionMap
from windtunnel.inspect.translation_attention import Copying, Heads, TranslationAttention
from windtunnel.report.html import cells, texts_table
from windtunnel.report.page import attention_page, trace_page
from windtunnel.report.translation import copying_line, translation_page

EVIL = "</script><script>alert(1)</script>"
LABELS = ["<end>", EVIL, '"quote"', "&amp;"]


class Reader(HTMLParser):
    """What a browser would make of a page: its tags, the text of its token spans, its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.tokens, self.scripts, self.inside = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("span", "script"):
            self.inside.append((tag, dict(attrs)))
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag):
        if tag in ("span", "script"):
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and self.inside[-1][0] == "script":
            self.scripts[-1] += data
        elif self.inside and "token" in self.inside[-1][1].get("class", ""):
            self.tokens.append(data)


def maps(n_layers=2, n_heads=3, n_tokens=4):
    rng = np.random.default_rng(0)
    weights = np.tril(rng.random((n_layers, n_heads, n_tokens, n_tokens)))
    return AttentionMap((weights / weights.sum(-1, keepdims=True)).astype(np.float32), 2.5e-7)


@pytest.fixture(params=["trace", "attention"], name="page")
def _page(request, hand_made):
    return trace_page(hand_made()) if request.param == "trace" else attention_page(maps(), LABELS, f"r{EVIL}", 40)


def test_a_corpus_cannot_put_script_or_tags_on_a_page(page):
    read = Reader(page)
    assert len(read.scripts) == 2
    assert not any("alert" in script for script in read.scripts[1:])
    assert page.count("</script>") == 2
    assert {"b", "red"}.isdisjoint(tag for tag, _ in read.tags)
    assert EVIL in read.tokens


def test_a_page_loads_nothing(page):
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", page)
    assert not any({"src", "href"} & attrs.keys() for _, attrs in Reader(page).tags)
    assert "default-src 'none'" in page
    assert "innerHTML" not in page


def test_a_page_has_two_themes_and_can_be_used_with_the_keyboard(page):
    assert "prefers-color-scheme: dark" in page
    assert "keydown" in page
    assert ":focus-visible" in page
    tokens = [attrs for tag, attrs in Reader(page).tags if tag == "span" and "token" in attrs.get("class", "")]
    assert all("tabindex" in attrs and attrs["role"] == "option" for attrs in tokens)
    assert '<html lang="en">' in page


def test_the_trace_page_holds_every_token_and_number(hand_made):
    trace = hand_made(true=0.5)
    page = trace_page(trace)
    read = Reader(page)
    assert read.tokens == [token.text for token in trace.tokens]
    assert json.loads(read.scripts[0]) == json.loads(json.dumps(trace.to_dict()))
    spans = [attrs for tag, attrs in read.tags if tag == "span" and attrs.get("class", "").startswith("token")]
    assert [span["class"] for span in spans] == ["token prompt unknown", "token prompt", "token", "token"]
    assert [span["style"] for span in spans] == ["--s:0.000", "--s:0.167", "--s:0.057", "--s:1.000"]
    for said in ("step 40", "temperature 0.8, top-k 3, seed 9", "12.0 bits", "A note &lt;b&gt;.", "0.625"):
        assert said in page


def test_the_attention_page_holds_every_weight():
    found = maps()
    data = json.loads(Reader(attention_page(found, LABELS, "r", 40)).scripts[0])
    assert data["labels"] == LABELS
    packed = np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(2, 3, 10) / 65535
    for query in range(4):
        for key in range(query + 1):
            # the place that attention.js reads
            np.testing.assert_allclose(
                packed[:, :, query * (query + 1) // 2 + key], found.weights[:, :, query, key], atol=1e-5
            )


def translations():
    """Two translations of hand-made tokens, with two kinds of attention."""
    rng, names = np.random.default_rng(0), tuple(LABELS)
    weights = rng.random((2, 3, 4, 4)).astype(np.float32)
    lower = np.tril(np.ones((4, 4), dtype=bool))[None].repeat(2, 0)
    inside = Heads("encoder self-attention", "source token", weights, lower, names, names, 4)
    across = Heads("cross-attention", "token written", weights, lower | True, names, names, 2, np.eye(4, dtype=bool))
    tokens = tuple(
        TokenTrace(i, text, 0.5, 0.5, 1, 1.0, (Alternative(9, EVIL, None, 0.25), Alternative(3, "<i>", None, 0.125)))
        for i, text in enumerate(LABELS)
    )
    made = [Translated(source, EVIL, 0.5, True) for source in (EVIL, "b<b>")]
    return [TranslationAttention(one, tokens, (inside, across), 2.5e-7) for one in made]


def test_the_page_of_translations_is_safe_and_loads_nothing():
    page = translation_page(translations(), f"r{EVIL}", 40)
    read = Reader(page)
    assert len(read.scripts) == page.count("</script>") == 2
    assert "alert" not in read.scripts[1]
    assert {"b", "i", "red"}.isdisjoint(tag for tag, _ in read.tags)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|innerHTML", page)
    assert not any({"src", "href"} & attrs.keys() for _, attrs in read.tags)
    assert "prefers-color-scheme: dark" in page


def test_the_page_of_translations_holds_every_token_alternative_and_weight():
    seen = translations()
    page = translation_page(seen, "r", 40)
    sections = page.split("<section")[1:]
    for section in sections:
        for label in LABELS:
            assert section.count(f"<td>{escape(label)}</td>") == 1
        assert section.count(f"<td>{escape(EVIL)} 0.2500</td>") == len(LABELS)
        assert f"source {escape(LABELS[0])} {escape(LABELS[1])} | target" in section
    canvases = [attrs["data-at"] for tag, attrs in Reader(page).tags if tag == "canvas"]
    assert canvases == [f"{i},{k},{n},{h}" for i in range(2) for k in range(2) for n in range(2) for h in range(3)]
    for one, kinds in zip(seen, json.loads(Reader(page).scripts[0]), strict=True):
        for heads, data in zip(one.kinds, kinds, strict=True):
            assert (data["rows"], data["columns"], data["n_heads"]) == (LABELS, LABELS, 3)
            packed = np.frombuffer(base64.b64decode(data["weights"]), "<u2").reshape(2, 3, 4, 4) / 65535
            np.testing.assert_allclose(packed, heads.weights, atol=1e-5)
    inside, across = kinds
    assert (inside["first"][0], inside["last"][0]) == ([0] * 4, [0, 1, 2, 3])
    assert (across["last"][1], across["equal"], across["split"]) == ([3] * 4, [[i, i] for i in range(4)], 2)


def test_the_sentence_on_copying_names_the_head_that_copies_most():
    found = [Copying(1, 1, 0.25, 0.125, 7), Copying(2, 3, 0.75, 0.125, 7), Copying(2, 4, 0.5, 0.125, 7)]
    said = copying_line(found)
    assert said.startswith("Of 3 heads, layer 2, head 3 copies most: 0.7500 of its weight")
    assert "alike has 0.1250 (mean over the 7 tokens" in said
    assert copying_line(found[:1]).startswith("The one head: 0.2500 of its weight lies on source tokens")
    one_token = copying_line([Copying(1, 1, 0.25, 0.125, 1)])
    assert one_token.endswith("alike has 0.1250 (of the one token written that its source has, too).")
    assert "cannot be measured" in copying_line([])


def contrast(a, b):
    """WCAG 2.1 contrast ratio of two #rrggbb colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return parts[0] * 0.2126 + parts[1] * 0.7152 + parts[2] * 0.0722

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_legible_on_every_colour_in_both_themes(hand_made):
    themes = re.findall(r":root \{([^}]*--page[^}]*)\}", trace_page(hand_made()))
    assert len(themes) == 2
    for theme in themes:
        colour = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for ground in ("page", "panel", "calm", "surprise"):
            assert contrast(colour["ink"], colour[ground]) >= 4.5, ground
        assert contrast(colour["quiet"], colour["page"]) >= 4.5
        assert contrast(colour["bar"], colour["panel"]) >= 3
        assert contrast(colour["focus"], colour["page"]) >= 3


def test_what_belongs_together_stays_on_one_line():
    kept = cells(["0.5 [0.1, -0.9]", "5 %", "[1, 2, 3]", "<b>"])
    assert kept == "<td>0.5 [0.1,&nbsp;-0.9]</td><td>5&nbsp;%</td><td>[1, 2, 3]</td><td>&lt;b&gt;</td>"


def test_a_text_to_read_is_left_as_it_is():
    shown = texts_table(("id", "text"), [("5 %", "  5 %\n[1, 2] <b>")])
    assert "<td>5&nbsp;%</td><td>  5 %\n[1, 2] &lt;b&gt;</td>" in shown
    assert 'class="scroll texts"' in shown
