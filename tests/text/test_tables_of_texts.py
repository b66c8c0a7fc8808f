"""Tables whose rows are documents of language modelling: CSV, TSV, JSONL, Parquet, a dataset on disk."""

import gzip
import json
import sys
from datetime import date

import pytest

from windtunnel.config import override
from windtunnel.errors import DataError, MissingExtra
from windtunnel.text.corpora import open_corpus
from windtunnel.text.corpora.tables import rows_of
from windtunnel.training.data import open_store
from windtunnel.training.recipes import recipe
from windtunnel.training.run import resolve

TEXTS = ["one, two", 'a "quoted" line\nand another', "ä€"]


def write(path, kind):
    rows = [{"id": n, "body": text, "stars": 3} for n, text in enumerate(TEXTS)]
    if kind == "csv":
        cells = ('"' + text.replace('"', '""') + '"' for text in TEXTS)
        path.write_text("id,body\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)) + '9,""\n')
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, [*rows, {"body": None}])).encode()))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        dataset(path, rows)


def dataset(folder, rows, more=()):
    """What `Dataset.save_to_disk` writes: streams of record batches, and their names."""
    pyarrow = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    names = []
    for number, part in enumerate([rows[:2], rows[2:]]):
        table = pyarrow.Table.from_pylist(part)
        names.append(f"data-0000{number}-of-00002.arrow")
        with pyarrow.ipc.new_stream(str(folder / names[-1]), table.schema) as stream:
            stream.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **dict(more)}))


@pytest.mark.parametrize("kind", ["csv", "jsonl.gz", "parquet", "dataset"])
def test_each_row_is_a_document_of_its_column(kind, tmp_path):
    path = tmp_path / f"mine.{kind}"
    write(path, kind)
    corpus = open_corpus(str(path), columns={"text": "body"})
    assert (list(corpus.read()), corpus.unit, corpus.fields) == (TEXTS, "file", ("text",))
    assert list(open_corpus(str(path)).read()) == TEXTS  # body is plain
    assert open_corpus(str(path), "file", {"text": "body"}).unit == "file"  # as a run records it


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_only_the_columns_that_are_needed_are_made(kind, tmp_path):
    path = tmp_path / f"mine.{kind}"
    write(path, kind)
    assert list(rows_of(path, ["body"])) == [(n, {"body": text}) for n, text in enumerate(TEXTS, start=1)]
    assert [row["stars"] for _, row in rows_of(path)] == [3, 3, 3]


def test_tsv_rows_are_documents(tmp_path):
    (tmp_path / "a.tsv").write_text("n\tcontent\n1\tone\n2\ttwo\n")
    corpus = open_corpus(str(tmp_path / "a.tsv"))
    assert (list(corpus.read()), corpus.description) == (["one", "two"], "a table of text (column content)")


def test_only_a_plain_name_is_guessed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("title,said\nx,one\n")
    assert open_corpus(str(path)).unit == "text"
    path.write_text("text,body\nx,one\n")
    assert open_corpus(str(path)).unit == "text"
    path.write_text("text,label\nx,one\n")
    assert open_corpus(str(path)).fields == ("text", "label")


def test_runs_of_before_read_such_a_table_as_they_did(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("n,text\n1,one\n")
    assert list(open_corpus(str(path), "text").read()) == ["n,text\n1,one\n"]
    assert list(open_corpus(str(path), "line").read()) == ["n,text", "1,one"]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("n,body\n1,one\n", {"text": "boddy"}, "no column 'boddy'; did you mean 'body'"),
        ("n,body\n1,one\n", {"source": "body"}, "expected text, or two fields or more"),
        ("n,body\n1,\n", {"text": "body"}, "holds no text"),
        ("n,body\n1\n", {"text": "body"}, "line 2: expected 2 columns"),
    ],
)
def test_what_is_no_such_table_is_refused(content, columns, message, tmp_path):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        open_corpus(str(tmp_path / "a.csv"), columns=columns)
    (tmp_path / "a.jsonl").write_text('{"body": 3}\n')
    with pytest.raises(DataError, match="line 1: body is 3, expected a string in quotes"):
        open_corpus(str(tmp_path / "a.jsonl"))
    (tmp_path / "half.jsonl").write_text('{"body": "\\ud83d"}\n')
    with pytest.raises(DataError, match="line 1: body holds half of a surrogate pair"):
        list(open_corpus(str(tmp_path / "half.jsonl")).read())


def test_datasets_that_cannot_be_read_as_they_are_say_why(tmp_path):
    rows = [{"said": text} for text in TEXTS]
    dataset(tmp_path / "d" / "train", rows)
    with pytest.raises(DataError, match=r"which column holds the texts\? It has said; say --column text=NAME"):
        open_corpus(str(tmp_path / "d" / "train"))
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DataError, match=r"holds several splits; give one of them: .*d/train"):
        open_corpus(str(tmp_path / "d"))
    dataset(tmp_path / "picked", rows, {"_indices_data_files": [{"filename": "indices.arrow"}]})
    with pytest.raises(DataError, match="is a selection of rows; save it with flatten_indices"):
        open_corpus(str(tmp_path / "picked"), columns={"text": "said"})
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet or a dataset"):
        open_corpus(str(tmp_path / "no.parquet"))
    with pytest.raises(DataError, match="columns are read by file, and unit=line was asked for"):
        open_corpus(str(tmp_path / "d" / "train"), "line", {"text": "said"})


