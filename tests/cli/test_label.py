"""label: rounds that follow each other, a simulation, and answers that are never lost."""

import csv
import json

import numpy as np
import pytest

SPORT, MONEY = ["goal", "match", "team", "ball", "league"], ["bank", "rate", "bond", "loan", "stock"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """120 texts about sport or money, the first 70 labelled, one of them wrongly."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        kind = "sport" if i % 2 else "money"
        words = rng.choice(SPORT if i % 2 else MONEY, 4)
        rows.append([f"t{i}", " ".join(words) + " <b>, said", kind if i < 70 else ""])
    rows[3][2] = "money"
    with (tmp_path / "stories.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "label"], *rows])
    return "stories.csv"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rounds_follow_each_other(windtunnel, data, tmp_path):
    code, out, err = windtunnel("label", data, "--budget", 6, "--strategy", "margin")
    assert code == 0, err
    folder = tmp_path / "labels" / "stories"
    first = folder / "round-1.csv"
    rows = table(first)
    asked = [row for row in rows if row["task"] == "label"]
    assert len(asked) == 6
    assert all(
        int(row["id"][1:]) >= 70 and not row["label"] and row["reason"].startswith("the likeliest") for row in asked
    )
    [wrong] = [row for row in rows if row["task"] == "check" and row["id"] == "t3"]
    assert wrong["reason"].startswith("labelled money")
    assert "&lt;b&gt;" in (folder / "round-1.html").read_text()
    windtunnel("label", data, "--budget", 7, "--strategy", "margin")  # nothing was filled in: the table is made again
    assert [path.name for path in folder.glob("*.csv")] == ["round-1.csv"]
    rows = table(first)
    assert sum(row["task"] == "label" for row in rows) == 7
    for row in rows:
        row["label"] = "sport" if row["id"] == "t3" or int(row["id"][1:]) % 2 else "money"
    with first.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    kept = first.read_bytes()
    code, out, err = windtunnel("label", data, "--budget", 60, "--strategy", "random", "--labels", folder)
    assert first.read_bytes() == kept
    second = table(folder / "round-2.csv")
    assert {row["id"] for row in second if row["task"] == "label"} == {f"t{i}" for i in range(70, 120)} - {
        row["id"] for row in rows
    }
    assert not [row for row in second if row["id"] == "t3"]  # it was corrected
    assert "120 texts, 77 with a label" in out


def test_copies_and_one_label_written_in_two_ways_are_said(windtunnel, data, tmp_path):
    rows = table(tmp_path / data)
    rows[0]["label"], rows[2]["label"], rows[4]["label"] = "1", "1.0", "Money"
    rows[7]["text"] = rows[9]["text"] = rows[5]["text"]
    with (tmp_path / data).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    copies = len(rows) - len({row["text"] for row in rows})
    for words in (["--strategy", "random"], ["--simulate", "--seeds", 2, "--rounds", 1]):
        _, out, _ = windtunnel("label", data, *words)
        assert "'1' (1) and '1.0' (1) count as different labels" in out
        assert "'Money' (1) and 'money' (33) count as different labels" in out
        assert f"{copies} of the texts are copies of others" in out


def test_what_agreement_cannot_say_is_said(windtunnel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{i},some text {i},x,{who}" for i in range(3) for who in "ab"]
    (tmp_path / "same.csv").write_text("\n".join(["id,text,label,annotator", *rows]))
    _, out, _ = windtunnel("label", "same.csv")
    assert "Krippendorff's alpha is not defined where all answers are the same label" in out
    assert "nan" not in out
    rows = [f"1,some text,{label},{who}" for who, label in zip("abc", "xyx", strict=True)]
    (tmp_path / "draw.csv").write_text("\n".join(["id,text,label,annotator", *rows]))
    _, out, _ = windtunnel("label", "draw.csv")
    assert "c: 1 answers, none on a text on which most of the others agree" in out


def test_vectors_of_a_run_can_take_the_place_of_words(windtunnel, data, tmp_path):
    """Of one without training too: vectors of random weights know words."""
    small = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2", "train.steps=0", "train.threads=1"]
    settings = [part for one in (*small, "text.tokenizer=bytes", "text.unit=line") for part in ("--set", one)]
    (tmp_path / "texts.txt").write_text("".join(f"{word} {i}\n" for word in SPORT + MONEY for i in range(20)))
    made = ["train", "texts.txt", "--recipe", "tiny", *settings]
    code, _, err = windtunnel(*made, "--out", "run")
    assert code == 0, err
    code, out, err = windtunnel("label", data, "--features", "run", "--budget", 3)
    assert code == 0, err
    assert "vectors of run" in out
    assert len([row for row in table(tmp_path / "labels" / "stories" / "round-1.csv") if row["task"] == "label"]) == 3


def test_auto_as_json(windtunnel, data):
    _, out, _ = windtunnel("label", data, "--budget", 3, "--seeds", 4, "--rounds", 2, "--json")
    found = json.loads(out)
    assert found["strategy"] in ("random", *[v["strategy"] for v in found["simulation"]["verdicts"]])
    assert found["why"].endswith("a simulation on the 70 labelled texts, 4 seeds")
    assert [task["task"] for task in found["tasks"][:3]] == ["label"] * 3
    assert found["suspicions"][0]["id"] == "t3"
    assert found["precision_on_planted"]["n"] == 100
    assert found["files"][0].endswith("round-1.csv")


def test_simulate(windtunnel, data, tmp_path):
    code, out, err = windtunnel("label", data, "--simulate", "--seeds", 4, "--rounds", 2, "--out", "there")
    assert code == 0, err
    for said in ("margin", "baseline", "4 seeds, each with its own 23 held-out texts"):
        assert said in out
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"curves.png", "curves.svg", "simulation.html"}
    found = json.loads(windtunnel("label", data, "--simulate", "--seeds", 4, "--rounds", 2, "--json")[1])
    assert np.array(found["accuracy"]["margin"]).shape == (4, 3)
    assert found["sizes"] == [7, 14, 21]


def test_annotators(windtunnel, tmp_path, data):
    (tmp_path / "answers.jsonl").write_text(
        '{"id": "t0", "label": "sport", "annotator": "ann"}\n{"id": "t1", "label": "sport", "annotator": "ann"}\n'
        '{"id": "t0", "label": "sport", "annotator": "bob"}\n'
    )
    _, out, _ = windtunnel("label", data, "--labels", "answers.jsonl", "--strategy", "random", "--budget", 1)
    assert "2 texts with two answers or more, 1 disputed: Krippendorff's alpha" in out
    rows = table(tmp_path / "labels" / "stories" / "round-1.csv")
    [disputed] = [row for row in rows if row["task"] == "settle"]
    assert disputed["reason"] == "disagreement: the table money, ann sport, bob sport"
    assert disputed["annotator"] == disputed["label"] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing.csv"], 3, "cannot be read"),
        (["stories.csv", "--text", "body"], 3, "no column 'body'"),
        (["stories.csv", "--strategy", "best"], 2, "there is no strategy 'best'"),
        (
            ["stories.csv", "--features", "letters"],
            2,
            "expected auto, words, characters or a model; letters does",
        ),
        (["stories.csv", "--labels", "empty"], 3, "empty holds no tables"),
        (["stories.csv", "--simulate", "--rounds", "90"], 2, "take fewer rounds"),
        (["names"], 3, "names has the fields text, expected text and label"),
    ],
)
def test_what_is_wrong_is_said(windtunnel, data, tmp_path, arguments, code, said):
    (tmp_path / "empty").mkdir()
    given, _, err = windtunnel("label", *arguments)
    assert given == code
    assert said in err
