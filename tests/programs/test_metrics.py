"""What is taken out of outputs and files: numbers as they were written, whole, the last or the best."""

import math

import pytest

from windtunnel.config import parse
from windtunnel.errors import ConfigError, DataError
from windtunnel.programs.metrics import MetricSource, read_series


def found(text, where, name="output.log", tmp_path=None, **more):
    source = parse(MetricSource, {"where": where, **more})
    (tmp_path / name).write_text(text)
    series = read_series(source, tmp_path / name)
    return series, series.score(source)


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("val loss 2.5\nval loss 2.25\nval loss 2.375\n", r"val loss ([0-9.]+)", 2.375),
        ("loss 1.2e-05 then", r"loss ([0-9.]+)", 1.2e-05),  # the group alone would take 1.2
        ("loss 3E+2", r"loss ([0-9.]+)", 300.0),
        ("loss 1.5. Done", r"loss ([0-9.]+)", 1.5),
        ("tokens 1,234.5 a second", r"tokens ([0-9.,]+)", 1234.5),
        ("loss: -0.5", r"loss: (-?[0-9.]+)", -0.5),
        ("loss  0.75", r"loss\s+(\S+)", 0.75),
        ("epoch 3: a=1 b=2", r"a=(?P<value>\d+) b=(\d+)", 1.0),
        ("error 7\nloss 1", r"^loss (\d+)$", 1.0),
    ],
)
def test_the_last_number_of_a_pattern(tmp_path, text, where, value):
    assert found(text, where, tmp_path=tmp_path)[1] == value


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("reward 3.0\nreward -2.5", "reward ([0-9.]+)", -2.5),
        ("reward: 3.0\nreward:-2.5", "reward:\\s*([0-9.]+)", -2.5),
        ("reward=3\nreward=-2e-3", "reward=([0-9.]+)", -0.002),
        ("ckpt-0.53.pt", "ckpt-([0-9.]+)[.]pt", 0.53),
        ("tok/s 12,345.5", "tok/s ([0-9.]+)", 12345.5),
        ("losses 0.5,0.6", "losses ([0-9.]+)", 0.5),
        ("at 3, loss 4", "at ([0-9.]+)", 3.0),
    ],
)
def test_signs_and_thousands_that_a_group_leaves_out_are_a_part_of_the_number(tmp_path, text, where, value):
    assert found(text, where, tmp_path=tmp_path)[1] == value


def test_a_decimal_comma_is_refused_and_not_read_as_thousands(tmp_path):
    (tmp_path / "log.csv").write_text('loss\n"0,512"\n')
    with pytest.raises(DataError, match="loss is '0,512', and a number is expected"):
        read_series(MetricSource(where="loss"), tmp_path / "log.csv")


def test_the_best_number_of_a_pattern(tmp_path):
    text = "".join(f"acc {a}\n" for a in (0.5, 0.75, 0.625))
    assert found(text, r"acc ([0-9.]+)", tmp_path=tmp_path, take="best", better="higher")[1] == 0.75
    assert found(text, r"acc ([0-9.]+)", tmp_path=tmp_path, take="best")[1] == 0.5


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf", "-inf"])
def test_a_number_that_is_none_is_found_though_the_pattern_wants_digits(tmp_path, bad):
    series, value = found(f"loss 2.5\nloss {bad}\n", r"loss ([0-9.]+)", tmp_path=tmp_path)
    assert len(series.values) == 2
    assert not math.isfinite(value)


@pytest.mark.parametrize(
    "where",
    [
        r"step (?P<step>\d+)\S* loss ([0-9.]+)",
        r"[(\[]step (?P<step>\d+)[)\]] loss ([0-9.]+)",
        r"\(step (?:\d+)\) loss (?P<value>[0-9.]+)",
    ],
)
@pytest.mark.parametrize(("last", "value"), [("nan", math.nan), ("-Inf", -math.inf), ("-0.5", -0.5)])
def test_nan_and_a_sign_are_found_wherever_the_group_of_the_number_stands(tmp_path, where, last, value):
    text = f"(step 1) loss 2.5\n(step 2) loss {last}\n"
    series, score = found(text, where, tmp_path=tmp_path)
    assert len(series.values) == 2
    assert score == pytest.approx(value, nan_ok=True)


