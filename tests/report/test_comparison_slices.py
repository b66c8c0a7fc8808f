"""What a comparison shows by slice: every number is found again, in the tables, on the page and in the picture."""

import re
from dataclasses import replace
from html import unescape

import pytest
from test_comparison_report import CASES, EVIL, printed

from windtunnel.comparison.comparison import Slice
from windtunnel.report.comparison import save_report
from windtunnel.report.comparison_page import comparison_page
from windtunnel.report.comparison_slices import comparison_slices_figure


def by_slice(found, name="of 12 characters or more"):
    """The comparison with its own verdicts on one slice, and another one of too few pairs."""
    scores = {arm.name: arm.scores for arm in found.arms}
    return replace(
        found,
        slices=(
            Slice(name, 1234, scores, found.rule.margin, found.judgements),
            Slice("qu", 13, scores, found.rule.margin, ()),
        ),
    )


SLICED = {case: by_slice(CASES[case]) for case in ("words", "diverged", "evil", "one seed", "long names")}


@pytest.fixture(scope="module", params=SLICED, name="drawn")
def _drawn(request):
    figure = comparison_slices_figure(SLICED[request.param])
    figure.canvas.draw()
    return SLICED[request.param], figure


def test_the_table_holds_every_number_and_fits_a_terminal():
    found, shown = SLICED["words"], printed(SLICED["words"])
    table = shown[shown.index("(pairs)") : shown.index("by slice:")]
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "\nof 12 characters or more (1,234)\n" in table
    assert "\nqu (13): too few to say\n" in table
    for arm in found.arms:
        assert table.count(f"{arm.loss.estimate:.4f}") >= 2
    for j in found.judgements:
        d, other = j.verdict.difference, j.others["bits_per_byte"]
        for e in (d, other):
            assert table.count(f"[{e.low:+.4f}, {e.high:+.4f}]") == 1
        assert j.verdict.word.split(" that")[0] in table
    assert "nan" not in table
    assert "(pairs)" not in printed(CASES["words"])


def test_the_page_holds_the_table_and_the_picture(tmp_path):
    files = save_report(SLICED["evil"], tmp_path)
    assert [path.name for path in files] == [
        "comparison.png", "comparison.svg", "slices.png", "slices.svg", "report.html"]  # fmt: skip
    page = files[-1].read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert page.count("</script>") == 2
    assert "<script>alert" not in page
    assert f"<td>\u00a0\u00a0{EVIL}</td>" in unescape(page)
    assert "<td>qu (13)</td>" in page
    assert "too few<br>" in page
    svg = page[page.rindex("<svg") : page.rindex("</svg>")]
    assert not re.search(r"#[0-9a-f]{6}[;\" ]", svg.replace('"#', ""))


def test_slices_of_too_few_pairs_alone_have_a_table_and_no_picture(tmp_path):
    found = replace(SLICED["words"], slices=SLICED["words"].slices[1:])
    assert [path.name for path in save_report(found, tmp_path)] == ["comparison.png", "comparison.svg", "report.html"]
    assert "By slice" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "By slice" not in comparison_page(CASES["words"], {"comparison": "<svg></svg>"})


def test_the_picture_has_a_panel_for_each_arm_with_its_seeds_interval_and_margin(drawn):
    found, figure = drawn
    for axes, j in zip(figure.axes, found.judgements, strict=True):
        [dots] = [a for a in axes.collections if a.get_gid() == "differences-0"]
        kept = [d for _, d in j.differences if abs(d) < 1e9]
        assert dots.get_offsets().tolist() == [[pytest.approx(d), 0] for d in kept]
        [band] = [patch for patch in axes.patches if patch.get_gid() == "margin-0"]
        assert (band.get_x(), band.get_width()) == pytest.approx((-found.rule.margin, 2 * found.rule.margin))
        ends = [sorted(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "|"]
        d = j.verdict.difference
        assert ends == ([[d.low, d.high]] if d.low <= d.high else [])
        assert [text.get_text() for text in axes.texts if text.get_weight() == "bold"] == [
            j.verdict.word, "too few to say"]  # fmt: skip
        assert [text.get_text() for text in axes.get_yticklabels()] == ["of 12 characters or more (1,234)", "qu (13)"]


def test_nothing_in_the_picture_overlaps_or_is_cut_off(drawn):
    _, figure = drawn
    page = figure.bbox
    boxes = [figure._supxlabel.get_window_extent()]
    for axes in figure.axes:
        texts = [axes._left_title, axes.xaxis.label, *axes.get_yticklabels(), *axes.get_xticklabels(), *axes.texts]
        boxes += [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
