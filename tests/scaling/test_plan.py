"""A plan follows from the minutes and the pace, without training anything."""

import pytest

from windtunnel.errors import ConfigError, DataError
from windtunnel.scaling.design import make_design
from windtunnel.scaling.foresight import foresee
from windtunnel.scaling.pace import Pace, makespan, time_sizes
from windtunnel.scaling.plan import make_plan

PACE = Pace(((1e5, 1e-3), (1e7, 1e-3), (1e9, 1e-1)), overhead=0.5, at_once=2)


@pytest.fixture(scope="module")
def design(base):
    return make_design(base, 5000)


def test_a_step_takes_what_was_timed(design):
    assert PACE.step(1e4) == pytest.approx(1e-3)  # overhead
    assert PACE.step(1e8) == pytest.approx(1e-2)
    assert PACE.step(1e10) == pytest.approx(1.0)


def test_runs_share_the_machine():
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 3], 2) == 4
    assert makespan([], 2) == 0


@pytest.mark.parametrize("hold_out", [0, 1, 4])
def test_the_budgets_fill_the_minutes(design, hold_out):
    plan = make_plan(design, PACE, 30, hold_out=hold_out, repeat_data=True)
    assert 0.8 * 30 < plan.minutes <= 30
    ratios = [b / a for a, b in zip(plan.budgets, plan.budgets[1:], strict=False)]
    assert ratios == pytest.approx([10**0.5] * 3)
    assert [row.seeds for row in plan.rows] == [3, 3, 1, 1]
    assert plan.sweep.budget == plan.budgets[0]
    if hold_out:
        assert plan.hold_out.budget == pytest.approx(4 * plan.budgets[-1])
        assert (len(plan.hold_out.sizes), plan.hold_out.seeds) == (3, hold_out)
    else:
        assert plan.hold_out is None
    spent = sum(row.n_runs * row.budget for row in plan.parts)
    fits = 5 * (3 / 1000**0.5 + 3 / 10 + 1 / 10**0.5 + 1) + 9 / 1000**0.5 + 2 / 10 + 2 / 10**0.5
    assert plan.flops == spent == pytest.approx((fits + 12 * hold_out) * plan.budgets[-1])


def test_the_minutes_are_those_of_the_runs(design):
    plan = make_plan(design, PACE, 30, repeat_data=True)
    row = plan.rows[-1]
    times = [PACE.run(design, size, row.budget) for size in row.sizes]
    assert row.minutes == pytest.approx((makespan(times, 2) + times[0]) / 60)
    size = row.sizes[2]
    a_step = size.flops * 8 * 8  # 8 examples of 8 tokens
    steps = row.budget / a_step
    dev = design.task.totals("dev")["targets"] * size.flops / 3 / a_step
    assert PACE.run(design, size, row.budget) == pytest.approx((steps + dev) * PACE.step(a_step) + 0.5)


def test_too_few_minutes_are_refused_with_those_it_takes(design):
    with pytest.raises(ConfigError, match=r"--minutes 0\.1 is too few: .* at least 500 steps, takes \d+ minutes here"):
        make_plan(design, PACE, 0.1)
    for wrong in ({"minutes": 0}, {"minutes": 30, "n_budgets": 2}, {"minutes": 30, "seeds": 0}):
        with pytest.raises(ConfigError, match=r"expected|at least 3 budgets"):
            make_plan(design, PACE, **wrong)


def test_text_that_would_be_read_five_times_is_refused_with_the_minutes_that_fit(base):
    design = make_design(base, 5000, fewest_steps=20)
    asked = make_plan(design, PACE, 60, repeat_data=True)
    assert asked.epochs > 4
    with pytest.raises(DataError, match=r"read its 2\d\d,\d{3} tokens \d+\.\d times.*--minutes [\d.]+ would") as told:
        make_plan(design, PACE, 60)
    fits = float(str(told.value).split("--minutes ")[1].split()[0])
    assert make_plan(design, PACE, fits).epochs <= 4
    with pytest.raises(DataError, match="no smaller study would fit; or give more text"):
        make_plan(make_design(base, 5000), PACE, 60)


def test_sizes_are_timed_on_the_executor_and_leave_nothing(base, here, tmp_path):
    design = make_design(base, 5000)
    sizes = [design.size(1), design.size(8)]
    *events, pace = time_sizes(design, sizes, here(), 1, tmp_path / "pace")
    assert not (tmp_path / "pace").exists()
    flops, seconds = zip(*pace.steps, strict=True)
    assert flops == pytest.approx([sizes[0].flops * 8, sizes[0].flops * 64, sizes[1].flops * 64])  # batches 1, 8 and 8
    assert list(seconds) == sorted(seconds)
    assert pace.overhead >= 0
    assert pace.at_once == 1
    assert {label for label, _ in events} == {
        "timing 792 parameters, batch 1",
        "timing 792 parameters, batch 8",
        f"timing {sizes[1].parameters:,} parameters, batch 8",
    }


def test_the_expected_interval_is_said(design):
    plan = make_plan(design, PACE, 30, repeat_data=True)
    little, much = foresee(plan)
    assert 0.01 < little.planned.exponent < much.planned.exponent < 0.2
    assert "the exponent of N*(C) to +- 0.0" in str(little)
    assert "as many seeds at every budget would make it" in str(much)
