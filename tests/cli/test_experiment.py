"""windtunnel experiment: the list, a run with its files, and names that cannot be run."""

import json

import pytest

from windtunnel.experiments.rows import ROWS


@pytest.fixture
def windtunnel(command_line, monkeypatch):
    """Run a command on a terminal of 140 columns; gives the exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "140")
    return command_line


@pytest.fixture
def row_to_come(monkeypatch):
    """A row that has no experiment yet."""
    monkeypatch.setitem(ROWS, "009-1", "a row to come")


def test_the_list(windtunnel, row_to_come):
    code, out, _ = windtunnel("experiment")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["000-Q1", "000-Q2", "000-Q3", "000-Q4", "000-Q5"]
    rows = json.loads(windtunnel("experiment", "--json")[1])
    assert rows[1]["name"] == "email-ab-test"
    assert sum(" not yet " in line for line in lines) == sum(row["state"] == "not yet" for row in rows) > 0


def test_a_run_prints_verdicts_and_writes_its_files(windtunnel, tmp_path):
    code, out, err = windtunnel("experiment", "000-Q5", "--quick")
    assert code == 0
    assert "a quick run" in out
    assert "does not hold" in out
    assert "coverage of every interval" in err  # progress
    folder = tmp_path / "runs" / "experiments" / "coin-estimators-quick"
    assert {path.name for path in folder.iterdir()} == {
        "posteriors.png", "posteriors.svg", "coverage.png", "coverage.svg", "outcome.json", "report.html",
    }  # fmt: skip


def test_json_is_one_document_and_out_is_the_folder(windtunnel, tmp_path):
    code, out, _ = windtunnel("experiment", "coin-estimators", "--quick", "--json", "--out", "here", "--seed", "3")
    found = json.loads(out)
    assert code == 0
    assert found["name"] == "coin-estimators"
    assert found["quick"] is True
    assert "seed 3" in found["signature"]
    assert found["claims"][0] | {"values": {}} == {
        "id": "000-Q5", "statement": "(a) the MLE is k/n", "published": "k/n", "verdict": "holds",
        "measured": "0.7, 0, 1; apart by at most 1.1e-16", "values": {},
    }  # fmt: skip
    assert all((tmp_path / path).is_file() for path in found["files"])


@pytest.mark.parametrize(
    ("name", "said"), [("emial-ab-test", "did you mean email-ab-test?"), ("009-1", "is not built yet")]
)
def test_a_name_that_cannot_be_run(windtunnel, row_to_come, name, said):
    code, out, err = windtunnel("experiment", name)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_corpus_for_an_experiment_that_takes_none(windtunnel):
    code, out, err = windtunnel("experiment", "coin-estimators", "--quick", "--corpus", "pets")
    assert (code, out) == (2, "")
    assert "coin-estimators has its own data, given the corpus pets; leave it out, or run one of tiny-corpus" in err


def test_a_corpus_of_too_few_sentences(windtunnel, tmp_path):
    (tmp_path / "few.txt").write_text("I rub a dog. I rub a cat.", encoding="utf-8")
    code, out, err = windtunnel("experiment", "tiny-corpus", "--quick", "--corpus", "few.txt")
    assert (code, out) == (3, "")
    assert "few.txt has 2 sentences of two tokens or more; expected at least 10, each with '.'" in err
