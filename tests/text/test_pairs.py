"""Corpora of pairs: fields, splits by the source, and tables as corpora."""

import hashlib
import random

import pytest

from windtunnel.errors import DataError
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.corpus import Corpus, join_fields
from windtunnel.text.splits import SPLITS, document_split, split_key
from windtunnel.text.store import TextConfig, TokenStore, prepare

PAIRS = ("source", "target")


def corpus(documents: list[str], fields: tuple[str, ...] = PAIRS) -> Corpus:
    return Corpus("test", "line", "a test", "none", "here", lambda: iter(documents), fields)


def documents_of(store: TokenStore, name: str) -> list[str]:
    split = store.splits[name]
    bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    return [store.tokenizer.decode(split.ids[first:last]) for first, last in bounds]


# ---- fields


def test_a_document_is_its_fields_with_a_tab_between_them():
    pairs = corpus([])
    document = join_fields({"source": "the cat", "target": ""}, "a.tsv, line 2")
    assert document == "the cat\t"
    assert pairs.split(document) == ("the cat", "")
    for wrong in ("the cat", "a\tb\tc"):
        with pytest.raises(DataError, match="expected source, target with one TAB"):
            pairs.split(wrong)
    assert corpus([], ("text",)).split("a\tb") == ("a\tb",)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a\tb", "x", "source holds a TAB"),
        ("a", "x\ty", "target holds a TAB"),
        ("a", "x\ny", "target holds a line break"),
        ("a", "\ud83d", "target holds half of a surrogate pair"),
        ("", "x", "source is empty"),
    ],
)
def test_a_field_that_cannot_be_kept_is_refused(source, target, words):
    with pytest.raises(DataError, match=f"^a.tsv, line 2: {words}") as caught:
        join_fields({"source": source, "target": target}, "a.tsv, line 2")
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


# ---- splits


def translations(seed: int) -> list[str]:
    """1,000 pairs of 300 sources, in random order, one source with several targets."""
    generator = random.Random(seed)
    return [f"source {generator.randrange(300)}\ttarget {i}" for i in range(1000)]


@pytest.mark.parametrize("shuffle_seed", [None, 0, 1, 2])
@pytest.mark.parametrize(("dev", "test"), [(0.05, 0.05), (0.3, 0.2), (0.1, 0.0)])
def test_no_source_is_in_two_splits(tmp_path, shuffle_seed, dev, test):
    for seed in range(3):
        documents = translations(seed)
        config = TextConfig(dev_fraction=dev, test_fraction=test, shuffle_seed=shuffle_seed, tokenizer="bytes")
        store = prepare(corpus(documents), config, tmp_path)
        parts = {name: documents_of(store, name) for name in SPLITS}
        assert sorted(document for part in parts.values() for document in part) == sorted(documents)
        sources = [{document.split("\t")[0] for document in part} for part in parts.values()]
        assert sum(map(len, sources)) == len(set.union(*sources)) == len({d.split("\t")[0] for d in documents})


def test_the_source_alone_decides():
    for i in range(200):
        key = split_key(f"word {i}\ttarget", PAIRS)
        assert key == f"word {i}"
        assert document_split(key, 0.3, 0.3) == document_split(f"word {i}", 0.3, 0.3)
    assert split_key("a\tb", ("text",)) == "a\tb"


def test_different_sources_are_shuffled_as_documents_are(tmp_path):
    """The order of Python's own shuffle, which published splits rest on."""
    documents = [f"source {i}\ttarget {i}" for i in range(100)]
    config = TextConfig(dev_fraction=0.1, test_fraction=0.1, shuffle_seed=42, tokenizer="bytes")
    store = prepare(corpus(documents), config, tmp_path)
    random.Random(42).shuffle(documents)
    assert [documents_of(store, name) for name in SPLITS] == [documents[:80], documents[80:90], documents[90:]]


def test_the_same_lines_as_text_are_another_store(tmp_path):
    documents = translations(0)
    config = TextConfig(tokenizer="bytes")
    pairs, text = (prepare(corpus(documents, fields), config, tmp_path) for fields in (PAIRS, ("text",)))
    assert pairs.folder != text.folder
    assert documents_of(text, "dev") == [d for d in documents if document_split(d, 0.05, 0.05) == "dev"]


@pytest.mark.parametrize(
    ("shuffle_seed", "folder", "dev"),
    [
        (None, "4a159b8ca223e0bcbcb0d8e02adf2c56", "5617846a8865a0fd"),
        (42, "a51f3901dbc312ec08fe2c626db850ca", "afaf76416123b7c8"),
    ],
)
def test_texts_are_split_as_before_there_were_pairs(tmp_path, shuffle_seed, folder, dev):
    """Written down from the code without fields: stores in the cache and old runs stay what they are."""
    store = prepare(open_corpus("names"), TextConfig(shuffle_seed=shuffle_seed), tmp_path)
    assert store.folder.name == folder
    assert hashlib.sha256(store.splits["dev"].ids.tobytes()).hexdigest()[:16] == dev
