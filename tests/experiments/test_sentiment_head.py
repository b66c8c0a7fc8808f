"""Rows 001-3.3, 4.1 and 4.2: texts, the size of the fixture, the checkpoints of a run, and all of it, small."""

import json
import random

import numpy as np
import pytest

from windtunnel.errors import DataError
from windtunnel.experiments import EXPERIMENTS
from windtunnel.experiments.frame import Setting, collect
from windtunnel.experiments.sentiment_head import (
    N_UNTRAINED,
    Course,
    Seen,
    _last_and_best,
    course_of,
    untrained_classifier,
)
from windtunnel.experiments.sentiment_texts import read_texts
from windtunnel.experiments.training import FIELDS
from windtunnel.models.pretrained.catalogue import MINILM
from windtunnel.report.outcome import Claim
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.text.corpora.labelled import TWEETS
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.data import open_store
from windtunnel.training.events import Step
from windtunnel.training.loop import resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import create_run, open_run, resolve

WORDS = {"0": ["dull", "bad", "slow"], "1": ["fine", "good", "warm"]}


def sentences(n):
    """Rows of a sentence and its label, which two of its words say."""
    draw = random.Random(0)
    labels = [str(i % 9 % 2) for i in range(n)]
    return [(f"the film {i} is {' '.join(draw.choices(WORDS[label], k=2))}", label) for i, label in enumerate(labels)]


def as_sst2(folder, rows):
    path = folder / "train.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return str(path)


def quick(folder, corpus=None):
    return Setting(quick=True, seed=0, out=folder, corpus=corpus)


def test_the_first_rows_of_a_table_are_split_with_the_share_of_each_label(tmp_path):
    rows = sentences(700)
    texts = read_texts(quick(tmp_path, as_sst2(tmp_path, [rows[0], *rows])))  # the first one twice
    assert {name: len(own) for name, own in texts.parts.items()} == {"train": 240, "dev": 60, "test": 200}
    assert sorted(texts.parts["train"] + texts.parts["dev"]) == sorted(rows[:300])
    assert texts.parts["test"] == rows[300:500]
    share = sum(label == "1" for _, label in rows[:300]) / 300
    assert texts.counts["dev"]["1"] == round(60 * share)
    assert texts.others == [text for text, _ in rows[500:] + texts.parts["train"]]


@pytest.mark.parametrize(("rows", "message"), [
    (sentences(350), r"train\.tsv has 350 different texts; expected at least 400 with labels"),
    ([(text, "1") for text, _ in sentences(600)], r"the first 300 texts have the labels 1; expected two"),
    ([(text, str(i % 3)) for i, (text, _) in enumerate(sentences(600))], r"the labels 0, 1, 2; expected two"),
])  # fmt: skip
def test_a_table_that_does_not_do_is_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_texts(quick(tmp_path, as_sst2(tmp_path, rows)))


