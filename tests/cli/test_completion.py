"""What the shell completes, asked as it asks: words in COMP_WORDS, the place of the one that is being typed beside."""

import os
import subprocess
import sys

import pytest

from windtunnel.cli import completing, words
from windtunnel.experiments import EXPERIMENTS
from windtunnel.library.reference import settings_reference
from windtunnel.text.corpora import CORPORA, FETCHED
from windtunnel.training.recipes import RECIPES

PROGRAM = """
import sys
sys.argv = ["windtunnel"]
from windtunnel.cli import main
try:
    main()
finally:
    heavy = {"torch", "numpy", "scipy", "matplotlib", "tokenizers"} & sys.modules.keys()
    sys.exit(f"imported: {heavy}" if heavy else 0)
"""


@pytest.fixture(name="complete")
def _complete(tmp_path):
    """The completions of the last word of a line, in a folder with some runs."""
    for name in ("runs/names-1/seed-0", "runs/names-1/seed-1", "runs/alone", "runs/.tmp-x/seed-0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "record.json").touch()
    (tmp_path / "runs/compare-1").mkdir()
    (tmp_path / "names.txt").touch()
    (tmp_path / "my text.txt").touch()
    (tmp_path / "nature").mkdir()
    (tmp_path / "nature/a.txt").touch()

    def ask(line, shell="bash"):
        asked = {"_WINDTUNNEL_COMPLETE": f"complete_{shell}"}
        if shell == "bash":
            asked |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        else:
            asked |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, **asked}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [line for line in done.stdout.splitlines() if line]

    return ask


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("windtunnel train names --recipe t", ["tiny", "translate"]),
        ("windtunnel train na", ["names", "names-sex", "names.txt", "nature/"]),
        ("windtunnel train nature/", ["nature/a.txt"]),
        ("windtunnel train my", [r"my\ text.txt"]),
        ("windtunnel corpora get s", ["shakespeare"]),
        ("windtunnel generate ", ["last", "alone", "names-1"]),
        ("windtunnel generate names-1/", ["names-1/seed-0", "names-1/seed-1"]),
        ("windtunnel look runs/na", ["runs/names-1"]),
        ("windtunnel runs alone na", ["names-1"]),
        ("windtunnel check l", ["llama", "last"]),
        ("windtunnel train names --set model.n_l", ["model.n_layers=", "model.n_labels="]),
        ("windtunnel compare names --vary optimizer.l", ["optimizer.lr=", "optimizer.layer_decay="]),
        ("windtunnel settings lora", ["lora.rank", "lora.alpha", "lora.targets"]),
        ("windtunnel experiment e1", []),
        ("windtunnel experiment 000-T3", ["000-T3a", "000-T3b", "000-T3c"]),
        ("windtunnel experiment attention-p", ["attention-pieces"]),
    ],
)
def test_bash_completes_without_importing_what_is_slow(complete, line, expected):
    assert complete(line) == expected


def test_fish_completes_the_same(complete):
    assert complete("windtunnel generate l", "fish") == ["last"]


def test_without_runs_no_last_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completing.runs("") == []
    assert completing.corpora("gone/x") == []


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("RECIPES", ["auto", *RECIPES]),
        ("CORPORA", CORPORA),
        ("FETCHED", FETCHED),
        ("EXPERIMENTS", EXPERIMENTS),
        ("ROWS", [row for one in EXPERIMENTS.values() for row in one.rows]),
        ("SETTINGS", [setting.path for setting in settings_reference()]),
    ],
)
def test_the_words_are_those_of_the_registries(name, registry):
    assert getattr(words, name).split() == list(dict.fromkeys(registry)), f"write these into cli/words.py: {name}"


def test_other_shells_quote_a_file_with_a_space_and_bash_does_in_an_open_quote(complete, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert complete("windtunnel train my", "fish") == ["my text.txt"]
    monkeypatch.setenv("_WINDTUNNEL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", 'windtunnel\ntrain\n"my')
    assert completing.corpora("my") == ["my text.txt"]
