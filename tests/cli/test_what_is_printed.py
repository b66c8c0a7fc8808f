"""What reaches a terminal or a pipe: no text is markup, none steers, none is lost, and a closed pipe is no error."""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import windtunnel
from windtunnel.cli.terminal import console, print_json
from windtunnel.library.training import train
from windtunnel.report.progress import TrainingProgress
from windtunnel.report.runs import runs_table
from windtunnel.report.table import table
from windtunnel.report.terminal import PlainConsole
from windtunnel.training.events import Stopped

CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"
SHOWN = r"\x1b]52;c;cm0gLXJm\x07"
EVIL = f"a[bold]b[/c] :smile: {CLIPBOARD}\x9b2J\u202e\udcff\r"
EVIL_SHOWN = rf"a[bold]b[/c] :smile: {SHOWN}\x9b2J\u202e\xff\r"


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    model = {"n_layers": 1, "d_model": 8, "n_heads": 2}
    folder = tmp_path_factory.mktemp("printed") / "a[bold]b"
    train("names", "tiny", steps=2, out=folder, progress=False, model=model, train__threads=1)
    return folder


def in_process(*words, **more):
    return subprocess.run([sys.executable, "-m", "windtunnel", *map(str, words)], check=False, **more)


def on_a_terminal(program):
    """What a program writes when its output is a terminal."""
    ours, its = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=its, stderr=its, check=True)
    os.close(its)
    with os.fdopen(ours, "rb") as written:
        return written.read1().decode()


def test_a_console_shows_every_text_as_it_is_and_nothing_steers_the_terminal():
    for shown in (EVIL, table("", ("name", "n"), [(EVIL, 1)]).terminal(), table(EVIL, (EVIL,), []).terminal()):
        out = PlainConsole(file=io.StringIO(), width=200)
        out.print(shown)
        assert EVIL_SHOWN in out.file.getvalue()
    out = PlainConsole(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    with out.status(EVIL):
        out.print("bold", style="bold")
    assert EVIL_SHOWN in out.file.getvalue()
    assert "\x1b[1mbold\x1b[0m" in out.file.getvalue()  # what the console itself says stays
    assert CLIPBOARD not in out.file.getvalue()


def test_the_name_of_a_run_is_no_markup_while_it_trains():
    out = PlainConsole(file=io.StringIO(), width=200, force_terminal=True)
    with TrainingProgress(out) as progress:
        progress.show("a[/b]\x1b", Stopped(0, "failed", "a[bold]b"))
    assert r"a[/b]\x1b: failed: a[bold]b" in out.file.getvalue()


def test_a_text_is_written_out_on_a_terminal_and_reaches_a_pipe_as_it_is():
    program = f"from windtunnel.cli.terminal import print_text; print_text('é\\n' + {CLIPBOARD!r})"
    assert on_a_terminal(program) == f"é\r\n{SHOWN}\r\n"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert piped.stdout.decode() == f"é\n{CLIPBOARD}\n"


def test_json_holds_the_same_text_and_nothing_that_steers(capsys):
    print_json({"text": EVIL + "\x7fé"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": EVIL + "\x7fé"}
    assert not set("\x1b\x07\x9b\u202e\udcff\r\x7f") & set(out)
    assert "é" in out


def test_an_error_shows_what_was_given(command_line):
    code, _, err = command_line("resume", CLIPBOARD)
    assert code == 3
    assert f"{SHOWN} does not exist" in err


def test_a_folder_in_brackets_is_found_listed_and_resumed(command_line, run, tmp_path):
    shutil.copytree(run, tmp_path / "runs/a[/b]")
    code, out, err = command_line("resume", "a[/b]")
    assert code == 0, err
    assert "0 of 1 runs to train in runs/a[/b]" in err
    assert "curves: runs/a[/b]/curves.png" in out
    shutil.copytree(run, tmp_path / "runs/a[bold]b")
    code, out, err = command_line("runs")
    assert code == 0, err
    assert "runs/a[bold]b/seed-0" in out


@pytest.mark.parametrize("width", [60, 80])
def test_no_seed_is_cut_from_the_list_of_runs(width):
    names = [f"runs/the-name-of-a-corpus-that-is-long-0123ab/seed-{seed}" for seed in (7, 12)]
    run = {"corpus": "/a/folder/with/a/long/name/of/a/corpus.txt", "step": 100, "steps": 100, "state": "finished"}
    dev = {"scores": {"loss": 2.2655}}
    out = PlainConsole(file=io.StringIO(), width=width)
    out.print(runs_table([{**run, "folder": name, "dev": dev} for name in names]))
    shown = out.file.getvalue()
    assert "…" not in shown
    starts = "".join(line.split("  ")[0].strip() for line in shown.splitlines()[1:])
    assert all(name in starts for name in names)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stdout_without_the_characters_gets_others(run, encoding, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = ("generate", run, "anna", "--tokens", 2)
    for more in ((), ("--json",)):
        done = in_process(*words, *more, env=environment, capture_output=True, cwd=tmp_path)
        assert (done.returncode, done.stderr.decode()) == (0, "")
    assert json.loads(done.stdout)["tokens"]
    done = in_process("resume", "日本", env=environment, capture_output=True, cwd=tmp_path)
    assert done.returncode == 3
    assert "?? does not exist" in done.stderr.decode()


def test_a_reader_that_goes_away_ends_a_command_as_sigpipe_does(run, tmp_path):
    for words in (("generate", run, "anna"), ("explain", "attention"), ("runs", run, "--json"), ("--help",)):
        command = [sys.executable, "-m", "windtunnel", *map(str, words)]
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (141, b""), words


def test_json_of_a_generated_text_is_all_that_is_printed(command_line, run):
    code, out, err = command_line("generate", run, "anna", "--tokens", 3, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["tokens"]) > 4


def test_messages_go_to_stderr(capsys):
    console().print(EVIL, soft_wrap=True)
    assert capsys.readouterr() == ("", EVIL_SHOWN + "\n")


def test_no_command_has_a_console_or_a_print_of_its_own():
    package = Path(windtunnel.__file__).parent
    texts = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"\bConsole\((?!\):)", text)] == []
    printing = {name for name, text in texts.items() if re.search(r"^ +print\([^)]", text, re.MULTILINE)}
    assert {n for n in printing if n.startswith(("cli/", "report/"))} == {"cli/terminal.py", "cli/__init__.py"}


def test_what_a_judged_program_says_reaches_the_terminal_written_out(capsys, tmp_path):
    command = "printf '\\033]0;evil\\007\\n'; exit 1 # {seed}"
    windtunnel.judge({"a[b]": command, "b": command}, "loss ([0-9.]+)", seeds=2, out=tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "a[b], seed 0: " in err
    assert r"\x1b]0;evil" in err
    assert "\x1b" not in err
