"""A whole study on tiny models: it goes on where it was stopped, trains every run once, and finds what its runs say."""

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from windtunnel.errors import ConfigError, DataError
from windtunnel.files import write_text
from windtunnel.scaling import study as study_file
from windtunnel.scaling.fit import fit_scaling
from windtunnel.scaling.hold_out import hold_out
from windtunnel.scaling.plan import HOLD_OUT_STEP
from windtunnel.scaling.points import read_points
from windtunnel.scaling.runner import Cut, Runner
from windtunnel.scaling.study import Asked, plan_study, run_study, study_folder
from windtunnel.stats.intervals import Estimate
from windtunnel.training.disk import read_sealed, sealed
from windtunnel.training.events import Step
from windtunnel.training.run import open_run

ASKED = Asked(minutes=0.2, seeds=1, budgets=3, hold_out=1, repeat_data=True, fewest_steps=3)
PACE = {"steps": [[1e5, 1e-3], [1e7, 2e-3], [1e9, 1e-1]], "overhead": 0.05, "at_once": 2}


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
def whole(base, here, tmp_path_factory):
    """A study that was stopped after 3 runs, and again after 10 more: (study, what it found, folders trained)."""
    root, trained = tmp_path_factory.mktemp("runs"), []
    for at_most in (3, 10):
        executor = here(at_most)
        with pytest.raises(Cut, match=r"^stopped and saved$"):
            last(run_study(planned(base, root), Runner(root, executor), samples=100))
        trained += executor.trained
        assert len(executor.trained) == at_most
    executor = here()
    study = planned(base, root)
    found = last(run_study(study, Runner(root, executor), samples=100))
    return study, found, trained + executor.trained


def test_every_run_is_trained_once(whole, base, here):
    study, found, trained = whole
    assert set(Counter(trained).values()) == {1}
    searched = sum(len(of) for one in found.searched for of in one.losses.values())
    swept = sum(len(of) for sweep in found.sweeps for of in sweep.losses.values())
    held = sum(map(len, found.hold_out.losses.values())) if not isinstance(found.hold_out, str) else 0
    assert searched + held <= len(trained) <= swept + searched + held  # a sweep's run may be one of the search's
    executor = here()
    root = study.folder.parent
    again = last(run_study(planned(base, root), Runner(root, executor), samples=100))
    assert executor.trained == []
    assert again.to_dict() == found.to_dict()


def test_the_draws_behind_the_hold_out_are_those_that_are_asked_for(whole, base, here):
    study, found, _ = whole
    again = last(run_study(planned(base, study.folder.parent), Runner(study.folder.parent, here()), 200, 1))
    parabolas = {seed: fit_scaling(found.points, samples=200, seed=seed, repeat_data=True).parabolas for seed in (0, 1)}
    assert again.scaling.parabolas == parabolas[1] != parabolas[0]


def test_the_points_are_the_runs_next_to_the_best(whole):
    study, found, _ = whole
    points = read_points(study.folder / "points.csv")
    assert points.budgets == pytest.approx(study.plan.budgets)
    for one in found.searched:
        here = points.nominal == one.budget
        assert set(points.parameters[here]) == {size.parameters for size in one.sizes}
        assert points.flops[here] == pytest.approx(one.budget, rel=0.1)  # whole steps, of which there are 5 or more
    n_seeds = [1, 1, 1]
    assert [int((points.nominal == c).sum()) for c in points.budgets] == [5 * n for n in n_seeds]
    assert points.epochs * study.plan.design.unique == pytest.approx(points.tokens)
    assert list(points.loss) == list(found.points.loss)


def test_the_file_of_the_study_holds_what_was_found(whole):
    study, found, _ = whole
    body = read_sealed(study.folder / "study.json")
    assert body["asked"]["minutes"] == 0.2
    assert len(body["found"]["sweeps"][0]["runs"]) >= 9
    assert [one["budget"] for one in body["found"]["searched"]] == pytest.approx(study.plan.budgets)
    assert body["found"]["searched"][0]["best"] == found.searched[0].best
    assert body["pace"]["overhead"] == 0.05


