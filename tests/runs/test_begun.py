"""The same command finds the run that it began, whatever is measured of the machine since."""

import pytest

from windtunnel.comparison.plan import make_plan
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import make_grid
from windtunnel.runs.seeds import create_seeds
from windtunnel.text.corpora.cache import clear
from windtunnel.training import machine
from windtunnel.training.recipes import tiny
from windtunnel.training.run import open_run
from windtunnel.training.speed import keep

WIDE = override(tiny("names"), ["model.d_model=64", "model.n_layers=1", "train.compile=false"])
pytestmark = pytest.mark.skipif(machine.device().type != "cpu", reason="an accelerator is not measured")


@pytest.fixture(autouse=True)
def two_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "has_fast_bf16", lambda: True)
    measure_again("fp32 on 1 thread")


def measure_again(fastest):
    """Keep that a step takes a second in this way, and two in the others."""
    clear("speed")
    ways = [f"{precision} on {threads}" for precision in ("fp32", "bf16") for threads in ("1 thread", "2 threads")]
    keep({"64": {way: {"seconds": 1.0 if way == fastest else 2.0, "share": 1.0} for way in ways}})


def decided(folder):
    train = open_run(folder).config.train
    return train.precision, train.threads


@pytest.mark.parametrize("out", [None, "out"])
def test_another_measurement_begins_no_other_run(tmp_path, out):
    folder = None if out is None else tmp_path / out
    (first,) = create_seeds(WIDE, [0], folder)
    assert decided(first) == ("fp32", 1)
    measure_again("bf16 on 2 threads")
    again, more = create_seeds(WIDE, [0], folder)[0], create_seeds(WIDE, [1], folder)[0]
    assert (again, more.parent) == (first, first.parent)
    assert decided(more) == ("fp32", 1)


ARMS = [Arm(str(lr), override(WIDE, [f"optimizer.lr={lr}"])) for lr in (0.1, 0.2)]


@pytest.mark.parametrize("n_begun", [1, 2])
def test_the_arms_of_a_grid_keep_one_decision_if_all_began_with_it(n_begun):
    measure_again("bf16 on 1 thread")
    before = make_grid(ARMS, 2)
    for arm in ARMS[:n_begun]:
        before.begin(arm.name, 0)
    measure_again("fp32 on 1 thread")
    now, planned = make_grid(ARMS, 2), make_plan(ARMS, seeds=2).grid
    assert now.folders == planned.folders
    assert (now.folders == before.folders) == (n_begun == 2)
    precision = "bf16" if n_begun == 2 else "fp32"
    assert [arm.config.train.precision for arm in now.arms] == [precision, precision]


def test_a_grid_of_which_an_arm_began_as_it_is_measured_now_stays_so():
    measure_again("bf16 on 1 thread")
    before = make_grid(ARMS)
    measure_again("fp32 on 1 thread")
    make_grid(ARMS).begin(ARMS[0].name, 0)
    for arm in ARMS:
        before.begin(arm.name, 0)
    assert [arm.config.train.precision for arm in make_grid(ARMS).arms] == ["fp32", "fp32"]


def test_what_is_asked_for_is_never_taken_from_another_run():
    (first,) = create_seeds(WIDE, [0])
    measure_again("bf16 on 2 threads")
    (other,) = create_seeds(override(WIDE, ["train.precision=bf16"]), [0])
    assert decided(other) == ("bf16", 2)
    assert other.parent != first.parent
    (longer,) = create_seeds(override(WIDE, ["train.steps=3"]), [0])
    assert decided(longer) == ("bf16", 2)
    (now,) = create_seeds(WIDE, [0])  # of two that the command could have begun, that of today's measurement
    assert now == other


def test_runs_side_by_side_do_not_take_the_threads_of_one_that_ran_alone():
    measure_again("bf16 on 2 threads")
    (alone,) = create_seeds(WIDE, [0])
    both = create_seeds(WIDE, [0, 1])
    assert [decided(folder)[1] for folder in (alone, *both)] == [2, 1, 1]


def test_other_settings_in_the_folder_are_still_an_error(tmp_path):
    create_seeds(WIDE, [0], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"train\.steps"):
        create_seeds(override(WIDE, ["train.steps=3"]), [0], tmp_path / "out")
