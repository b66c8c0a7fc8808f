"""The search of the best size, where a known law stands for the training: it brackets what the first guess misses."""

import math
from dataclasses import replace

import pytest

from windtunnel.errors import ConfigError
from windtunnel.scaling.design import SIZES, make_design
from windtunnel.scaling.search import first_sizes, next_center, search
from windtunnel.scaling.simulate import Law

BUDGET = 1e11


class Lawful:
    """Gives the losses of a law for a runner's, and counts the runs."""

    def __init__(self, law, design, tilt=0.0):
        self.law, self.design, self.tilt, self.runs = law, design, tilt, []

    def losses(self, arms, seeds):
        yield from ()
        found = {}
        for arm in arms:
            n = arm.config.model.n_parameters(embeddings=False)
            for seed in seeds:
                self.runs.append((n, seed))
                loss = float(self.law.loss(n, self.design.tokens(self.design.nearest(n), BUDGET)))
                found[arm.name, seed] = loss + self.tilt * seed * math.log(n)
        return found


def searched(design, best, center, seeds=(0,), tilt=0.0, repeat_data=True):
    law = Law.through(BUDGET, best)
    runner, said = Lawful(law, design, tilt), []
    steps = search(design, BUDGET, center, seeds, runner, repeat_data)
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return end.value, runner.runs, said


@pytest.fixture(scope="module")
def design(base):
    return make_design(base, 5000)


def test_a_good_guess_needs_five_runs(design):
    found, runs, said = searched(design, 3e4, 3e4)
    assert len(runs) == SIZES
    assert found.bracketed
    assert said == []
    assert found.sizes == design.around(3e4)
    assert found.best == pytest.approx(3e4, rel=0.35)  # the law's D is not quite C / 6N


@pytest.mark.parametrize("center", [3e3, 3e5])
def test_sizes_are_added_until_the_best_has_neighbours(design, center):
    found, runs, said = searched(design, 3e4, center)
    assert found.bracketed
    assert len(runs) == SIZES + len(said) > SIZES
    assert all("the best size is at the edge" in one for one in said)
    assert found.sizes[0].parameters < found.best < found.sizes[-1].parameters
    assert len(found.sizes) == SIZES
    assert found.best == pytest.approx(3e4, rel=0.35)


def test_further_seeds_are_trained_next_to_the_best_alone(design):
    found, runs, _ = searched(design, 3e4, 4e5, seeds=(0, 1, 2))
    fitted = {size.parameters for size in found.sizes}
    assert {n for n, seed in runs if seed} == fitted
    assert len([n for n, seed in runs if seed == 0]) > len(fitted)
    assert all(len(found.losses[size]) == 3 for size in found.sizes)


def test_seeds_that_move_the_best_to_the_edge_add_sizes(design):
    still, *_ = searched(design, 3e4, 3e4, seeds=(0, 1, 2))
    found, _, said = searched(design, 3e4, 3e4, seeds=(0, 1, 2), tilt=0.5)
    assert len(said) > 0
    assert found.sizes[0].parameters < still.sizes[0].parameters
    assert all(len(found.losses[size]) == 3 for size in found.sizes)


def test_what_cannot_be_bracketed_says_why(design):
    found, _, _ = searched(design, 100, 3e4)
    assert not found.bracketed
    assert found.why == "there is no smaller size on the dial"
    assert "not bracketed (there is no smaller size on the dial)" in found.said
    found, runs, _ = searched(design, 100, 3e5, repeat_data=False)
    assert "a smaller size would read its text" in found.why
    assert all(design.epochs(design.nearest(n), BUDGET) <= 4 for n, _ in runs)
    found, _, _ = searched(design, 1e9, 3e5)
    assert found.why in ("a larger size would have fewer than 500 steps", "8 sizes were added already")


def test_the_next_budget_is_looked_at_where_the_last_ones_lead(design):
    found, *_ = searched(design, 3e4, 3e4)
    assert next_center([found], 10 * BUDGET) == pytest.approx(found.best * 10**0.5)


@pytest.mark.parametrize("tilt", [0.02, 0.05, 0.1, 0.2])
def test_seeds_that_move_the_best_take_its_neighbours_with_them(design, tilt):
    found, *_ = searched(design, 3e4, 4e5, seeds=(0, 1, 2), tilt=tilt)
    assert all(len(found.losses[size]) == 3 for size in found.sizes)
    best = min(found.sizes, key=lambda size: sum(found.losses[size].values()))
    assert best not in (found.sizes[0], found.sizes[-1])


def test_sizes_that_cannot_be_trained_are_not_begun(design, base):
    """A guess that is far too large, or too small for the text there is, moves to where runs are possible."""
    large = first_sizes(design, BUDGET, 1e9, repeat_data=True)
    assert len(large) == SIZES
    assert all(design.arm(size, BUDGET).config.train.steps >= 500 for size in large)
    with pytest.raises(ConfigError, match="fewer than 500 steps"):
        design.arm(design.larger(large[-1]), BUDGET)
    small = first_sizes(design, BUDGET, 100, repeat_data=False)
    assert len(small) == SIZES
    assert all(design.epochs(size, BUDGET) <= 4 for size in small)
    assert design.epochs(design.smaller(small[0]), BUDGET) > 4
    config = base.config.replace(train=base.config.train.replace(n_examples=10))
    with pytest.raises(ConfigError, match=r"no size fits 1e\+11 FLOPs: a smaller size would read its text"):
        first_sizes(make_design(replace(base, config=config), 5000), BUDGET, 100, repeat_data=False)
