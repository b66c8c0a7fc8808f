"""Charts show the numbers they are given, in one palette, and their legends fit; tables write numbers one way."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

from windtunnel.report.charts import MOST_MARKS, PALETTE, STYLES, dots, field, figure, heat, histograms, lines
from windtunnel.report.table import Table, interval, table, text
from windtunnel.stats.intervals import Estimate, mean_interval

ESTIMATE = Estimate(0.5, 0.25, 1.0, 3, "m")


def only(*panels, **layout):
    """The axes of a figure."""
    return figure(*panels, **layout).axes


def labelled(axes):
    return {line.get_label(): line for line in axes.get_lines() if line.get_label()[:1] not in ("", "_")}


def test_the_charts_and_the_table_load_no_matplotlib():
    code = "import windtunnel.report.charts, windtunnel.report.table, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_two_series_look_alike():
    assert (
        len({colour for colour, _, _ in STYLES}) == len({mark for _, mark, _ in STYLES}) == len(STYLES) == len(PALETTE)
    )


def test_a_line_shows_its_numbers_and_of_several_rows_the_mean_and_each():
    x, rows = [1, 2, 4], np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 5.0]])
    [axes] = only(lines({"one": (x, [5, 6, 7]), "rows": (x, rows)}, {"level": 4}, {"at": [2, 3]}, x, "x", xlabel="x"))
    found = labelled(axes)
    assert list(found) == ["one", "rows", "level", "at"]
    assert found["one"].get_ydata() == pytest.approx([5, 6, 7])
    assert found["rows"].get_ydata() == pytest.approx([2, 2, 4])
    thin = [list(line.get_ydata()) for line in axes.get_lines() if line.get_linewidth() == 0.6]
    assert thin == rows.tolist()
    assert (found["level"].get_ydata()[0], found["at"].get_xdata()[0]) == (4, 2)
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "linear", "x")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
    assert [to_hex(found[name].get_color()) for name in ("one", "rows")] == list(PALETTE[:2])


def test_estimates_are_drawn_with_their_intervals():
    [axes] = only(lines({"both": ([1, 2], [ESTIMATE, mean_interval([1.0, 1.0])])}))
    [bars] = axes.containers
    assert bars.lines[0].get_ydata() == pytest.approx([0.5, 1.0])
    assert [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()] == [[0.25, 1.0], [1.0, 1.0]]


def test_few_points_are_marked_many_are_not_and_marks_may_stand_alone():
    few, many = range(MOST_MARKS), range(MOST_MARKS + 1)
    [axes] = only(lines({"few": (few, few), "many": (many, many), "alone": (many, many)}, joined=["few", "many"]))
    found = labelled(axes)
    assert [found[name].get_marker() in ("", "None") for name in found] == [False, True, False]
    assert [found[name].get_linestyle() == "None" for name in found] == [False, False, True]


def test_dots_stand_on_their_rows_and_those_of_two_series_beside_each_other():
    [axes] = only(dots({"a": {"x": [1, 2], "y": ESTIMATE}, "b": {"y": [3]}}, ["x", "y"]))
    places = {bars.lines[0].get_xdata()[0]: bars.lines[0].get_ydata()[0] for bars in axes.containers}
    assert places == pytest.approx({1: 0, 0.5: 1 - 0.12, 3: 1 + 0.12})
    assert axes.get_ylim() == (1.5, -0.5)  # from top to bottom
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]


def test_histograms_show_shares_of_values_or_of_counts():
    [axes] = only(histograms({"values": [0, 0, 0, 1], "counts": ([1, 3], [0, 1, 2])}, bins=2))
    values, counts = (patch.get_data() for patch in axes.patches)
    assert values.values == pytest.approx([0.75, 0.25])
    assert (counts.values.tolist(), list(counts.edges)) == ([0.25, 0.75], [0, 1, 2])


def test_a_heat_map_writes_each_number_into_its_cell_readable_on_its_colour():
    [axes] = only(heat([[0.1, 0.9], [0.6, 0.4]], ["p", "q"]))
    assert [(t.get_position(), t.get_text(), t.get_color()) for t in axes.texts] == [
        ((0, 0), "0.1000", "white"), ((1, 0), "0.9000", "black"), ((0, 1), "0.6000", "black"),
        ((1, 1), "0.4000", "white"),
    ]  # fmt: skip


def test_a_heat_map_with_rows_of_its_own_has_a_scale_instead_of_numbers():
    axes, scale = only(heat([[0.1, 0.9, 0.0], [0.6, 0.4, 0.0]], ["p", "q", "r"], rows=["a", "b"]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["p", "q", "r"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)
    assert not axes.texts
    assert scale.get_ylim() == (0, 1)


def test_a_field_has_zero_in_the_middle_of_its_scale_and_its_rows_from_top_to_bottom(tmp_path):
    drawn = figure(field([[0.5, -2.0, 1.0], [0.0, 0.0, 0.0]], "value", xlabel="x"))
    axes, scale = drawn.axes
    [mesh] = axes.collections
    assert (mesh.get_array().tolist(), mesh.get_clim()) == ([[0.5, -2.0, 1.0], [0.0, 0.0, 0.0]], (-2.0, 2.0))
    assert (axes.get_ylim(), axes.get_xlim(), scale.get_ylabel()) == ((1.5, -0.5), (-0.5, 2.5), "value")
    drawn.savefig(tmp_path / "field.svg")
    assert "data:image" not in (tmp_path / "field.svg").read_text()


@pytest.mark.parametrize(
    "names", [["a", "b", "c", "d"], [f"a name that is as long as a sentence {i}" for i in range(3)]]
)
def test_a_legend_fits_the_figure_and_is_drawn_once_for_panels_that_share_it(names):
    panels = [lines({name: ([1, 2], [1, 2]) for name in names})] * 2
    for drawn in (figure(panels[0]), figure(*panels)):
        drawn.canvas.draw()
        [legend] = drawn.legends
        box, page = legend.get_window_extent(), drawn.bbox
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert all(axes.get_legend() is None for axes in drawn.axes)


def test_panels_with_other_names_have_legends_of_their_own_and_one_without_names_none():
    first, second, third = only(*(lines({name: ([1, 2], [1, 2])}) for name in ("a", "b", "")))
    assert [axes.get_legend().get_texts()[0].get_text() for axes in (first, second)] == ["a", "b"]
    assert third.get_legend() is None


def test_panels_stand_in_columns_and_share_axes():
    axes = only(*[lines({"": ([0, 1], [0, 1])}, xlabel="x", ylabel="y")] * 5, columns=2, share="xy")
    assert [one.axison for one in axes] == [True] * 5 + [False]
    assert [one.get_ylabel() for one in axes[:4]] == ["y", "", "y", ""]
    assert [one.get_xlabel() for one in axes[:5]] == ["", "", "", "x", "x"]


@pytest.mark.parametrize(
    ("value", "said"),
    [("x", "x"), (None, "-"), (float("nan"), "-"), (12345, "12,345"), (0.12345, "0.1235"), (0.0, "0.0000"),
     (1.5e-6, "1.5e-06"), (-2e9, "-2e+09"), (np.float64(2.5), "2.5000"), (np.float32(2.5), "2.5000"),
     (ESTIMATE, "0.5000 [0.2500, 1.0000]"), ({1: 2000, "a": 0.5}, "1: 2,000, a: 0.5000")],
)  # fmt: skip
def test_a_cell(value, said):
    assert text(value) == said


def test_an_interval_of_one_value_is_the_value():
    assert interval(mean_interval([0.25])) == "0.2500"
    assert interval(ESTIMATE, "+.1f") == "+0.5 [+0.2, +1.0]"


def test_a_table_in_the_terminal_and_on_a_page_escapes_what_it_shows():
    made = table("t", ["a", "<b>"], ([name, n] for name, n in {"[red]x": 1, "y": None}.items()))
    assert made == Table("t", ("a", "<b>"), (("[red]x", "1"), ("y", "-")))
    grid = made.terminal()
    assert [[cell.plain for cell in column.cells] for column in grid.columns] == [["[red]x", "y"], ["1", "-"]]
    assert "<b>" not in made.html()
    assert "<td>[red]x</td><td>1</td>" in made.html()
