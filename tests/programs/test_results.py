"""Results that exist: what other programs have written is read to the digit, and judged as runs are."""

import base64
import json
import sqlite3
import statistics
import struct
import zlib
from pathlib import Path

import pytest
from scipy import stats

from windtunnel.errors import ConfigError, DataError
from windtunnel.programs.metrics import MetricSource
from windtunnel.programs.results import read_results
from windtunnel.programs.tfevents import masked_crc32c, read_scalars

BASE, NEW = [2.5, 2.25, 2.75, 2.5], [2.0, 1.875, 2.375, 2.125]
EVENTS = """eNqTYICAxfXeSpxevN6yIodvOUrxJhUlZubpuZal5pVYGTX+8lwiA1V34uBUWc7PohB1WoJc/FwcZYk5+jn5xcWiDAwKDl4h1hzi
ULXPz/2Q4/xmClXLw8XFxZyYnAxUxmC/5fH5CDmospt3hIw4Dc0gygS4MAwVcMjIXCQpCVXd/ZFDgzMWoRrJWAX7Asc3SSjGNsIU
imAYy+DAfV81AsXYlQjVSMY62DvssmZVY4QoLJ1fvIpTyxbqqVlMXNOZuBgztCYycULkP9gLQhgcDpIwhiKEIeGgCWHoOBgVcMzM
lBSNemuvLfLr7D6VD/bJnsdEWQ99tN8V0Gs4v+OzvbH9C5n1NV/tW13PzD+w6Lt9pc+vR5f//7QPbncTzpz5x/7OlLN6vaX/7R8I
fuQp8WV0KE+w4UvjYHZ4ZcZftvg9i0PGHgHTWezsDrxzji7QDOV0sCpgQAEf7BkoAoT0f7CfdFh8MQCEw4uY"""
"""A file that tensorboardX 2.6.5 wrote: val/loss is 2.5 - step / 40 and acc is .5 + step / 80 at 0, 10 and 20, and a
histogram."""


def read(where, given, pair="seed", **more):
    return read_results("arm", str(given), [MetricSource(where=where, **more)], pair)


def values(measured, where):
    return {one.run.seed: one.run.scores.get(where) for one in measured.runs}


def test_a_table_is_judged_as_runs_are(judge):
    for name, own in (("a", BASE), ("b", NEW)):
        Path(f"{name}.csv").write_text("seed,val_loss\n" + "".join(f"{i},{v}\n" for i, v in enumerate(own)))
    metrics = [{"where": "val_loss"}]
    found, code, said = judge(results={"A": "a.csv", "B": "b.csv"}, metrics=metrics)
    (one,) = found.judgements
    assert (one.verdict.word, code, said) == ("better", 0, [])
    assert one.verdict.p == pytest.approx(stats.ttest_rel(NEW, BASE).pvalue)
    assert one.verdict.difference.estimate == statistics.fmean(NEW) - statistics.fmean(BASE)


def test_seeds_that_only_one_arm_has_take_no_part_and_are_said(judge):
    Path("a.csv").write_text("seed,loss\n" + "".join(f"{i},{v}\n" for i, v in enumerate(BASE)))
    Path("b.csv").write_text("seed,loss\n" + "".join(f"{i + 1},{v}\n" for i, v in enumerate(NEW)))
    found, _, _ = judge(results={"A": "a.csv", "B": "b.csv"}, metrics=[{"where": "loss"}])
    assert [seed for seed, _ in found.judgements[0].differences] == [1, 2, 3]
    assert "seeds 0, 4 are not in all arms, so they take no part" in found.notes


def test_one_table_of_all_arms_with_a_row_a_step(tmp_path):
    rows = "".join(f"{arm},{seed},{step},{seed + step / 8}\n" for arm in "ab" for seed in (3, 7) for step in (2, 4))
    (tmp_path / "all.csv").write_text("arm,seed,step,loss\n" + rows)
    found = read("loss", f"{tmp_path}/all.csv?arm=a")
    assert values(found, "loss") == {3: 3.5, 7: 7.5}
    assert (found.runs[0].series["loss"].steps, found.runs[0].series["loss"].values) == ((2, 4), (3.25, 3.5))
    assert values(read("loss", f"{tmp_path}/all.csv?arm=a", take="best"), "loss") == {3: 3.25, 7: 7.25}


@pytest.mark.parametrize("column", ["arm", "step"])
def test_rows_of_several_arms_are_not_taken_for_one_run(tmp_path, column):
    (tmp_path / "all.csv").write_text(f"seed,{column},loss\n0,1,1.5\n1,1,2.5\n0,1,9\n1,1,9\n")
    with pytest.raises(DataError, match=r"all.csv, seed 0 has 2 rows, and no column .* choose those of the arm"):
        read("loss", tmp_path / "all.csv")


def test_a_filter_by_a_column_that_is_not_there_takes_nothing(tmp_path):
    (tmp_path / "all.csv").write_text("seed,loss\n0,1.5\n")
    with pytest.raises(ConfigError, match=r"no runs with arm=\*"):
        read("loss", f"{tmp_path}/all.csv?arm=*")


