"""Texts and labels as a store: the ids are the texts', every split has its share of each label."""

import csv
import json
from collections import Counter

import pytest

from windtunnel.errors import ArtifactError, DataError
from windtunnel.text.corpora import open_corpus
from windtunnel.text.split_corpus import texts_of_splits
from windtunnel.text.splits import stratified
from windtunnel.text.store import TextConfig, open_store, prepare

ROWS = [(f"text {i}" + ", quoted" * (i % 5 == 0), "good" if i % 4 else "bad") for i in range(120)]


def table(path, rows=ROWS, heads=("text", "label")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([heads, *rows])
    return str(path)


def pairs(store, split):
    names = [store.labels[i] for i in store.splits[split].labels]
    return list(zip(store.documents(split), names, strict=True))


def test_every_split_has_its_share_of_each_label(tmp_path):
    config = TextConfig(dev_fraction=0.1, test_fraction=0.2)
    store = prepare(open_corpus(table(tmp_path / "a.csv")), config, tmp_path)
    assert store.labels == ("bad", "good")
    found = {split: pairs(store, split) for split in store.splits}
    assert sorted(pair for own in found.values() for pair in own) == sorted(ROWS)
    counts = {split: Counter(label for _, label in own) for split, own in found.items()}
    assert counts["test"] == {"bad": 6, "good": 18}
    assert counts["dev"] == {"bad": 3, "good": 9}


def test_a_text_goes_by_its_content_and_stands_in_one_split():
    labels = dict(ROWS)
    found = stratified(labels, 0.1, 0.2)
    assert stratified(dict(reversed(labels.items())), 0.1, 0.2) == found
    assert stratified({**labels, "another": "other"}, 0.1, 0.2).items() >= found.items()


def test_texts_that_stand_there_twice_stay_together(tmp_path):
    rows = [*ROWS, *((text, "bad") for text, _ in ROWS)]
    store = prepare(open_corpus(table(tmp_path / "a.csv", rows)), TextConfig(test_fraction=0.2), tmp_path)
    texts = [{text for text, _ in pairs(store, split)} for split in ("train", "dev", "test")]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]  # noqa: PT018


def test_the_texts_of_splits_are_those_of_the_store(tmp_path):
    for config in (TextConfig(test_fraction=0.2), TextConfig(shuffle_seed=3)):
        corpus = open_corpus(table(tmp_path / "a.csv"))
        store = prepare(corpus, config, tmp_path)
        assert texts_of_splits(corpus, config) == {split: list(store.documents(split)) for split in store.splits}


def test_a_column_can_say_the_split(tmp_path):
    rows = [(*row, ("train", "dev", "test")[i % 3]) for i, row in enumerate(ROWS)]
    path = table(tmp_path / "a.csv", rows, ("review", "stars", "part"))
    columns = {"text": "review", "label": "stars", "split": "part"}
    store = prepare(open_corpus(path, columns=columns), TextConfig(columns=columns), tmp_path)
    for split in store.splits:
        assert pairs(store, split) == [row[:2] for row in rows if row[2] == split]
    bad = table(tmp_path / "b.csv", [("a text", "good", "valid")], ("review", "stars", "part"))
    with pytest.raises(DataError, match="'valid', expected train, dev, test"):
        prepare(open_corpus(bad, columns=columns), TextConfig(columns=columns), tmp_path)


def test_numbers_are_labels_and_line_breaks_become_spaces(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"one\n{i}\ttwo", "label": i % 2}) + "\n" for i in range(9)))
    assert list(open_corpus(str(path)).read())[:2] == ["one 0 two\t0", "one 1 two\t1"]


@pytest.mark.parametrize(("row", "message"), [(("", "good"), "text is empty"), (("a text", " "), "label is empty")])
def test_what_is_empty_is_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=rf"line 3: {message}"):
        list(open_corpus(table(tmp_path / "a.csv", [ROWS[0], row])).read())


def test_damaged_labels_are_told(tmp_path):
    corpus = open_corpus(table(tmp_path / "a.csv"))
    folder = prepare(corpus, TextConfig(), tmp_path).folder
    file = folder / "dev.labels.bin"
    file.write_bytes(b"\x07" + file.read_bytes()[1:])
    with pytest.raises(ArtifactError, match=r"dev\.labels\.bin"):
        open_store(folder, corpus)
