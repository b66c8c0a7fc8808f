"""What other trackers are given is what the run's log says."""

import csv
import io
import json
import math
import struct
import sys

import pytest

from windtunnel import cli
from windtunnel.programs.tfevents import masked_crc32c, read_scalars
from windtunnel.report.tracking import export_history
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.events import Evaluation, Step, to_line
from windtunnel.training.run import open_run, write_run
from windtunnel.training.run_config import RunConfig


@pytest.fixture
def run(tmp_path):
    """A run of three steps, of which the second was evaluated."""
    letters = characters_tokenizer("abc", end=True)
    made = write_run(tmp_path / "runs/a/seed-0", RunConfig(corpus="x"), letters, {"corpus_sha256": ""})
    events = [Step(n, 3.0 / n, 1e-3, 0.5, 10, 0.25) for n in (1, 2, 3)]
    events.insert(2, Evaluation(2, "dev", {"loss": 2.5}, 100, True))
    (made.folder / "metrics.jsonl").write_text("".join(map(to_line, events)))
    return open_run(made.folder)


@pytest.fixture
def windtunnel(run, tmp_path, monkeypatch, capsys):
    """Run the command line beside the runs; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def once(*words):
        monkeypatch.setattr(sys, "argv", ["windtunnel", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = exit.code or 0
        return code, *capsys.readouterr()

    return once


def test_tensorboard_reads_every_number(run, tmp_path):
    [path] = export_history([run], "tensorboard", tmp_path / "board")
    assert path.parent == tmp_path / "board/a/seed-0"
    found = list(read_scalars(path))
    assert [(step, value) for tag, step, value in found if tag == "train/loss"] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert [(step, value) for tag, step, value in found if tag == "dev/loss"] == [(2, 2.5)]
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data, 0)
    times = struct.unpack_from("<d", data, 16 + length + 13)
    assert run.folder.joinpath("metrics.jsonl").stat().st_mtime - times[0] == pytest.approx(0.5, abs=1e-3)


def test_the_checksum_is_that_of_the_standard():
    """RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 8A9136AA."""
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_csv_and_json_have_every_number(windtunnel, tmp_path):
    code, out, _ = windtunnel("runs", "a", "--export", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["run"], row["step"], row["loss"], row["dev loss"]) for row in rows] == [
        ("a/seed-0", "1", "3.0", ""), ("a/seed-0", "2", "1.5", "2.5"), ("a/seed-0", "3", "1.0", ""),
    ]  # fmt: skip
    assert windtunnel("runs", "a", "--export", "json", "--out", "a.json")[0] == 0
    [found] = json.loads((tmp_path / "a.json").read_text())
    assert found["run"] == "a/seed-0"
    assert [event.get("loss") for event in found["events"] if event["event"] == "step"] == [3.0, 1.5, 1.0]


def test_a_loss_that_is_no_number_is_null_in_json(run):
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(to_line(Step(4, math.inf, 1e-3, 0.5, 10, 0.25)))
    [found] = json.loads(export_history([run], "json", None))
    assert found["events"][-1]["loss"] is None


@pytest.mark.parametrize("words", [["a", "--export", "wandb"], ["--export", "csv"], ["a", "--out", "x.csv"]])
def test_what_cannot_be_exported_is_said(windtunnel, words):
    code, _, err = windtunnel("runs", *words)
    assert code == 2
    assert "--export" in err
