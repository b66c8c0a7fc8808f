"""The page of a scaling study: its answer comes first, and every budget's curve can be seen in light and in dark."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from windtunnel.report.scaling import save_scaling
from windtunnel.report.scaling_figure import _colours
from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.simulate import Law, simulate


def luminance(colour):
    """Relative luminance, of sRGB."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize(("page", "least"), [("#16171a", 3.0), ("#fdfdfc", 1.5)])
def test_every_budget_stands_out_from_a_dark_page_and_from_a_white_one(page, least):
    for colour in _colours(6):
        low, high = sorted([luminance(colour), luminance(page)])
        assert (high + 0.05) / (low + 0.05) > least, colour


def test_the_answer_is_said_before_what_the_study_did(tmp_path):
    law, budgets = Law.through(1e11, 3e4), [1e10 * 10 ** (i / 2) for i in range(4)]
    sizes = [list(law.optimum(c) * np.geomspace(1 / 4, 4, 5)) for c in budgets]
    found = fit_scaling(simulate(law, sizes, budgets, (1,) * 4, 0.01, np.random.default_rng(0)), law=False)
    save_scaling(found, [found.at(1e13)], {}, tmp_path, "mine", ["the sweep was made"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 0 < text.index("At 1e+13 FLOPs") < text.index("the sweep was made")