def test_lists_and_dates_beside_the_texts_do_no_harm(tmp_path):
    pyarrow, path = pytest.importorskip("pyarrow"), tmp_path / "a.parquet"
    rows = [{"said": text, "turns": [{"text": "no", "on": date(2020, 1, 2)}]} for text in TEXTS]
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    assert list(open_corpus(str(path), columns={"text": "said"}).read()) == TEXTS
    with pytest.raises(DataError, match=r"which column holds the texts\? It has said, turns; say"):
        open_corpus(str(path))
    with pytest.raises(DataError, match=r'line 1: turns is \[{"text": "no", "on": "2020-01-02"}\], expected a string'):
        list(open_corpus(str(path), columns={"text": "turns"}).read())


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="pip install pyarrow"):
        open_corpus(str(tmp_path / "a.parquet"))


def shards(folder, kind, columns=("n", "body")):
    """Two shards of a kind, the first of two rows and the second of one."""
    folder.mkdir(parents=True)
    for number, rows in enumerate((["one", "two"], ["three"])):
        table = [dict(zip(columns, (n, text), strict=True)) for n, text in enumerate(rows)]
        path = folder / f"part-{number}.{kind}"
        if kind == "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(table), path)
        elif kind == "jsonl.gz":
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, table)).encode()))
        else:
            between = "\t" if kind == "tsv" else ","
            path.write_text(
                "\n".join([between.join(columns), *(between.join(map(str, one.values())) for one in table)])
            )


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("glob", ["", "/*", "/part-*"])
def test_a_folder_or_a_glob_of_shards_is_one_table(kind, glob, tmp_path):
    shards(tmp_path / "data", kind)
    given = f"{tmp_path}/data{glob}"
    corpus = open_corpus(given)
    assert (list(corpus.read()), corpus.unit) == (["one", "two", "three"], "file")
    assert corpus.description == "a table of text (column body) in 2 files"
    assert corpus.to_record == {"columns": {"text": "body"}}
    asked = open_corpus(given, "file", corpus.guessed)  # as a run records it
    assert (list(asked.read()), asked.to_record) == (["one", "two", "three"], {})


def test_shards_whose_column_is_not_plain_are_documents_until_it_is_said(tmp_path):
    shards(tmp_path / "data", "jsonl.gz", ("n", "said"))
    given = str(tmp_path / "data")
    assert len(list(open_corpus(given).read())) == 2
    assert list(open_corpus(given, columns={"text": "said"}).read()) == ["one", "two", "three"]
    shards(tmp_path / "other", "parquet", ("n", "said"))
    with pytest.raises(DataError, match=r"which column holds the texts\? It has n, said"):
        open_corpus(str(tmp_path / "other"))


def test_runs_of_before_read_shards_as_they_did(tmp_path):
    shards(tmp_path / "data", "csv")
    assert list(open_corpus(str(tmp_path / "data"), "file").read()) == ["n,body\n0,one\n1,two", "n,body\n0,three"]
    assert len(list(open_corpus(str(tmp_path / "data"), "line").read())) == 5


def test_shards_of_pairs_and_of_labelled_texts_are_read_too(tmp_path):
    shards(tmp_path / "pairs", "tsv", ("target", "source"))
    pairs = open_corpus(str(tmp_path / "pairs"))
    assert (pairs.fields, list(pairs.read())) == (("source", "target"), ["one\t0", "two\t1", "three\t0"])
    shards(tmp_path / "labels", "csv", ("stars", "review"))
    labels = open_corpus(str(tmp_path / "labels"), columns={"text": "review", "label": "stars"})
    assert list(labels.read()) == ["one\t0", "two\t1", "three\t0"]


def test_a_shard_that_is_not_as_the_others_is_named(tmp_path):
    shards(tmp_path / "data", "csv")
    (tmp_path / "data" / "part-2.csv").write_text("n,text\n1,four\n")
    with pytest.raises(DataError, match=r"part-2\.csv: no column 'body'"):
        open_corpus(str(tmp_path / "data"))
    (tmp_path / "data" / "part-2.csv").write_text("n,body\n1,four,five\n")
    with pytest.raises(DataError, match=r"part-2\.csv, line 2: expected 2 columns"):
        list(open_corpus(str(tmp_path / "data")).read())
    (tmp_path / "data" / "part-2.csv").rename(tmp_path / "data" / "README.md")
    assert len(list(open_corpus(str(tmp_path / "data")).read())) == 3  # files of text
    with pytest.raises(DataError, match=r"files of one kind, .*; got .*README\.md; .*'data/\*\.jsonl' in quotes"):
        open_corpus(str(tmp_path / "data"), columns={"text": "body"})


def test_parquet_files_beside_a_readme_are_not_passed_over_in_silence(tmp_path):
    shards(tmp_path / "data", "parquet")
    (tmp_path / "data" / "README.md").write_text("# A data set")
    with pytest.raises(
        DataError, match=r"2 Parquet files and 1 text files such as README\.md; .*'.*/data/\*\.parquet'"
    ):
        open_corpus(str(tmp_path / "data"))
    assert list(open_corpus(f"{tmp_path}/data/*.parquet").read()) == ["one", "two", "three"]
    assert list(open_corpus(str(tmp_path / "data"), "text").read()) == ["# A data set"]  # as a run of before recorded


def test_a_run_on_shards_records_the_columns_that_were_guessed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        rows = (json.dumps({"body": f"text {n} of {number} with some words"}) for n in range(200))
        (folder / f"{number}.jsonl").write_text("\n".join(rows))
    config = override(recipe("tiny", str(folder)), ["train.steps=1", "train.threads=1", "train.compile=false"])
    resolved = resolve(config, open_store(config))
    assert resolved.text.columns == {"text": "body"}
    assert open_store(resolved).sha256 == open_store(config).sha256
