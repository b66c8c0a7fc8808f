"""The test of a forecast calls a size the best only when enough paired seeds show it."""

import math

import pytest

from windtunnel.scaling.design import Size
from windtunnel.scaling.hold_out import HoldOut, judge
from windtunnel.stats.intervals import Estimate, mean_interval

SEEDS = [0.01, -0.02, 0.015, -0.005]


def losses(**means):
    """Four seeds of each size, which share their noise but for a thousandth."""
    wiggle = [0.001, -0.001, 0.0005, -0.0005]
    return {
        int(n[1:]): tuple(mean + s + w * i for s, w in zip(SEEDS, wiggle, strict=True))
        for i, (n, mean) in enumerate(means.items())
    }


def test_the_best_has_the_lowest_loss_in_four_paired_seeds():
    assert judge(losses(n1=2.02, n2=2.0, n4=2.03), 2)[0] == "the best of them"


def test_a_neighbour_that_ends_lower_is_named():
    verdict, why = judge(losses(n1=2.02, n2=2.0, n4=1.97), 2)
    assert verdict == "not the best of them"
    assert why == "4 parameters end lower in 4 paired seeds"


def test_equal_sizes_are_undecided():
    verdict, why = judge(losses(n1=2.0, n2=2.0, n4=2.05), 2)
    assert verdict == "undecided"
    assert why == "4 paired seeds do not tell it from 1 parameters"


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_than_four_seeds_decide_nothing(n):
    few = {size: of[:n] for size, of in losses(n1=3.0, n2=2.0, n4=3.0).items()}
    verdict, why = judge(few, 2)
    assert verdict == "undecided"
    assert "at least 4 (--hold-out-seeds 4)" in why


def test_a_run_that_diverged_decides_nothing():
    assert judge({**losses(n1=2.0, n2=2.0), 4: (math.inf,) * 4}, 2) == ("undecided", "a run diverged")


def test_the_error_and_the_band_are_those_of_the_forecast_size():
    size = Size(8, 1, 1, 2, 3, 1.0)
    measured = mean_interval([2.02])
    held = HoldOut(
        1e9, size, Estimate(2.0, 1.95, 2.03, 20, ""), "envelope", measured, {2: (2.02,)}, "undecided", "one seed"
    )
    assert held.error == pytest.approx(0.01)
    assert held.inside
    assert "predicted 2.0000 [1.9500, 2.0300] by the envelope, measured 2.0200 (+1.00%), inside the band" in str(held)
    assert held.to_dict()["inside"] is True


def test_two_neighbours_are_judged_together():
    gaps = [0.01, 0.02, 0.03, 0.06]  # t = 2.78 with 3 degrees of freedom: p = .069; of the first three and .04: .026
    near = [0.01, 0.02, 0.03, 0.04]
    own = (2.0, 2.1, 2.2, 2.3)
    pair = {2: own, 4: tuple(o + g for o, g in zip(own, near, strict=True))}
    assert judge(pair, 2)[0] == "the best of them"
    assert judge({**pair, 1: tuple(o + 1 for o in own)}, 2)[0] == "undecided"
    assert judge({2: own, 4: tuple(o + g for o, g in zip(own, gaps, strict=True))}, 2)[0] == "undecided"
