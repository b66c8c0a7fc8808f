"""A whole study on tiny models: it goes on where it was stopped, trains every run once, and finds what its runs say."""

from collections import Counter
from dataclasses import replace

import pytest

from windtunnel.files import write_text
from windtunnel.scaling.plan import HOLD_OUT_STEP
from windtunnel.scaling.points import read_points
from windtunnel.scaling.runner import Cut, Runner
from windtunnel.scaling.study import Asked, plan_study, run_study, study_folder
from windtunnel.training.disk import read_sealed, sealed

ASKED = Asked(minutes=0.4, seeds=2, budgets=3, hold_out=1, repeat_data=True, fewest_steps=5)
PACE = {"steps": [[1e5, 1e-3], [1e7, 2e-3], [1e9, 1e-1]], "overhead": 0.1, "at_once": 2}


def last(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def planned(base, root, asked=ASKED):
    """The study, with a pace that its folder knows."""
    folder = study_folder(base, asked, root)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "study.json").exists():
        write_text(folder / "study.json", sealed({"pace": PACE, "minutes_include_hold_out": 1}).decode())
    return last(plan_study(base, asked, None, 2, root))


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A study that was stopped after 3 runs, and again after 10 more: (study, what it found, folders trained)."""
    from conftest import Here

    root, trained = tmp_path_factory.mktemp("runs"), []
    for at_most in (3, 10):
        here = Here(at_most)
        with pytest.raises(Cut):
            last(run_study(planned(base, root), Runner(root, here), samples=100))
        trained += here.trained
        assert len(here.trained) == at_most
    here = Here()
    study = planned(base, root)
    found = last(run_study(study, Runner(root, here), samples=100))
    return study, found, trained + here.trained


def test_every_run_is_trained_once(whole, base):
    study, found, trained = whole
    assert set(Counter(trained).values()) == {1}
    searched = sum(len(of) for one in found.searched for of in one.losses.values())
    swept = sum(len(of) for sweep in found.sweeps for of in sweep.losses.values())
    held = sum(map(len, found.hold_out.losses.values())) if not isinstance(found.hold_out, str) else 0
    reused = sum(
        sweep.rule == sweep.before and n in {size.parameters for size in one.losses}
        for sweep, one in zip(found.sweeps, found.searched, strict=False)
        for n in sweep.losses
    )
    assert len(trained) == swept + searched + held - reused
    from conftest import Here

    here = Here()
    again = last(run_study(planned(base, study.root), Runner(study.root, here), samples=100))
    assert here.trained == []
    assert again.to_dict() == found.to_dict()


def test_the_points_are_the_runs_next_to_the_best(whole):
    study, found, _ = whole
    points = read_points(study.folder / "points.csv")
    assert points.budgets == pytest.approx(study.plan.budgets)
    for one in found.searched:
        here = points.nominal == one.budget
        assert set(points.parameters[here]) == {size.parameters for size in one.sizes}
        assert points.flops[here] == pytest.approx(one.budget, rel=0.1)  # whole steps, of which there are 5 or more
    n_seeds = [2, 2, 1]
    assert [int((points.nominal == c).sum()) for c in points.budgets] == [5 * n for n in n_seeds]
    assert points.epochs * study.plan.design.unique == pytest.approx(points.tokens)
    assert list(points.loss) == list(found.points.loss)


def test_the_file_of_the_study_holds_what_was_found(whole):
    study, found, _ = whole
    body = read_sealed(study.folder / "study.json")
    assert body["asked"]["minutes"] == 0.4
    assert len(body["found"]["sweeps"][0]["runs"]) >= 9
    assert [one["budget"] for one in body["found"]["searched"]] == pytest.approx(study.plan.budgets)
    assert body["found"]["searched"][0]["best"] == found.searched[0].best
    assert body["pace"]["overhead"] == 0.1


def test_a_hold_out_can_be_added_and_left_out(whole, base):
    study, _, _ = whole
    without = planned(base, study.root, replace(ASKED, hold_out=0))
    assert without.folder == study.folder
    assert without.plan.hold_out is None
    assert without.plan.budgets == study.plan.budgets
    four = planned(base, study.root, replace(ASKED, hold_out=4))
    assert (four.plan.hold_out.seeds, four.plan.budgets) == (4, study.plan.budgets)
    assert four.plan.hold_out.budget == HOLD_OUT_STEP * study.plan.budgets[-1]
