"""Numbers as text: four decimals where they say something, and never the same text for different ends."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.stats.digits import ends, interval, number, p_is, p_value, plus_minus, probability
from windtunnel.stats.intervals import Estimate

FLOATS = st.floats(-1e308, 1e308)


def estimate(middle, low, high):
    return Estimate(middle, low, high, 3, "mean")


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (2.38861, "2.3886"), (0.0123, "0.0123"), (12345.678, "12345.6780"), (-1.5, "-1.5000"), (0, "0.0000"),
        (-0.0, "0.0000"), (1e-5, "1e-05"), (0.0003456, "0.000346"), (0.0005, "0.0005"), (-3e-12, "-3e-12"),
        (1e308, "1e+308"), (1.23456e11, "1.2346e+11"), (5e-324, "4.94e-324"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_number(x, shown):
    assert number(x) == shown


def test_number_with_a_sign_and_other_decimals():
    assert (number(0.5, sign=True), number(2e-7, sign=True)) == ("+0.5000", "+2e-07")
    assert (number(1.23456, 2), number(0.004, 2), number(0.06, 2, sign=True)) == ("1.23", "0.004", "+0.06")


@given(FLOATS.filter(bool))
def test_no_number_is_shown_as_zero_or_far_off(x):
    assert float(number(x)) == pytest.approx(x, rel=0.1)
    assert len(number(x)) <= 16


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ((0.1, 0.0829, 0.1202), "0.1000 [0.0829, 0.1202]"),
        ((0, -0.0012, 0.0034), "0.0000 [-0.0012, 0.0034]"),
        ((2.3886, 2.3883, 2.3889), "2.3886 [2.3883, 2.3889]"),
        ((2.3886, 2.38859, 2.38861), "2.388600 [2.388590, 2.388610]"),
        ((1e-5, 0, 5.3e-5), "0.0000100 [0.0000000, 0.0000530]"),
        ((1e-12, -1e-13, 3e-12), "1.00e-12 [-1.0e-13, 3.00e-12]"),
        ((0.005, 2e-32, 0.07), "0.0050 [0.0000, 0.0700]"),
        ((1e308, 1e308, 1e308), "1.0000e+308 [1.0000e+308, 1.0000e+308]"),
        ((0, 0, 0), "0.0000 [0.0000, 0.0000]"),
        ((0, -1e-300, 1e-300), "0 [-1.00e-300, 1.00e-300]"),
        ((0.5, -math.inf, math.inf), "0.5000 [-inf, inf]"),
        ((2e-7, math.nan, math.nan), "2e-07"),
    ],
)
def test_interval(found, shown):
    assert interval(estimate(*found)) == shown
    assert str(estimate(*found)).startswith(shown)


def test_interval_with_signs_and_in_parts():
    found = estimate(0.0012, -0.0004, 0.0028)
    assert interval(found, sign=True, between="\n") == "+0.0012\n[-0.0004, +0.0028]"
    assert ends(found, sign=True) == "[-0.0004, +0.0028]"
    assert plus_minus(found) == "0.0012 ±0.0016"
    assert plus_minus(replace(found, low=2.38859, estimate=2.3886, high=2.38861)) == "2.388600 ±0.000010"
    assert plus_minus(estimate(2.5, math.nan, math.nan)) == "2.5000"


@given(FLOATS, FLOATS, FLOATS)
def test_ends_that_differ_are_never_shown_alike(a, b, c):
    low, middle, high = sorted((a, b, c))
    if math.isinf(high - low):
        return
    first, second = ends(estimate(middle, low, high))[1:-1].split(", ")
    assert (first == second) == (low == high)
    assert float(first) <= float(second)


def test_p_values_and_probabilities_are_never_zero():
    assert [p_value(p) for p in (0.0312, 1, 1e-4, 9.9e-5, 0)] == ["0.031", "1", "0.0001", "< 1e-4", "< 1e-4"]
    assert (p_value(0.5, ".4f"), p_is(0.0312), p_is(1e-300, ".4g")) == ("0.5000", "p = 0.031", "p < 1e-4")
    assert [probability(p) for p in (0.81234, 0, 1, 0.99995)] == ["0.8123", "< 1e-4", "> 0.9999", "> 0.9999"]
