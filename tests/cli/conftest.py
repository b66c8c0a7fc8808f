"""The command line in this process: a process of its own costs seconds."""

import sys

import pytest

from windtunnel import cli


@pytest.fixture(scope="session")
def names(tmp_path_factory):
    """A file of 700 names, so that a run on them is quick."""
    path = tmp_path_factory.mktemp("corpus") / "names.txt"
    path.write_text("\n".join(f"{a}{b}{c}{d}" for a in "abcdefg" for b in "aeiou" for c in "lmnrs" for d in "aeio"))
    return path


@pytest.fixture
def command_line(capsys, monkeypatch, tmp_path):
    """Run `windtunnel` with these words in an empty folder; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["windtunnel", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = exit.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out
        return code, out, err

    return run


@pytest.fixture
def windtunnel(command_line):
    """`command_line` with all that stderr says on one line."""

    def run(*words):
        code, out, err = command_line(*words)
        return code, out, " ".join(err.split())

    return run
