"""Texts and answers from tables, in every kind, and what is wrong with a table is said with its line."""

import pytest

from windtunnel.errors import DataError
from windtunnel.labelling.examples import Columns, Example, add_answers, read_examples

KINDS = {
    "a.csv": 'id,text,label\nx,"one, two",good\ny,three,\n',
    "a.tsv": "id\ttext\tlabel\nx\tone, two\tgood\ny\tthree\t\n",
    "a.jsonl": '{"id": "x", "text": "one, two", "label": "good"}\n{"id": "y", "text": "three", "label": null}\n',
}


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_table(written, name):
    found = read_examples(written(name, KINDS[name]))
    assert found == (Example("x", "one, two", {"": "good"}), Example("y", "three"))
    assert [example.label for example in found] == ["good", None]


def test_rows_are_numbered_and_numbers_are_labels(written):
    found = read_examples(
        written("a.jsonl", '{"text": "one"}\n\n{"text": "two", "label": 1}\n{"text": "3", "label": 0}\n')
    )
    assert [(one.id, one.label) for one in found] == [("1", None), ("2", "1"), ("3", "0")]


def test_answers_of_several_annotators(written):
    path = written("a.csv", "id,text,label,annotator\nx,one,good,ann\nx,one,bad,bob\ny,two,,\n")
    x, y = read_examples(path)
    assert (x.answers, x.label, x.disputed) == ({"ann": "good", "bob": "bad"}, None, True)
    more = written("more.csv", "id,label,annotator\nx,bad,cy\ny,good,ann\ny,bad,ann\nx,,dee\n")
    x, y = add_answers((x, y), more)
    assert (x.label, y.answers, y.disputed) == ("bad", {"ann": "bad"}, False)
    assert list(x.answers) == ["ann", "bob", "cy"]


def test_other_columns(written):
    path = written("a.csv", "number,body,sex\n7,Ada,f\n")
    [found] = read_examples(path, Columns("body", "sex", "number"))
    assert (found.id, found.text, found.label) == ("7", "Ada", "f")
    with pytest.raises(DataError, match=r"no column 'txet'; did you mean 'text'"):
        read_examples(written("b.csv", "text,label\na,b\n"), Columns("txet"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "text\none\n", r"expected a table, \.tsv, \.csv, \.jsonl"),
        ("a.csv", "text,label\n", "holds no texts"),
        ("a.csv", "text,label\none,x\n  ,y\n", "line 3: text is empty"),
        ("a.csv", "id,text\nx,one\nx,two\n", "line 3: the id 'x' stands there twice"),
        ("a.csv", "id,text\n,one\n", "line 2: id is empty"),
        ("a.csv", "id,text,annotator\nx,one,a\nx,two,b\n", "line 3: the id 'x' stands there twice"),
        ("a.csv", "text,text\none,x\n", "the column 'text' stands there twice"),
        ("a.jsonl", '{"text": "one"}\n{"label": "b"}\n', "line 2: no value for 'text'"),
        ("a.jsonl", '{"text": "one", "label": ["a"]}\n', "line 1: label is .*, expected a text or a number"),
        ("a.jsonl", "", "no column 'text'"),
    ],
)
def test_a_bad_table(written, name, text, said):
    with pytest.raises(DataError, match=said):
        read_examples(written(name, text))


def test_answers_to_rows_that_were_moved(written):
    examples = (Example("1", "one  text"), Example("2", "two"))
    found = add_answers(examples, written("b.csv", "id,label,text\n1,x,one text\n2,,another\n"))
    assert [one.label for one in found] == ["x", None]
    with pytest.raises(DataError, match=r"line 3: the id '2' is that of another text, 'two', here 'one text'"):
        add_answers(examples, written("c.csv", "id,label,text\n1,,two\n2,x,one text\n"))


def test_answers_to_texts_that_are_not_there(written):
    examples = (Example("story-1", "one"),)
    with pytest.raises(DataError, match=r"line 2: no text has the id 'story-l'; did you mean 'story-1'"):
        add_answers(examples, written("b.csv", "id,label\nstory-l,x\n"))
    with pytest.raises(DataError, match="no column 'id'"):
        add_answers(examples, written("c.csv", "label\nx\n"))
