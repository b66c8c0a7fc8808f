"""A grid is trained without a baseline, found again wherever below its root it is, and each of its runs opened once."""

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from windtunnel.comparison.judging import conclude
from windtunnel.comparison.plan import make_plan
from windtunnel.errors import ConfigError
from windtunnel.models import TransformerConfig
from windtunnel.runs.arms import Arm
from windtunnel.runs.grid import is_done, make_grid, train_grid
from windtunnel.text.store import TextConfig
from windtunnel.training import run
from windtunnel.training.events import Step, Stopped
from windtunnel.training.run_config import RunConfig, TrainConfig


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """One way to train on each of two corpora: their held-out texts differ, so nothing of them can be compared."""
    folder, made = tmp_path_factory.mktemp("corpora"), []
    for letters in ("abc", "xyz"):
        corpus = folder / f"{letters}.txt"
        corpus.write_text("\n".join("".join(word) for word in itertools.product(letters, repeat=5)))
        model = TransformerConfig(context_length=8, n_layers=1, n_heads=2, d_model=16)
        train = TrainConfig(steps=3, batch_size=4, compile=False, sample_tokens=0)
        made.append(Arm(letters, RunConfig(corpus=str(corpus), text=TextConfig(unit="line"), model=model, train=train)))
    return made


@pytest.fixture(scope="module")
def trained(arms, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    grid = make_grid(arms, seeds=[4, 2], root=root)
    with ThreadPoolExecutor(1) as executor:
        return root, grid, list(train_grid(grid, executor))


@pytest.fixture
def opened(monkeypatch):
    """How often each folder is opened as a run."""
    counts, real = Counter(), run.read_manifest
    monkeypatch.setattr(run, "read_manifest", lambda folder: counts.update([folder]) or real(folder))
    return counts


def test_a_grid_needs_no_baseline(trained):
    _, grid, events = trained
    assert grid.places == [("abc", 4), ("xyz", 4), ("abc", 2), ("xyz", 2)]
    ends = {(arm, seed): event for arm, seed, event in events if isinstance(event, Stopped)}
    assert ends == dict.fromkeys(grid.places, Stopped(3, "finished"))
    for arm, seed in grid.places:
        own = grid.run(arm, seed)
        assert (own.config.seed, own.config.corpus.endswith(f"{arm}.txt")) == (seed, True)
        assert is_done(own)
        assert [e.step for e in own.events() if isinstance(e, Step)] == [1, 2, 3]


def test_one_arm_is_a_grid(arms, tmp_path):
    assert make_grid(arms[:1], 3, tmp_path).places == [("abc", 0), ("abc", 1), ("abc", 2)]


def test_a_finished_grid_is_found_and_trains_nothing(trained, arms, opened):
    root, first, _ = trained
    again = make_grid(arms, seeds=[2, 4], root=root)
    assert list(train_grid(again, executor=None)) == []
    assert dict(again.folders) == dict(first.folders)
    assert set(opened.values()) == {1}
    assert len(opened) == 4


def test_a_run_is_found_in_another_folder_below_the_root(trained, arms, tmp_path):
    _, first, _ = trained
    moved = tmp_path / "elsewhere" / "mine"
    moved.parent.mkdir()
    moved.symlink_to(first.folders["xyz", 2])
    assert make_grid(arms, [2, 4], tmp_path).folders["xyz", 2] == moved


def test_a_comparison_opens_each_run_once(trained, arms, opened):
    root, _, _ = trained
    base = arms[0].config
    small = Arm("narrow", base.replace(model=base.model.replace(d_model=8)))
    plan = make_plan([arms[0], small], seeds=[2, 4], root=root)
    found = conclude(plan)
    assert [run.reason for run in found.arms[0].seeds] == ["finished"] * 2
    assert [run.reason for run in found.arms[1].seeds] == ["not begun"] * 2
    assert set(opened.values()) == {1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arms: make_grid([], 1), "from 1 to 64 arms"),
        (lambda arms: make_grid([arms[0], arms[0]]), "two arms are named 'abc'"),
        (lambda arms: make_grid([arms[0], Arm("twin", arms[0].config)]), "abc and twin are the same run"),
        (lambda arms: make_grid(arms, []), "at least one seed"),
    ],
)
def test_what_is_no_grid_is_refused(arms, change, message):
    with pytest.raises(ConfigError, match=message):
        change(arms)