def test_a_word_that_only_begins_like_nan_is_none(tmp_path):
    assert found("loss 2.5\nloss nano\n", r"loss ([0-9.]+)", tmp_path=tmp_path)[1] == 2.5


def test_nothing_is_found_where_there_is_nothing(tmp_path):
    assert found("hello", r"loss ([0-9.]+)", tmp_path=tmp_path)[1] is None


def test_steps_are_those_of_the_output(tmp_path):
    text = "step 10 loss 2\nstep 20 loss 1\n"
    series, _ = found(text, r"step (?P<step>\d+) loss ([0-9.]+)", tmp_path=tmp_path)
    assert (series.steps, series.values) == ((10.0, 20.0), (2.0, 1.0))
    assert found(text, r"loss ([0-9.]+)", tmp_path=tmp_path)[0].steps == (0.0, 1.0)


def test_keys_of_json_lines_among_other_output(tmp_path):
    text = 'hello\n{"step": 5, "val": {"loss": 2.5}}\n{broken\n{"step": 9, "val": {"loss": 2}}\n{"other": 1}\n'
    series, value = found(text, "val.loss", tmp_path=tmp_path)
    assert (series.steps, series.values, value) == ((5.0, 9.0), (2.5, 2.0), 2.0)


def test_files_of_json_and_tables(tmp_path):
    assert found('{"loss": 2.5}', "loss", "a.json", tmp_path)[1] == 2.5
    assert found('[{"loss": 2.5}, {"loss": NaN}]', "loss", "a.json", tmp_path, take="best")[1] == 2.5
    assert found("epoch,loss\n1,2.5\n2,2.25\n3,\n", "loss", "a.csv", tmp_path)[0].steps == (1.0, 2.0)
    assert found("epoch\tloss\n1\t2.5\n", "loss", "a.tsv", tmp_path)[1] == 2.5


def test_tables_as_spreadsheets_write_them(tmp_path):
    text = '\ufeffseed, note, loss\n1, "two\nlines", 2.5\n'
    series, score = found(text, "loss", "log.csv", tmp_path)
    assert (series.values, score) == ((2.5,), 2.5)
    assert found(text, "seed", "log.csv", tmp_path)[1] == 1.0


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("log.csv", "loss\n" + "x" * 200_000, "cannot be read as a table"),
        ("log.jsonl", '{"loss": 1}\n{"loss": tru', "line 2 is no JSON"),
    ],
)
def test_a_damaged_file_is_said_and_not_read_in_part(tmp_path, name, text, told):
    with pytest.raises(DataError, match=told):
        found(text, "loss", name, tmp_path)


def test_what_is_no_number_is_said(tmp_path):
    with pytest.raises(DataError, match=r"'high', and a number is expected"):
        found("loss high", r"loss (\w+)", tmp_path=tmp_path)
    with pytest.raises(DataError, match="'high', and a number"):
        found("loss\nhigh\n", "loss", "a.csv", tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_series(MetricSource(where="loss"), tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("where", "told"),
    [(r"loss ([0-9.]+", "no regular expression"), (r"loss \([0-9.]+\)", "needs a group around the number")],
)
def test_a_wrong_pattern_is_said(where, told):
    with pytest.raises(ConfigError, match=told):
        parse(MetricSource, {"where": where})


@pytest.mark.parametrize(
    ("where", "title"),
    [
        (r"val loss ([0-9.]+)", "val loss"),
        (r"step (?P<step>\d+): val loss=\s*([0-9.]+)", "val loss"),
        (r"^([0-9.]+)$", r"^([0-9.]+)$"),
        ("val.loss", "val.loss"),
    ],
)
def test_titles(where, title):
    assert MetricSource(where=where).title == title


@pytest.mark.parametrize(("title", "is_time"), [("step time", True), ("tok/s", True), ("seconds", True), ("ms", True),
                                                ("loss", False), ("items", False), ("sentiment", False)])  # fmt: skip
def test_which_names_are_times(title, is_time):
    assert MetricSource(where=title).is_time == is_time
