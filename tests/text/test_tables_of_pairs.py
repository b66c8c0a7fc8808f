"""Tables as corpora of pairs: TSV, CSV and JSONL, what they give and what bad ones are told."""

import csv
import gzip
import json
import random
from pathlib import Path

import pytest

from windtunnel.errors import DataError
from windtunnel.text.corpora import open_corpus

PAIRS = [("the cat", "die Katze"), ('she said "no", twice', ""), ("Grüße", "世界 🐈"), ("the cat", "der Kater")]


def write(path: Path, rows: list[tuple[str, str]], names: tuple[str, str] = ("source", "target")) -> Path:
    """Write the rows as the suffix says; each has a column more, which nobody asks for, between them."""
    header = (names[0], "note", names[1])
    table = [(source, "x", target) for source, target in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows([header, *table])
        elif path.suffix == ".tsv":
            file.writelines("\t".join(row) + "\n" for row in [header, *table])
        else:
            file.writelines(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in table)
    return path


def refused(path: Path, *words: str, columns: dict[str, str] | None = None, unit: str = "auto") -> None:
    with pytest.raises(DataError) as caught:
        list(open_corpus(str(path), unit, columns).read())
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_with_source_and_target_is_pairs(tmp_path, suffix, packed):
    path = write(tmp_path / f"a{suffix}", PAIRS)
    if packed:
        data = path.read_bytes()
        path = tmp_path / f"a{suffix}.gz"
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + data))
    corpus = open_corpus(str(path))
    assert (corpus.unit, corpus.fields, corpus.name) == ("line", ("source", "target"), path.name)
    assert corpus.description == "a table of source, target"
    for _ in range(2):
        assert [corpus.split(document) for document in corpus.read()] == PAIRS
    assert list(open_corpus(str(path), "line").read()) == list(corpus.read())
    running = open_corpus(str(path), "text")
    assert (running.unit, running.fields) == ("text", ("text",))


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_columns_of_other_names(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", PAIRS, ("en", "de"))
    assert open_corpus(str(path)).fields == ("text",)
    corpus = open_corpus(str(path), columns={"source": "en", "target": "de"})
    assert corpus.fields == ("source", "target")
    assert [corpus.split(document) for document in corpus.read()] == PAIRS
    back = open_corpus(str(path), columns={"text": "note", "label": "en"})
    assert (back.fields, next(back.read())) == (("text", "label"), "x\tthe cat")
    refused(path, "no column 'fr'; it has en, note, de", columns={"source": "en", "target": "fr"})
    refused(path, "did you mean 'note'?", columns={"source": "notes", "target": "de"})
    refused(path, "leave one of them out", columns={"source": "en", "target": "de"}, unit="text")
    refused(path, "two fields or more", columns={"source": "en"})


def test_columns_need_a_table(tmp_path):
    columns = {"source": "source", "target": "target"}
    text = write(tmp_path / "a.tsv", PAIRS).rename(tmp_path / "a.txt")
    assert open_corpus(str(text)).unit == "text"
    refused(text, ".tsv, .csv, .jsonl", "a.txt", columns=columns)
    write(tmp_path / "b.tsv", PAIRS)
    refused(tmp_path, "files of one kind", "a.txt", columns=columns)
    with pytest.raises(DataError, match=r"of a file: \.tsv, \.csv, \.jsonl"):
        open_corpus("names", columns=columns)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "src\ttgt\na\tb\n"),
        ("a.csv", "the source, then\nthe target\n"),
        ("a.csv", 'a"b"c,"\nsource,target\n'),
        ("a.jsonl", '["source", "target"]\n'),
        ("a.jsonl", "{source, target}\n"),
        ("a.jsonl", "[" * 100_000),
        ("a.jsonl", "\n\n \n"),
    ],
)
def test_what_is_no_table_of_pairs_is_text_as_it_was(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    corpus = open_corpus(str(path))
    assert (corpus.unit, corpus.fields, "".join(corpus.read())) == ("text", ("text",), content)
    refused(path, "no column 'source'", columns={"source": "source", "target": "target"})


def test_line_ends_empty_lines_and_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'"source", target\r\n\r\n"a ""b"", c",d\r\n\r\ne,f')
    assert list(open_corpus(str(path)).read()) == ['a "b", c\td', "e\tf"]
    path = tmp_path / "a.tsv"
    path.write_bytes(b'source\ttarget\r\n\r\n"a\tb"\r\nc\td')
    assert list(open_corpus(str(path)).read()) == ['"a\tb"', "c\td"]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"source": "a", "target": "b"}\r\n\n{"target": "d", "source": "c\\u00e9"}')
    assert list(open_corpus(str(path)).read()) == ["a\tb", "cé\td"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tsv", "source\ttarget\na\tb\nc\n", ["line 3: expected 2 columns, as in the header, got 1"]),
        ("a.tsv", "source\ttarget\n\na\tb\tc\n", ["line 3: expected 2 columns", "got 3", "TAB"]),
        ("a.tsv", "source\ttarget\n\tb\n", ["line 2: source is empty", "delete the line"]),
        ("a.tsv", "source\ttarget\n", ["no text"]),
        ("a.tsv", "source\ttarget\tsource\na\tb\tc\n", ["line 1", "'source' stands there twice"]),
        ("a.csv", "source,target\na,b\nc,d,e\n", ["line 3: expected 2 columns", "got 3", "quotes"]),
        ("a.csv", 'source,target\n"a\nb",c\n', ["line 2: source holds a line break", "space"]),
        ("a.csv", 'source,target\n"a",c\n"d\n\ne",f\ng,"\th"\n', ["line 3: source holds a line break"]),
        ("a.csv", 'source,note,target\na,"x\ny",b\n\n,x,d\n', ["line 5: source is empty"]),
        ("a.csv", 'source,target\na,b\n"c\td",e\n', ["line 3: source holds a TAB"]),
        ("a.csv", 'source,target\na,b\n"c,d\n', ["after line 2: not CSV", "quotes"]),
        ("a.csv", 'source,target\na,"b"c\n', ["after line 1: not CSV"]),
        ("a.csv", "source,target\na,b\r\rc,d\n", ["after line 1: not CSV"]),
        ("a.csv", f"source,target\na,{'b' * 200_000}\n", ["after line 1: not CSV", "131072"]),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', ["line 2: no field 'target'"]),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "a",\n', ["line 2: not JSON"]),
        ("a.jsonl", '{"source": "a", "target": "b"}\n\n[1]\n', ["line 3", "no object"]),
        ("a.jsonl", '{"source": "a", "target": ["b"]}\n', ["line 1: target is [", "expected a string"]),
        ("a.jsonl", '{"source": "a", "target": null}\n', ["line 1: target is null"]),
        ("a.jsonl", '{"source": "a\\tb", "target": "c"}\n', ["line 1: source holds a TAB"]),
        ("a.jsonl", '{"source": "a", "target": "\\ud83d"}\n', ["line 1: target holds half of a surrogate pair"]),
        ("a.jsonl", '{"source": "a", "target": "b"}\n' + "[" * 100_000, ["line 2: not JSON"]),
        ("a.jsonl", '{"source": "a", "target": "b"}\n' + "1" * 5_000, ["line 2: not JSON"]),
    ],
)
def test_bad_tables(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content, newline="")
    refused(path, *words)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    refused(packed, *words)