def test_a_text_without_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match="names has text; expected texts with labels"):
        read_texts(quick(tmp_path, "names"))


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A cache in which tweets and MiniLM are small ones."""
    from transformers import BertConfig, BertModel

    monkeypatch.setenv("WINDTUNNEL_CACHE", str(tmp_path / "cache"))
    file = cache_folder() / "corpora" / TWEETS.file
    file.parent.mkdir(parents=True)
    names = {"0": "negative", "1": "positive"}
    rows = [(text, names[label]) for text, label in sentences(1500)]
    twice = [(f"RT @someone: {text} https://t.co/{i}", label) for i, (text, label) in enumerate(rows)]
    torn = [(text, "positive" if label == "negative" else "negative") for text, label in rows[:100]]
    file.write_text("".join(f"{t}\t{n}\n" for t, n in [*rows, *twice, *torn, ("the film is on today", "neutral")]))
    small = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 32}
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", *WORDS["0"], *WORDS["1"]]
    model = BertModel(BertConfig(**small, vocab_size=len(marks), max_position_embeddings=64))
    model.save_pretrained(MINILM.path)
    (MINILM.path / "vocab.txt").write_text("\n".join(marks))
    return rows


def test_tweets_are_drawn_once_and_those_judged_twice_are_left_out(tmp_path, fetched):
    texts = read_texts(quick(tmp_path))
    assert texts.counts["dev"] == {"positive": 32, "negative": 28}  # round(300 * 650 / 1200) is 162: a fifth of it
    assert texts.counts["test"] == {"positive": 108, "negative": 92}
    labels = dict(fetched[100:])
    drawn = [pair for own in texts.parts.values() for pair in own]
    original = [text.removeprefix("RT @someone: ").partition(" https")[0] for text, _ in drawn]
    assert len(set(original)) == len(drawn) == 500
    assert all(labels[text] == label for text, (_, label) in zip(original, drawn, strict=True))
    held = {text for name in ("dev", "test") for text, _ in texts.parts[name]}
    assert not held & set(texts.others)
    assert "the film is on today" in texts.others


def test_the_fixture_has_its_published_size():
    config = untrained_classifier()
    trunk = sum(p.numel() for p in config.create().trunk.parameters())
    assert trunk == N_UNTRAINED == 102_714


def test_a_run_is_judged_at_each_of_its_checkpoints(tmp_path):
    rows = sentences(200)
    parts = ["train"] * 100 + ["dev"] * 50 + ["test"] * 50
    lines = (f"{text}\t{label}\t{part}\n" for (text, label), part in zip(rows, parts, strict=True))
    path = tmp_path / "texts.tsv"
    path.write_text("\t".join(FIELDS) + "\n" + "".join(lines))
    base = recipe("classify", str(path))
    train = {"steps": 12, "eval_every": 4, "save_every": 4, "keep": 9, "choose": "last", "threads": 1, "batch_size": 8}
    config = base.replace(text=base.text.replace(columns=FIELDS), train=base.train.replace(**train))
    store = open_store(config)
    create_run(tmp_path / "run", resolve(config, store), store)
    taken = []
    for event in resume(tmp_path / "run", should_stop=lambda: len(taken) == 6):  # noqa: B023
        taken += [event] if isinstance(event, Step) else []
    assert {step for step, _ in checkpoints(tmp_path / "run")} == {4, 6}
    for _ in resume(tmp_path / "run"):
        pass
    events = [event for event in open_run(tmp_path / "run").events("evaluation") if event.step]
    found = course_of(tmp_path / "run")
    assert found.steps == [event.step for event in events] == [4, 8, 12]
    assert [one.loss for one in found.seen["dev"]] == pytest.approx([event.loss for event in events], abs=1e-6)
    assert [one.accuracy for one in found.seen["dev"]] == [event.scores["accuracy"] for event in events]
    assert found.best == int(np.argmin([event.loss for event in events]))
    assert (len(found.seen["train"][0].right), len(found.test["last"].right)) == (100, 50)


def test_an_over_fitted_run_is_told_by_its_loss_on_the_test():
    def course(extra):
        seen = [Seen(loss, np.ones(4)) for loss in (0.7, 0.6, 1.4)]
        test = {"best": Seen(0.65, np.array([1.0, 1, 1, 0])), "last": Seen(1.4 + extra, np.array([1.0, 1, 1, 0]))}
        return Course([1, 2, 3], {"train": seen, "dev": seen}, 1, test)

    claims = [one for one in _last_and_best([course(0.01 * i) for i in range(5)]) if isinstance(one, Claim)]
    assert [claim.verdict for claim in claims] == ["holds", "does not hold"]  # the same labels are found
    assert claims[0].values["estimate"].estimate == pytest.approx(0.77)
    assert "the best are those of the steps 2, 2, 2, 2, 2 of 3" in claims[0].measured


@pytest.mark.slow
def test_the_whole_experiment_runs_small(tmp_path, fetched):
    experiment = EXPERIMENTS["sentiment-head"]
    outcome = collect(experiment, quick(tmp_path / "out"))
    assert {claim.id for claim in outcome.claims} == set(experiment.rows)
    assert set(outcome.figures) == {"arms", "curves", "scores"}
    said = {claim.statement: claim.verdict for claim in outcome.claims}
    assert said["the parameters of the fixture are counted"] == "holds"
    assert said["its printed loss is that of a blind guess"] == "holds"
    assert said["its logits do not depend on padding"] == "holds"
    assert json.loads(json.dumps(outcome.to_dict(), allow_nan=False))["quick"] is True
