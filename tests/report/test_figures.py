"""Figures show the numbers they are given; they are looked at by eye as well, which no test replaces."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.text import Text

from windtunnel.errors import ConfigError, SaveError
from windtunnel.report.figures import (
    Map,
    attention_figure,
    curves_figure,
    dev_losses,
    maps_figure,
    save_figure,
    smoothed,
    through_time_figure,
)
from windtunnel.stats.intervals import mean_interval
from windtunnel.training.events import Evaluation, Step

LABELS = ["<end>", "$x_1$", "$", "⏎"]
WEIGHTS = np.tril(np.full((2, 3, 4, 4), 0.25))


def run(seed, n_steps=20):
    """The events of a run whose dev loss is 3, 2 and 1 + seed / 10."""
    steps = [Step(i, 3 - i / 10 + seed / 10, 1e-3, 1.0, 10, 0.1) for i in range(1, n_steps + 1)]
    losses = {0: 3.0, 10: 2 + seed / 10, 20: 1 + seed / 10}
    return [
        *steps,
        *(Evaluation(s, "dev", {"loss": x, "bits_per_byte": 1.0}, 10, True) for s, x in losses.items() if s <= n_steps),
    ]


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


@pytest.mark.parametrize("norms", [[[1.0]], [[1, 0, 0], [0.2, 1, 0], [0.0, 1e-200, 1]], [[1, 0], [40, 1]]])
def test_gradients_through_time_have_a_colour_by_their_logarithm_and_none_where_they_are_zero(norms):
    norms = np.array(norms, dtype=float)
    drawn = through_time_figure(norms, LABELS[: len(norms)], "$")
    (image,) = drawn.axes[0].get_images()
    drawn.canvas.draw()
    share = np.ma.masked_invalid(image.norm(image.get_array()))
    np.testing.assert_array_equal(np.ma.getmaskarray(share), norms == 0)
    low, high = image.get_clim()
    found = share.compressed()
    np.testing.assert_allclose(found, np.log(norms[norms > 0] / low) / np.log(high / low), atol=1e-12)
    assert found.max() == 1


def test_one_seed_has_a_curve_and_no_band():
    axes = curves_figure([run(0)], "one").axes[0]
    assert not [c for c in axes.collections if isinstance(c, PolyCollection)]
    name = next(label for label in lines(axes.figure) if label.startswith("dev"))
    assert name == "dev 1.0000 at step 20"
    assert lines(axes.figure)[name].get_ydata().tolist() == [2.0, 1.0]


def test_the_band_over_seeds_is_the_t_interval_of_the_mean():
    axes = curves_figure([run(seed) for seed in range(4)], "four").axes[0]
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    vertices = band.get_paths()[0].vertices
    at_20 = vertices[vertices[:, 0] == 20][:, 1]
    expected = mean_interval([1.0, 1.1, 1.2, 1.3])
    assert at_20.min() == pytest.approx(expected.low)
    assert at_20.max() == pytest.approx(expected.high)
    assert "dev 1.1500 at step 20, mean of 4 seeds" in lines(axes.figure)
    thin = [line for line in axes.get_lines() if line.get_linewidth() < 1]
    assert len(thin) == 4


def test_a_seed_that_stopped_early_or_has_no_events_does_not_break_the_figure():
    figure = curves_figure([run(0), run(1, n_steps=10), []], "uneven")
    assert dev_losses([run(0), run(1, n_steps=10)]) == {0: [3.0, 3.0], 10: [2.0, 2.1], 20: [1.0]}
    figure.canvas.draw()
    curves_figure([[]], "nothing yet").canvas.draw()


def test_a_loss_that_is_no_number_does_not_break_the_figure():
    lost = [*run(0), Evaluation(20, "dev", {"loss": math.nan, "bits_per_byte": 1.0}, 10, True)]
    curves_figure([lost], "lost").canvas.draw()


def test_the_last_evaluation_of_a_step_counts():
    assert dev_losses([[*run(0), Evaluation(20, "dev", {"loss": 0.5, "bits_per_byte": 1.0}, 10, True)]])[20] == [0.5]


def test_reference_lines():
    figure = curves_figure([run(0)], "lines", vocab_size=27, floor=0.75)
    levels = {label: line.get_ydata()[0] for label, line in lines(figure).items()}
    assert levels["blind guess, ln 27 = 3.2958"] == pytest.approx(math.log(27))
    assert levels["entropy floor 0.7500"] == 0.75
    low, high = figure.axes[0].get_ylim()
    assert low < 0.75 < math.log(27) < high


def test_smoothing_has_no_bias_at_the_start_and_halves_after_the_half_life():
    np.testing.assert_allclose(smoothed([2.0] * 9, 5), 2.0)
    assert smoothed([1.0] * 1000 + [0.0] * 5, 5)[-1] == pytest.approx(0.5, abs=1e-6)


def test_one_head_is_drawn_with_every_weight_and_every_label():
    everything = np.random.default_rng(0).random((2, 3, 4, 4))  # as of a model without a causal mask
    assert not attention_figure(everything, LABELS, 1, 2).axes[0].images[0].get_array().mask.any()
    weights = np.tril(everything)
    axes = attention_figure(weights, LABELS, 1, 2).axes[0]
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(drawn[np.tril_indices(4)], weights[1, 2][np.tril_indices(4)])
    assert drawn.mask[np.triu_indices(4, 1)].all()
    assert [text.get_text() for text in axes.get_xticklabels()] == LABELS
    assert not any(text.get_parse_math() for text in [*axes.get_xticklabels(), *axes.get_yticklabels()])


@pytest.mark.parametrize(("layer", "head", "panels"), [(None, None, 6), (0, None, 3), (None, 1, 2), (1, 1, 1)])
def test_without_a_layer_or_head_all_are_drawn(layer, head, panels):
    figure = attention_figure(WEIGHTS, LABELS, layer, head)
    assert sum(bool(axes.images) for axes in figure.axes) - len(figure.axes[-1].images) == panels


def test_more_heads_than_can_have_axes_are_one_image_with_every_weight():
    weights = np.tril(np.random.default_rng(0).random((30, 9, 4, 4)))
    figure = attention_figure(weights, LABELS)
    axes = figure.axes[0]
    drawn = axes.images[0].get_array()
    for i, j in ((0, 0), (29, 8), (11, 5)):
        np.testing.assert_array_equal(drawn[5 * i : 5 * i + 4, 5 * j : 5 * j + 4].filled(0), weights[i, j])
    assert drawn.mask[4::5].all()
    assert drawn.mask[:, 4::5].all()
    assert [text.get_text() for text in axes.get_yticklabels()] == [str(i) for i in range(1, 31)]
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(i) for i in range(1, 10)]
    assert axes.get_yticks()[29] == 5 * 29 + 1.5
    assert len(figure.axes) == 2  # the other is the scale
    figure.canvas.draw()
    for text in (axes.xaxis.label, *figure.texts):
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 6)])
def test_attention_maps_say_which_axis_looks(shape):
    figure = attention_figure(np.ones((*shape, 4, 4)), LABELS)
    figure.canvas.draw()
    down, across = ({t.get_text() for t in figure.findobj(Text) if t.get_rotation() == turn} for turn in (90, 0))
    assert any("token that looks" in text for text in down)
    assert any("token looked at" in text for text in across)


def test_long_texts_name_some_of_their_tokens():
    axes = attention_figure(np.ones((1, 1, 100, 100)), ["a"] * 100, 0, 0).axes[0]
    assert len(axes.get_xticks()) <= 40


def test_labels_do_not_overlap_and_tokens_are_no_formulas(tmp_path):
    labels = ["·and", "$\\frac{", "⏎", "^", "_", "·brown", "·small", "."] * 4
    figure = attention_figure(np.ones((1, 1, 32, 32)), labels, 0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "a.png")
    for texts in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_maps_of_several_texts_are_named_and_drawn_below_each_other():
    rng = np.random.default_rng(0)
    wide = Map("$wide", rng.random((1, 2, 3, 5)), list("abc"), list("vwxyz"), 2)
    tall = Map("tall", rng.random((2, 3, 4, 1)), list("abcd"), ["v"])
    figure = maps_figure([wide, tall])
    panels = [axes for axes in figure.axes if axes.get_xlim()[0] == -0.5]
    drawn = [axes.images[0].get_array().data for axes in panels]
    for found, expected in zip(drawn, [*wide.weights[0], *tall.weights[0], *tall.weights[1]], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [text.get_text() for text in panels[0].get_yticklabels()] == list("abc")
    assert [text.get_text() for text in panels[0].get_xticklabels()] == list("vwxyz")
    assert [list(axes.lines[0].get_xdata()) for axes in panels if axes.lines] == [[1.5, 1.5]] * 2
    figure.canvas.draw()


def test_maps_that_are_no_picture_any_more_are_refused():
    with pytest.raises(ConfigError, match=r"these 40 grids of attention are .* inches high.*write a page"):
        maps_figure([Map("", np.ones((2, 1, 3, 3)), list("abc"), list("abc"))] * 40)


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"no layer 2.*0 to 1"):
        attention_figure(WEIGHTS, LABELS, 2, 0)


def test_figures_are_written_as_png_and_as_the_same_svg_each_time(tmp_path):
    for name in ("a.png", "a.svg", "b.svg"):
        save_figure(curves_figure([run(0), run(1)], "$a_b$"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(ConfigError, match=r"\.jpg"):
        save_figure(curves_figure([run(0)], ""), tmp_path / "a.jpg")
    with pytest.raises(SaveError, match="nowhere"):
        save_figure(curves_figure([run(0)], ""), tmp_path / "nowhere" / "a.png")


def test_matplotlib_is_imported_only_when_a_figure_is_drawn():
    code = "import windtunnel.report.figures, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