def test_damaged_tables_are_read_or_refused(tmp_path):
    """Bytes changed, deleted, doubled and cut off: documents of two fields, or one sentence that says why not."""
    generator = random.Random(0)
    read, errors = 0, []
    for i in range(240):
        suffix = (".tsv", ".csv", ".jsonl")[i % 3]
        data = bytearray(write(tmp_path / f"whole{suffix}", PAIRS * 3).read_bytes())
        for _ in range(generator.randrange(1, 4)):
            place = generator.randrange(len(data))
            new = generator.choice([b"", b"\0", b"\xff", b"\t", b"\n", b"\r", b'"', b",", b"{", b"\\ud800", b"[", data])
            data[place : place + generator.randrange(3)] = new
        damaged = bytes(data[: generator.randrange(len(data))] if i % 7 == 0 else data)
        packed = gzip.compress(damaged)
        if i % 5 == 0:  # in the gzip as well
            cut = generator.randrange(len(packed))
            packed = packed[:cut] + generator.randbytes(1) + packed[cut + 1 :]
        path = tmp_path / f"damaged{suffix}.gz"
        path.write_bytes(packed)
        try:
            corpus = open_corpus(str(path))
            documents = list(corpus.read())
        except DataError as error:
            errors.append(str(error))
            continue
        read += 1
        if corpus.fields == ("source", "target"):
            assert all(corpus.split(document)[0] for document in documents)
            "".join(documents).encode()
    assert len(errors) + read == 240
    assert min(len(errors), read) > 20
    assert all(str(tmp_path) in error and "\n" not in error for error in errors)
