"""What a sweep of the learning rate concludes from losses that are given."""

import math
from dataclasses import replace

import pytest

from windtunnel.scaling.design import RateRule, make_design
from windtunnel.scaling.sweep import best_rate, conclude_budget, conclude_width

RULE = RateRule(lr=1e-3, matrix_lr=2e-2, width=16, batch=8, tokens=1e6)


@pytest.fixture(scope="module")
def sizes(base):
    design = make_design(base, 5000)
    return [design.size(n) for n in (2, 4, 8)]


def valley(best, factors=(0.5, 1, 2, 4)):
    """Losses that are a parabola in the logarithm of the factor."""
    return {f: 2 + 0.1 * math.log(f / best) ** 2 for f in factors}


def test_the_best_rate():
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    assert best_rate({lr: math.log(lr / 3e-3) ** 2 for lr in rates}) == pytest.approx(3e-3)
    assert best_rate({lr: lr for lr in rates}) == 1e-3
    assert best_rate({lr: -lr for lr in rates}) == 8e-3
    assert best_rate({1e-3: 2.0, 2e-3: 1.0, 4e-3: math.inf}) == 2e-3


def test_sizes_that_agree_keep_the_power_and_move_the_rate(sizes):
    best = (1.2, 1.5, 1.8)
    losses = {size.parameters: valley(b) for size, b in zip(sizes, best, strict=True)}
    found = conclude_width(RULE, sizes, losses, 1e9)
    assert found.holds
    assert found.edge == ()
    assert list(found.best.values()) == pytest.approx(best)
    assert found.rule.power == 0.5
    assert found.rule.lr == pytest.approx(1e-3 * (1.2 * 1.5 * 1.8) ** (1 / 3))
    assert found.budget == 1e9
    assert "agree within a factor of 2" in str(found)


def test_sizes_that_differ_change_the_power(sizes):
    losses = {size.parameters: valley(2 * (size.width / 16) ** -0.7, (0.25, 0.5, 1, 2, 4)) for size in sizes}
    found = conclude_width(replace(RULE, power=0.2), sizes, losses, 1e9)
    assert not found.holds
    assert found.rule.power == pytest.approx(0.9)
    assert found.rule.lr == pytest.approx(2e-3)
    for size in sizes:
        assert found.rule.at(size.width, 8, 1e6) == pytest.approx(1e-3 * 2 * (size.width / 16) ** -0.9)


@pytest.mark.parametrize(("slope", "power"), [(1.5, 0.0), (-1.5, 1.0)])
def test_the_power_stays_between_0_and_1(sizes, slope, power):
    losses = {
        size.parameters: valley((size.width / sizes[1].width) ** slope, (1 / 16, 1 / 8, 0.25, 0.5, 1, 2, 4, 8, 16))
        for size in sizes
    }
    found = conclude_width(RULE, sizes, losses, 1e9)
    assert found.rule.power == power
    middle = sizes[1].width
    assert found.rule.at(middle, 8, 1e6) == pytest.approx(RULE.at(middle, 8, 1e6))


def test_a_best_rate_at_the_edge_is_told(sizes):
    losses = {size.parameters: valley(1) for size in sizes}
    losses[sizes[0].parameters] = {0.5: 3.0, 1: 2.0, 2: 1.0}
    found = conclude_width(RULE, sizes, losses, 1e9)
    assert found.edge == (sizes[0].parameters,)
    assert found.best[sizes[0].parameters] == 2
    assert "at the edge of the sweep" in str(found)


def test_a_rate_that_diverged_is_no_neighbour(sizes):
    losses = {size.parameters: {0.5: 2.1, 1: 2.0, 2: math.inf} for size in sizes}
    assert set(conclude_width(RULE, sizes, losses, 1e9).best.values()) == {1}


def test_a_further_budget_keeps_the_rule_or_moves_it(sizes):
    near = conclude_budget(RULE, sizes[:1], {sizes[0].parameters: valley(1.3)}, 1e10)
    assert near.holds
    assert near.rule == RULE
    assert "the rule holds at this budget" in str(near)
    far = conclude_budget(RULE, sizes[:1], {sizes[0].parameters: valley(0.5, (0.25, 0.5, 1, 2))}, 1e10)
    assert not far.holds
    assert (far.rule.lr, far.rule.matrix_lr) == pytest.approx((0.5e-3, 1e-2))
    assert far.rule.power == RULE.power
    assert "x 0.5 at 3,120 parameters, so from here on the rule has that rate" in str(far)
