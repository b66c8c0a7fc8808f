"""Calibration: probabilities that come true have no error, and a temperature undoes what was multiplied."""

import numpy as np
import pytest

from windtunnel.stats.calibration import answered, reliability, surest, temperature, tempered


def drawn(n=20_000, labels=3, seed=0):
    """Probabilities, and labels that are drawn with them."""
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.full(labels, 0.7), n)
    return p, (p.cumsum(axis=1) < draw.random(n)[:, None]).sum(axis=1)


def test_probabilities_that_come_true_have_nearly_no_error():
    p, labels = drawn()
    found = reliability(p, labels)
    assert found.error < 0.01
    assert found.n.sum() == len(labels)
    assert temperature(p, labels) == pytest.approx(1, abs=0.05)


def test_the_error_by_hand():
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [1.0, 0.0]])
    found = reliability(p, np.array([0, 1, 1, 0]))
    assert found.n.tolist() == [1, 3]
    assert found.error == pytest.approx((abs(1 - 0.65) + 3 * abs(2 / 3 - (0.95 + 0.95 + 1) / 3)) / 4)


@pytest.mark.parametrize("t", [0.4, 2.5])
def test_a_temperature_is_found_again(t):
    p, labels = drawn()
    off = tempered(p, 1 / t)
    assert temperature(off, labels) == pytest.approx(t, rel=0.05)
    np.testing.assert_allclose(tempered(off, t), p, atol=1e-9)


def test_a_threshold_leaves_the_surest_and_their_accuracy_by_hand():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55], [0.8, 0.2]])
    labels = np.array([0, 1, 1, 1, 1])
    found = answered(p, labels, 0.8)
    assert (found.share.estimate, found.accuracy.estimate) == (3 / 5, 2 / 3)
    assert found.accuracy.low < 2 / 3 < found.accuracy.high
    assert answered(p, labels, 0.95).accuracy is None
    assert answered(p, labels, 0.0).accuracy.estimate == 3 / 5
    half, most, whole = surest(p, labels, (0.2, 0.8, 1.0))
    assert (half.threshold, half.share.estimate, half.accuracy.estimate) == (0.9, 1 / 5, 1.0)
    assert (most.threshold, most.share.estimate, most.accuracy.estimate) == (0.6, 4 / 5, 2 / 4)
    assert whole.share.estimate == 1
    tied = surest(p, labels, (0.4,))[0]
    assert tied.share.estimate == 3 / 5
