"""What ranks do when one of them is killed, asked to stop, or was given something else than the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rank_processes import Processes, command
from tiny_runs import names_file

from windtunnel.cli import main
from windtunnel.errors import ConfigError
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.distributed import open_ranks
from windtunnel.training.events import Stopped
from windtunnel.training.run import METRICS, open_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress_ranks.py"
TINY = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2", "model.context_length=8", "train.compile=false"]


def words(corpus: object, *changes: str) -> list[str]:
    sets = [word for change in (*TINY, *changes) for word in ("--set", change)]
    return ["train", str(corpus), "--recipe", "tiny", "--out", "out", *sets]


def each_its_own(folder: Path, *commands: list[str]) -> None:
    """Each rank its own command, in its own folder if there is one of its number."""
    rank = int(os.environ["RANK"])
    own = folder / str(rank)
    command(own if own.exists() else folder, *commands[rank % len(commands)])


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_and_loses_nothing():
    ended = subprocess.run([sys.executable, SCRIPT, "--kills", "1"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["kills"], summary["wrong_exits"], summary["unreadable_runs"]) == (1, 0, 0)
    assert summary["equal_to_uninterrupted"] == summary["finished_runs"] >= 1


@pytest.mark.slow
def test_sigterm_to_one_rank_saves_on_all(tmp_path):
    corpus = names_file(tmp_path)
    ranks = Processes(2, each_its_own, tmp_path, [*words(corpus, "train.steps=5000"), "--parallel", "ddp"])
    log = tmp_path / "out" / "seed-0" / METRICS
    while not log.exists() or log.read_text().count('"step"') < 5:
        time.sleep(0.05)
    os.kill(ranks.ranks[1][0].pid, signal.SIGTERM)
    ends = ranks.join()
    assert [ended.code for ended in ends] == [75, 75], ends
    run = open_run(log.parent)
    stopped = run.events()[-1]
    assert isinstance(stopped, Stopped)
    assert stopped.reason == "interrupted"
    assert checkpoints(run.folder)[0][0] == stopped.step > 0
    assert "stopped and saved; go on with: windtunnel resume out/seed-0" in " ".join(ends[0].said.split())


def refused(tmp_path: Path, *commands: list[str], size: int = 2) -> list[str]:
    """What the ranks say, each of which must exit with 2."""
    ends = Processes(size, each_its_own, tmp_path, *commands).join()
    assert [ended.code for ended in ends] == [2] * size, ends
    said = [" ".join(ended.said.split()) for ended in ends]
    assert not any("Traceback" in each for each in said)
    return said


def test_more_ranks_than_rows(tmp_path):
    few = words(names_file(tmp_path), "train.batch_size=7", "train.grad_accumulation=4")
    for said in refused(tmp_path, [*few, "--parallel", "fsdp"]):
        assert "2 ranks cannot share micro-batches of 1 rows (train.batch_size 7 / train.grad_accumulation 4)" in said
    assert not (tmp_path / "out").exists()


def test_other_settings_on_one_rank(tmp_path):
    usual = [*words(names_file(tmp_path)), "--parallel", "ddp"]
    for said in refused(tmp_path, usual, [*usual, "--set", "optimizer.lr=0.5"]):
        assert "rank 1 does not train what rank 0 trains: optimizer.lr is 0.5, not 0.005; give all ranks" in said
    assert not (tmp_path / "out").exists()


def test_another_corpus_on_one_rank(tmp_path):
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        names_file(tmp_path / rank)
    with (tmp_path / "1" / "names.txt").open("a") as file:
        file.write("\nabba")
    for said in refused(tmp_path, [*words("names.txt"), "--parallel", "ddp"]):
        assert "rank 1 does not train what rank 0 trains: the corpus' SHA-256 is" in said


def test_other_code_on_one_rank(tmp_path):
    usual = [*words(names_file(tmp_path)), "--parallel", "ddp"]
    ends = Processes(2, with_other_code_on_rank_1, tmp_path, usual).join()
    assert [ended.code for ended in ends] == [2, 2], ends
    assert all("windtunnel's code is 'feedbeef', not" in " ".join(ended.said.split()) for ended in ends)


def with_other_code_on_rank_1(folder: Path, usual: list[str]) -> None:
    if os.environ["RANK"] == "1":
        from windtunnel.runs import distributed

        distributed.code_sha256 = lambda: "feedbeef"
    command(folder, *usual)


def test_an_error_of_one_rank_is_told_by_all(tmp_path):
    """Only rank 1 lacks the corpus."""
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    names_file(tmp_path / "0")
    ends = Processes(2, each_its_own, tmp_path, [*words("names.txt"), "--parallel", "fsdp"]).join()
    assert [ended.code for ended in ends] == [3, 3], ends
    assert "windtunnel: rank 1: " in ends[0].said
    assert all("names.txt" in ended.said for ended in ends)


def is_open_after_an_error() -> bool:
    with suppress(ConfigError), open_ranks("ddp") as ranks, ranks.barrier():
        raise ConfigError("refused")
    return torch.distributed.is_initialized()


def test_an_error_leaves_no_process_group_open():
    """One that is open as Python ends aborts the process now and then, in place of the error's exit code."""
    ends = Processes(2, is_open_after_an_error).join()
    assert [ended.gave for ended in ends] == [False, False], ends


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--parallel", "fsdp"], "--parallel fsdp shares a run among the processes that torchrun starts; begin with: "
         "torchrun --nproc-per-node 2 -m windtunnel train CORPUS --parallel fsdp"),
        (["--parallel", "zero"], "there is no --parallel zero; known are ddp and fsdp"),
        (["--parallel", "ddp", "--seeds", "2"], "--parallel trains one seed, given --seeds 2; begin torchrun"),
    ],
)  # fmt: skip
def test_without_torchrun(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["windtunnel", *words(names_file(tmp_path)), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_torchrun_without_parallel(tmp_path, monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["windtunnel", *words(names_file(tmp_path))])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "torchrun started 2 processes; say how they share the run: --parallel ddp or fsdp" in capsys.readouterr().err


def test_a_rank_that_is_told_to_stop_as_it_ends_exits_with_its_own_code():
    """torchrun tells all as soon as one has ended, also when Python's own handlers of signals are away."""
    program = (
        "import os, signal, sys\n"
        "from windtunnel.cli.terminal import asked_to_stop, console\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM): kill(pid, number)\n"
        "with asked_to_stop(console(), until_exit=True): pass\n"
        "sys.modules['late'] = Late()\n"
        "sys.exit(2)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, "")
