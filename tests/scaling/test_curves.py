"""Points read off the curves of one long run, and the published reading of them."""

import numpy as np
import pytest

from windtunnel.errors import DataError
from windtunnel.scaling.curves import Curve, plain_vertex, points_of_curves
from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.points import Points

PUBLISHED = {
    8e10: {4862: 1.741, 17886: 1.705, 39102: 1.656, 68510: 1.649, 151902: 1.722},
    1.6e11: {4862: 1.529, 17886: 1.403, 39102: 1.349, 68510: 1.382, 151902: 1.506, 268062: 1.502},
    3.2e11: {17886: 1.203, 39102: 1.007, 68510: 0.991, 151902: 1.147, 268062: 1.276},
    6.4e11: {17886: 1.042, 39102: 0.683, 68510: 0.597, 151902: 0.664, 268062: 0.926},
    1.28e12: {39102: 0.552, 68510: 0.438, 151902: 0.280, 268062: 0.526},
}
"""Losses of one run of the six translators at five budgets, by their size without embeddings."""
VERTICES = {8e10: 36_223, 1.6e11: 35_796, 3.2e11: 60_243, 6.4e11: 77_190, 1.28e12: 111_507}


def test_the_published_vertices_come_back_and_the_first_of_them_is_refused():
    rows = [(n, c, loss) for c, own in PUBLISHED.items() for n, loss in own.items()]
    n, c, loss = np.array(rows, dtype=float).T
    for budget, vertex in VERTICES.items():
        own = c == budget
        assert plain_vertex(n[own], loss[own]) == pytest.approx(vertex, rel=0.01)  # losses are printed to .001
    line = np.polyfit(np.log(list(VERTICES)), np.log(list(VERTICES.values())), 1)
    assert line[0] == pytest.approx(0.435, abs=0.001)
    assert np.exp(np.polyval(line, np.log(1e15))) == pytest.approx(1.94e6, rel=0.01)

    found = fit_scaling(Points(n, c / 6 / n, c, loss, np.zeros(len(n))))
    assert found.parabolas[0].refusal
    assert "resamples" in found.parabolas[0].refusal
    assert found.law is None  # its residual is .23
    assert found.envelope is None  # nor do the lowest losses lie on a curve that levels off
    band = found.at(1e15).parameters
    assert band.low < 1.94e6 < 3.7e6 < band.high  # so both readings are within the error
    assert band.high / band.low > 5


def curve(**changed):
    flops = np.linspace(1e9, 1e11, 40)
    course = {"parameters": 1e4, "flops": flops, "tokens": flops / 6e4, "loss": 3 - flops / 1e11 + (flops / 2e11) ** 3}
    return Curve(**{**course, **changed})


def test_a_polynomial_of_the_degree_of_the_course_gives_its_value_and_interpolation_nearly():
    exact = 3 - 0.333 + (0.333 / 2) ** 3
    assert curve().loss_at(3.33e10, "polynomial") == pytest.approx(exact, rel=1e-9)
    assert curve().loss_at(3.33e10) == pytest.approx(exact, rel=1e-4)
    assert curve().loss_at(1.01e11) is curve().loss_at(9e8, "polynomial") is None


def test_points_of_curves_are_those_budgets_that_a_run_passes():
    short = curve(parameters=2e4, flops=np.linspace(1e9, 2e10, 40), epochs_at_end=10.0)
    points = points_of_curves([curve(epochs_at_end=10.0, seed=3), short], [1e10, 5e10])
    assert points.parameters.tolist() == [1e4, 1e4, 2e4]
    assert points.flops.tolist() == [1e10, 5e10, 1e10]
    assert points.tokens[:2] == pytest.approx([1e10 / 6e4, 5e10 / 6e4])
    assert points.epochs[0] == pytest.approx(1.0)
    assert points.seed.tolist() == [3, 3, 0]
    assert points.all_parameters is None


def test_a_curve_that_cannot_be_read_is_named():
    with pytest.raises(DataError, match="FLOPs that rise"):
        curve(flops=np.linspace(1e11, 1e9, 40))
    with pytest.raises(DataError, match="degree 5"):
        curve(flops=np.arange(1, 4), tokens=np.arange(1, 4), loss=np.ones(3)).loss_at(2, "polynomial")
    with pytest.raises(DataError, match="no run passes"):
        points_of_curves([curve()], [1e15])
