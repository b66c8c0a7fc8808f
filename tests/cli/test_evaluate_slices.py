"""`windtunnel evaluate --slices`: what is printed, its JSON and figure, and runs and options that do not fit."""

import json
from functools import partial

import pytest

from windtunnel.config import override
from windtunnel.inspect import slices
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe

SHORT = ["model.family=transformer", "train.steps=60", "train.eval_every=60", "train.save_every=60",
         "schedule.warmup=20", "train.sample_tokens=0", "train.compile=false", "train.threads=1",
         "model.n_layers=1"]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A run that copies words of two letters, with some right and some wrong."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = [f"{a}{b}\t{a} {b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *lines]))
    changes = [*SHORT, "model.d_model=32", "model.context_length=16", "text.dev_fraction=.3"]
    list(fit(override(recipe("translate", str(folder / "pairs.tsv")), changes), folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def latin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latin") / "run"
    changes = [*SHORT, "model.d_model=32", "text.dev_fraction=.03"]
    list(fit(override(recipe("translate", "pig-latin-small"), changes), folder))
    return folder


def test_scores_slices_baselines_and_the_wrong_ones_are_printed(pairs, command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    code, out, _ = command_line("evaluate", pairs, "--slices", "--wrong", 1)
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for begin in (f"{pairs}, step 60: ", "any right target ", "copy the source ", "of 2 characters ", "chrF2 = ",
                  "BLEU is left out: ", "free test: teacher-forced and greedy exact match agree on all "):  # fmt: skip
        assert sum(line.startswith(begin) for line in lines) == 1, begin
    assert sum(" written '" in line for line in lines) == 1
    assert "n exact match per character per word per token)" in lines
    assert "signature nrefs:1|bs:1000|" in out


def test_in_80_columns_no_interval_is_broken(latin, command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command_line("evaluate", latin, "--slices")
    assert code == 0
    tables = out[: out.index("free test")].splitlines()
    intervals = [line for line in tables if "[0" in line]
    assert len(intervals) >= 8
    assert all(line.count("[") == line.count("]") >= 1 for line in intervals)
    assert any("too few: fewer than 30 sources" in line for line in tables)


def test_json_and_figure_hold_what_is_printed(pairs, windtunnel, tmp_path):
    code, out, err = windtunnel("evaluate", pairs, "--slices", "--json", "--figure", tmp_path / "new" / "slices.svg")
    assert code == 0
    found = json.loads(out)
    assert found["stress"] is None
    held_out = found["held_out"]
    assert held_out["split"] == "dev"
    (score,) = held_out["slices"]
    assert score["name"] == "of 2 characters"
    assert score["exact"] == held_out["scores"][0]["exact"]
    assert held_out["worst"] is None  # one slice is not worse than others
    assert len(held_out["wrong"]) == min(10, held_out["n_wrong"]) > 0
    assert "written:" in err
    assert "<svg" in (tmp_path / "new" / "slices.svg").read_text()


def test_made_up_words_are_reported_apart(latin, windtunnel, monkeypatch, tmp_path):
    monkeypatch.setattr(slices, "evaluate_stress", partial(slices.evaluate_stress, n=3))  # 300 take a minute
    code, out, _ = windtunnel("evaluate", latin, "--slices", "--stress", "--json", "--figure", tmp_path / "s.png")
    assert code == 0
    found = json.loads(out)
    assert (found["held_out"]["split"], found["stress"]["split"]) == ("dev", "stress")
    assert {"vowel", "cluster", "qu", "y", "hyphen", "long"} <= {score["name"] for score in found["stress"]["slices"]}
    assert (tmp_path / "s.png").stat().st_size > 0


@pytest.mark.parametrize(("words", "message"), [
    (("--stress",), "--stress goes with --slices; add it"),
    (("--figure", "x.png"), "--figure goes with --slices; add it"),
    (("--slices", "--split", "none"), "has nothing in a split 'none'; it has train, dev, test"),
    (("--slices", "--stress"), "--stress makes words by a rule"),
    (("--slices", "--figure", "x.gif"), "written as .png, .svg or .pdf"),
])  # fmt: skip
def test_what_does_not_fit_is_said(pairs, windtunnel, words, message):
    code, out, err = windtunnel("evaluate", pairs, *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_run_of_another_task_is_refused(windtunnel, tmp_path):
    changes = ["train.steps=1", "train.eval_every=1", "train.save_every=1", "train.sample_tokens=0", "train.threads=1"]
    list(fit(override(recipe("tiny", "names"), changes), tmp_path / "run"))
    code, _, err = windtunnel("evaluate", tmp_path / "run", "--slices")
    assert code == 2
    assert "--slices judges what a run translates, and" in err
    assert "was trained for language" in err