def test_the_hold_out_trains_the_forecast_size_and_its_neighbours(whole, here):
    study, _, _ = whole
    design = study.plan.design
    size, band = design.size(3), Estimate(1.5, 1.0, 2.0, 15, "")
    forecast = SimpleNamespace(
        compute=1e8, loss=None, law_loss=band, parameters=replace(band, estimate=1.1 * size.parameters)
    )
    executor = here()
    held = last(hold_out(design, forecast, range(2), Runner(study.folder.parent, executor)))
    assert len(executor.trained) == 6
    assert list(held.losses) == [design.smaller(size).parameters, size.parameters, design.larger(size).parameters]
    assert held.size == size
    assert held.measured.estimate == pytest.approx(sum(held.losses[size.parameters]) / 2)
    assert (held.predicted, held.by) == (band, "parametric law")
    assert held.verdict == "undecided"
    for folder in executor.trained:
        run = open_run(folder)
        assert sum(e.n_tokens for e in run.events("step") if isinstance(e, Step)) * design.nearest(
            run.config.model.n_parameters(embeddings=False)
        ).flops == pytest.approx(1e8, rel=0.05)
    nothing = SimpleNamespace(compute=1e8, loss=band, law_loss=band, parameters=None)
    assert "no size is forecast" in last(hold_out(design, nothing, range(2), None))


def test_a_hold_out_can_be_added_and_left_out(whole, base):
    study, _, _ = whole
    root, found = study.folder.parent, read_sealed(study.folder / "study.json")["found"]
    without = planned(base, root, replace(ASKED, hold_out=0))
    assert without.folder == study.folder
    assert without.plan.hold_out is None
    assert without.plan.budgets == study.plan.budgets
    assert study.plan.leaves_time
    assert not without.plan.leaves_time
    four = planned(base, root, replace(ASKED, hold_out=4))
    assert (four.plan.hold_out.seeds, four.plan.budgets) == (4, study.plan.budgets)
    assert not four.plan.leaves_time
    assert four.plan.hold_out.budget == HOLD_OUT_STEP * study.plan.budgets[-1]
    assert read_sealed(study.folder / "study.json")["found"] == found  # which a plan alone does not undo


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"minutes": 1e300}, "at most 1e+06, given 1e+300"),
        ({"minutes": float("nan")}, "given nan"),
        ({"budgets": 1000}, "12 are the most; given 1000"),
    ],
)
def test_what_no_study_can_be_is_refused_before_anything_is_timed(base, tmp_path, given, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        next(plan_study(base, replace(ASKED, **given), None, 2, tmp_path))
    assert not any(tmp_path.iterdir())


def said(generator):
    """The sentences of a generator until it ends or raises, and what it returned or raised."""
    told = []
    while True:
        try:
            news = next(generator)
        except StopIteration as end:
            return told, end.value
        except (ConfigError, DataError) as error:
            return told, error
        if isinstance(news, str):
            told.append(news)


def test_the_timing_of_a_refused_plan_is_that_of_the_next_one(base, here, tmp_path, monkeypatch):
    monkeypatch.setattr(study_file, "ALIKE", 1e9)  # how fast this machine is must not matter
    few, executor = replace(ASKED, minutes=0.001), here()
    told, error = said(plan_study(base, few, executor, 2, tmp_path))
    folder = study_folder(base, few, tmp_path)
    assert "is too few" in str(error)
    assert told == [f"the plan is refused; its timing is kept in {folder}"]
    assert read_sealed(folder / "study.json")["refused"] == str(error)
    n_timed = len(executor.trained)
    assert n_timed > 1
    enough = replace(few, minutes=int(str(error).split("takes ")[1].split()[0]))
    again, study = said(plan_study(base, enough, None, 2, tmp_path))  # without an executor, so that nothing is timed
    assert again == [f"the timing is that of {folder}, whose plan was refused; delete that folder to time again"]
    assert study.plan.minutes <= enough.minutes
    assert study.plan.pace.steps == study_file._known(study.folder)[0].steps
    other, _ = said(plan_study(base, enough, None, 1, tmp_path))
    assert other == ["the minutes are those of 2 runs at once, as it was when they were timed, and not of 1"]
    monkeypatch.setattr(study_file, "ALIKE", 2.0)
    assert said(plan_study(base, replace(enough, minutes=3 * enough.minutes), executor, 2, tmp_path))[0] == []
    assert len(executor.trained) > n_timed
