"""A finished run that goes on: the longer run is what its settings say, and the shorter one stays as it was."""

import json

import pytest
import torch

from windtunnel.config import fingerprint, override, parse
from windtunnel.errors import ConfigError
from windtunnel.runs.extend import extend_seeds
from windtunnel.runs.seeds import create_seeds, is_finished
from windtunnel.training.checkpoint import newest_checkpoint
from windtunnel.training.loop import resume
from windtunnel.training.recipes import mlp, tiny
from windtunnel.training.run import best_step, load, open_run
from windtunnel.training.run_config import RunConfig
from windtunnel.training.schedule import ScheduleConfig, learning_rate

SMALL = [
    "train.steps=4", "model.d_model=16", "model.n_layers=1", "train.threads=1", "train.sample_tokens=0",
    "train.precision=fp32", "train.compile=false", "schedule.warmup=1", "train.eval_tokens=1000",
]  # fmt: skip


def train(folder):
    for _ in resume(folder):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder,) = create_seeds(override(tiny("names"), SMALL), [1])
    train(folder)
    return folder


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_extended_run_has_the_weights_of_one_that_its_settings_describe(run, tmp_path):
    before = everything(run)
    (extended,) = extend_seeds([run], 7)
    train(extended.folder)
    longer = open_run(extended.folder)
    assert (longer.config.train.steps, longer.config.schedule.ends, longer.config.seed) == (7, (4,), 1)
    assert is_finished(longer)
    (whole,) = create_seeds(longer.config, [1], tmp_path / "whole")
    train(whole)
    a, b = newest_checkpoint(extended.folder), newest_checkpoint(whole)
    assert (a.step, b.step) == (7, 7)
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in b.weights)
    rates = [event.lr for event in longer.events("step")]
    assert rates == [event.lr for event in open_run(whole).events("step")]
    assert [event.step for event in longer.events("step")] == [1, 2, 3, 4, 5, 6, 7]
    assert everything(run) == before
    assert longer.record["extends"] == {
        "run": str(run.resolve()), "config_sha256": open_run(run).record["config_sha256"], "steps": 4,
    }  # fmt: skip


def test_an_extended_run_is_no_other_run_of_as_many_steps(run):
    (extended,) = extend_seeds([run], 7)
    at_once = override(open_run(run).config, ["train.steps=7"])
    assert fingerprint(at_once) != open_run(extended.folder).record["config_sha256"]
    assert create_seeds(at_once, [1])[0].parent != extended.folder.parent


def test_the_best_checkpoint_of_a_run_stays_the_best_of_the_longer_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overfits = ["train.keep=best", "train.eval_every=1", "train.clip=none", "train.n_examples=2", "train.steps=8"]
    more = ["optimizer.lr=0.05", "schedule.curve=constant", "train.explode=1e9"]
    (folder,) = create_seeds(override(tiny("names"), [*SMALL, *overfits, *more]), [0])
    train(folder)
    best = best_step(open_run(folder))
    assert best < 8
    (extended,) = extend_seeds([folder], 9)
    train(extended.folder)
    assert best_step(open_run(extended.folder)) == best
    assert load(extended.folder).step == best


def test_it_is_found_again_and_extended_again(run):
    (first,) = extend_seeds([run], 6)
    train(first.folder)
    assert extend_seeds([run], 6) == [first]
    (second,) = extend_seeds([first.folder], 8)
    train(second.folder)
    assert open_run(second.folder).config.schedule.ends == (4, 6)
    rates = [event.lr for event in open_run(second.folder).events("step")]
    config = ScheduleConfig(warmup=1)
    expected = [learning_rate(step, 4 if step < 4 else 6 if step < 6 else 8, 1.0, config) for step in range(8)]
    assert [rate / rates[0] for rate in rates] == pytest.approx([rate / expected[0] for rate in expected])


def test_what_cannot_be_extended_is_refused(run):
    with pytest.raises(ConfigError, match="has 4 steps already, given --steps 4"):
        extend_seeds([run], 4)
    (unfinished,) = create_seeds(override(tiny("names"), SMALL), [2])
    with pytest.raises(ConfigError, match="has not finished its 4 steps; first: windtunnel resume"):
        extend_seeds([run, unfinished], 9)
    assert len(list(run.parent.parent.glob("*"))) == 1  # nothing was written for the first of the two
    (script,) = create_seeds(mlp("names").replace(generator=3), [0])
    with pytest.raises(ConfigError, match="replays a script, generator=3"):
        extend_seeds([script], 9)


def test_ends_must_rise_and_keep_best_is_choose_best():
    with pytest.raises(ConfigError, match=r"schedule\.ends must rise and stay below train\.steps, given 4, 4"):
        override(tiny("names"), ["train.steps=4", "schedule.ends=[4]"])
    best = override(tiny("names"), ["train.keep=best"])
    assert fingerprint(best) == fingerprint(override(tiny("names"), ["train.choose=best"]))
    assert fingerprint(parse(RunConfig, json.loads('{"corpus": "names"}'))) == fingerprint(
        parse(RunConfig, {"corpus": "names", "schedule": {"ends": ()}})
    )
