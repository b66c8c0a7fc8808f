"""The mean with its t interval."""

import math

import numpy as np
import pytest
from scipy import stats

from windtunnel.stats.intervals import mean_interval


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 4, 33])
def test_equals_scipy(n, confidence):
    values = np.random.default_rng(n).normal(2, 0.3, n)
    found = mean_interval(values.tolist(), confidence)
    expected = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-10)
    assert (found.estimate, found.n) == (pytest.approx(values.mean()), n)


def test_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1.0, 2.0, (4000, 4))
    found = [mean_interval(row.tolist()) for row in draws]
    covered = sum(e.low <= 1.0 <= e.high for e in found) / len(found)
    assert 0.935 < covered < 0.965


def test_one_value_has_no_interval():
    found = mean_interval([2.5])
    assert found.estimate == 2.5
    assert math.isnan(found.low)
    assert "no interval" in str(found)


@pytest.mark.parametrize(("values", "confidence"), [([], 0.95), ([1.0, 2.0], 1.0), ([1.0, 2.0], 0.0)])
def test_what_has_no_mean_or_no_confidence_is_refused(values, confidence):
    with pytest.raises(ValueError, match="expected values"):
        mean_interval(values, confidence)
