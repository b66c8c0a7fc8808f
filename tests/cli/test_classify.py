"""train, evaluate, classify and compare on a table of texts and labels."""

import csv
import json
from pathlib import Path

import pytest

QUICK = ["--set", "train.batch_size=16", "--set", "train.eval_every=20", "--set", "model.trunk.n_layers=1",
         "--set", "model.trunk.d_model=16", "--set", "model.trunk.n_heads=2", "--set", "model.context_length=24",
         "--set", "text.tokenizer=characters", "--set", "optimizer.lr=0.01", "--set", "train.threads=1"]  # fmt: skip


@pytest.fixture
def reviews(windtunnel):
    """In the working folder of the command line."""
    with open("reviews.csv", "w", newline="") as file:  # noqa: PTH123
        rows = [(("good", "good", "bad")[i % 3] + f" film {i}", (5, 5, 1)[i % 3]) for i in range(240)]
        csv.writer(file).writerows([("review", "stars"), *rows])
    return ["reviews.csv", "--column", "text=review", "--column", "label=stars"]


def test_a_table_is_trained_on_judged_and_classified(windtunnel, reviews):
    code, out, err = windtunnel("train", *reviews, "--steps", "60", *QUICK, "--out", "run")
    assert code == 0, err
    first = out.splitlines()[0]
    assert first.startswith(("beats its baselines", "does not beat its baselines"))
    assert "majority" in out
    assert "TF-IDF" in out
    assert "windtunnel classify run/seed-0" in out
    assert "texts/s" in err
    assert "token" not in err
    assert windtunnel("evaluate", "run", "--split", "test")[1].splitlines()[0] == first
    flattered = "the number to report is of a test split"
    shown = {split: windtunnel("evaluate", "run", "--split", split)[1] for split in ("train", "dev", "test")}
    assert [split for split, said in shown.items() if flattered in said] == ["train", "dev"]
    found = json.loads(windtunnel("evaluate", "run", "--split", "test", "--json")[1])
    assert found["texts"] == 48
    assert [one["name"] for one in found["baselines"]] == ["majority label", "label prior", "TF-IDF n-grams + LR"]
    assert found["answered"] is None
    shares = [one["share"]["estimate"] for one in found["surest"]]
    assert all(got >= wanted - 0.01 for got, wanted in zip(shares, (0.9, 0.75, 0.5), strict=True))
    sure = windtunnel("evaluate", "run", "--split", "test", "--threshold", "1")[1]
    assert "threshold 1: it answers 0.000 [0.000, 0.074] of the texts, so nothing is answered; else: none" in sure
    assert "accuracy on the texts it is surest of: " in sure
    one = json.loads(windtunnel("classify", "run", "a good film", "--json")[1])
    assert one["label"] == "5"
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert [word["word"] for word in one["words"]] == ["a", "good", "film"]
    assert windtunnel("classify", "run", "a good film")[1].splitlines()[0] == "5"
    unsure = windtunnel("classify", "run", "a good film", "--threshold", "1")[1]
    assert unsure.splitlines()[0] == "none of these"
    many = windtunnel("classify", "run", "--file", "reviews.csv", "--column", "review")[1].splitlines()
    assert len(many) == 240
    assert "reads whole texts and writes none" in windtunnel("generate", "run", "a")[2]
    assert many[0].split("\t")[0] == "5"


def test_two_classifiers_are_compared_text_by_text(windtunnel, reviews):
    for out, steps in (("long", "60"), ("short", "1")):
        code, _, err = windtunnel("train", *reviews, "--steps", steps, *QUICK, "--out", out)
        assert code == 0, err
    code, out, _ = windtunnel("evaluate", "long", "--against", "short", "--split", "test")
    assert code == 0
    assert out.startswith("long/seed-0 is better than short/seed-0: test accuracy +0.")
    assert "the other alone on 0, neither on 0" in out
    found = json.loads(windtunnel("evaluate", "short", "--against", "long", "--split", "test", "--json")[1])
    both, only, only_other, neither = found["table"]
    assert (found["word"], only, neither, both + only_other) == ("worse", 0, 0, 48)
    same = windtunnel("evaluate", "long", "--against", "long", "--margin", "0.2")[1]
    assert same.startswith("no difference that matters between long/seed-0 and long/seed-0: dev accuracy +0.000")
    assert "the number to report is of --split test" in same
    assert windtunnel("evaluate", "long", "--against", "long")[1].startswith("undecided between")
    code, _, err = windtunnel("evaluate", "long", "--against", "short", "--margin", "2")
    assert (code, "share of the other's accuracy that does not matter, given 2" in err) == (2, True)