def test_rows_without_seeds_are_paired_by_order_when_asked(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"loss": 2.5}\n{"loss": 1.5}\n')
    assert values(read("loss", tmp_path / "a.jsonl", "order"), "loss") == {0: 2.5, 1: 1.5}
    with pytest.raises(DataError, match=r"no seed in row 1; there are loss: .*--pair order"):
        read("loss", tmp_path / "a.jsonl")


def test_a_folder_of_logs(tmp_path):
    for seed in (1, 2, 10):
        (tmp_path / f"base-v2-seed{seed}.log").write_text(f"loss 9\nloss {seed}.5\n")
        (tmp_path / f"other-v2-seed{seed}.log").write_text("loss 3\n")
    assert values(read(r"loss ([0-9.]+)", f"{tmp_path}?run=base-*"), "loss") == {1: 1.5, 2: 2.5, 10: 10.5}
    with pytest.raises(DataError, match=r"two runs with seed 1: base-v2-seed1.log and other-v2-seed1.log; choose"):
        read(r"loss ([0-9.]+)", tmp_path)


def test_tensorboard_wrote_what_is_read(tmp_path):
    path = tmp_path / "runs/base/seed-3/events.out.tfevents.1.host"
    path.parent.mkdir(parents=True)
    path.write_bytes(zlib.decompress(base64.b64decode(EVENTS)))
    scalars = list(read_scalars(path))
    assert [s for s in scalars if s[0] == "val/loss"] == [("val/loss", i, 2.5 - i / 40) for i in (0, 10, 20)]
    assert [s for s in scalars if s[0] == "acc"] == [("acc", i, 0.5 + i / 80) for i in (0, 10, 20)]
    found = read("val/loss", tmp_path / "runs/base")
    assert values(found, "val/loss") == {3: 2.0}
    assert found.runs[0].series["val/loss"].steps == (0, 10, 20)


def test_a_tensor_of_one_float_is_a_scalar_and_the_end_may_be_missing(tmp_path):
    def field(number, kind, data):
        return bytes([number << 3 | kind]) + (bytes([len(data)]) if kind == 2 else b"") + data

    def record(step, value):
        tensor = field(1, 0, b"\x01") + field(4, 2, struct.pack("<f", value))
        event = field(2, 0, bytes([step])) + field(5, 2, field(1, 2, field(1, 2, b"loss") + field(8, 2, tensor)))
        length = struct.pack("<Q", len(event))
        return length + struct.pack("<I", masked_crc32c(length)) + event + bytes(4)

    path = tmp_path / "tfevents"
    path.write_bytes(record(1, 2.5) + record(2, 1.25)[:-5])
    assert list(read_scalars(path)) == [("loss", 1, 2.5)]
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(DataError, match="no file of TensorBoard"):
        list(read_scalars(path))


def test_crc32c_is_that_of_its_standard():
    crc = 0xE3069283  # of "123456789", RFC 3720, appendix B.4
    assert masked_crc32c(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("new", [True, False])
def test_a_project_of_trackio(tmp_path, new):
    path, extra = tmp_path / "project.db", "run_id TEXT, " if new else ""
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE metrics (id INTEGER PRIMARY KEY, {extra}run_name TEXT, step INTEGER, metrics TEXT)")
        db.execute(f"CREATE TABLE configs (id INTEGER PRIMARY KEY, {extra}run_name TEXT, config TEXT)")
        for seed, name in ((5, "brave-1"), (6, "calm-2")):
            told = (f"id{seed}", name) if new else (name,)
            names = "run_id, run_name" if new else "run_name"
            marks = ", ".join("?" * len(told))
            db.execute(
                f"INSERT INTO configs ({names}, config) VALUES ({marks}, ?)", (*told, json.dumps({"seed": seed}))
            )
            for step, loss in ((0, 3.5), (10, "NaN" if seed == 6 else 2.5)):
                row = (*told, step, json.dumps({"loss": loss}).encode())
                db.execute(f"INSERT INTO metrics ({names}, step, metrics) VALUES ({marks}, ?, ?)", row)
    found = read("loss", path)
    assert values(found, "loss") == {5: 2.5, 6: float("inf")}
    assert [one.run.reason for one in found.runs] == ["finished", "diverged"]
    assert found.runs[0].series["loss"].steps == (0, 10)
    assert list(values(read("loss", f"{path}?run=calm-*"), "loss")) == [6]


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "a.db").write_text("no database, and longer than its header would be, so that it is looked into")
    (tmp_path / "a.csv").write_text("seed,loss\n0,1\n")
    (tmp_path / "a.xls").write_text("")
    for given, kind, told in (
        ("a.db", DataError, "cannot be read as a project of trackio"),
        ("a.xls", ConfigError, "expected a folder, or a file that ends in .csv"),
        ("nowhere", ConfigError, "does not exist"),
        ("a.csv?seed", ConfigError, r"expected PATH\?COLUMN=PATTERN"),
        ("a.csv?seed=9", ConfigError, "no runs with seed=9"),
    ):
        with pytest.raises(kind, match=told):
            read("loss", tmp_path / given)