@pytest.mark.slow
def test_arms_are_compared_by_accuracy(windtunnel, reviews):
    varied = ["--vary", "train.steps=1,40", "--seeds", "4", "--task", "classification", "--json"]
    code, out, err = windtunnel("compare", *reviews, *varied, *QUICK, "--out", "runs")
    assert code == 0, err
    found = json.loads(out)
    assert found["metric"] == "accuracy"
    assert found["judgements"][0]["verdict"]["word"] == "better"
    assert set(found["judgements"][0]["others"]) == {"loss", "macro_f1"}
    assert not [note for note in found["notes"] if "sees the tokens that it is to predict" in note]
    shown = windtunnel("compare", *reviews, *[word for word in varied if word != "--json"], *QUICK, "--out", "runs")[1]
    assert "nats per text" in " ".join(shown.split())
    assert "nats per token" not in " ".join(shown.split())


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", "names", "--task", "classification"], "fields text and label, and names has text"),
    (["train", "reviews.csv", "--task", "clustering"], "expected language or translation or classification"),
    (["train", "reviews.csv", "--column", "text=review", "--column", "label=star"], "did you mean 'stars'?"),
    (["classify", "nowhere", "a"], "nowhere does not exist"),
    (["classify", "nowhere"], "expected a text or --file"),
])  # fmt: skip
@pytest.mark.usefixtures("reviews")
def test_bad_input_is_told(windtunnel, arguments, message):
    code, _, err = windtunnel(*arguments)
    assert code in (2, 3)
    assert message in err


def test_a_classifier_that_was_altered_in_python_is_judged_with_its_change(windtunnel, reviews):
    with open("idea.py", "w") as file:  # noqa: PTH123
        file.write("import torch\n\n\ndef bent(setup):\n    for block in setup.model.trunk.blocks:\n"
                   "        block.feed_forward.activation = torch.tanh\n    return setup\n")  # fmt: skip
    change = ["--change", "idea.py:bent"]
    code, out, err = windtunnel("train", *reviews, "--steps", "5", *QUICK, *change, "--out", "run")
    assert code == 0, err
    assert "beat" in out.splitlines()[0]
    assert windtunnel("evaluate", "run", "--split", "test", *change)[1].splitlines()[0] == out.splitlines()[0]
    assert windtunnel("classify", "run", "a good film", *change)[0] == 0
    code, _, err = windtunnel("evaluate", "run")
    assert (code, "--change FILE:bent" in err) == (2, True)


@pytest.mark.parametrize(("options", "message"), [
    (["--margin", "0.1"], "--margin 0.1 goes with --against RUN"),
    (["--against", "other", "--threshold", "0.8"], "--threshold and --against are two questions; ask them one by one"),
    (["--slices", "--threshold", "0.8"], "and --threshold for a classifier; leave one out"),
    (["--slices", "--against", "other"], "and --against for a classifier; leave one out"),
])  # fmt: skip
def test_an_option_that_would_say_nothing_is_refused(windtunnel, options, message):
    code, _, err = windtunnel("evaluate", "run", *options)
    assert (code, message in err) == (2, True), err


@pytest.mark.parametrize("option", [["--against", "other"], ["--threshold", "0.8"]])
def test_a_run_that_cannot_be_opened_is_not_said_to_be_no_classifier(windtunnel, option):
    code, _, err = windtunnel("evaluate", "nowhere", *option)
    assert (code, "nowhere does not exist; train one first" in err) == (3, True), err
    Path("broken").mkdir()
    Path("broken/manifest.json").write_text("{")
    code, _, err = windtunnel("evaluate", "broken", *option)
    assert (code, "is none" in err) == (3, False), err
