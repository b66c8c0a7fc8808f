"""Which files a command names."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.programs.named_files import named_files

FILES = ("train.py", "a.yaml", "b.toml", "sub/train.py", "sub/deep/go.sh", "pkg/run.py", "pkg/__main__.py", "data.csv")


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("python train.py --seed {seed}", ["train.py"]),
        ("python train.py --config=a.yaml {seed}", ["a.yaml", "train.py"]),
        ("CONFIG=a.yaml python train.py --set x=a.yaml,b.toml {seed}", ["a.yaml", "b.toml", "train.py"]),
        ("(python train.py; echo {seed})>log", ["train.py"]),
        ("cd sub && python train.py {seed}", ["sub/train.py", "train.py"]),
        ("cd sub; cd deep; sh go.sh {seed}", ["sub/deep/go.sh"]),
        ("python -m pkg.run {seed}", ["pkg/run.py"]),
        ("python -m pkg {seed}", ["pkg/__main__.py"]),
        ("sh -c 'python train.py --config a.yaml {seed}'", ["a.yaml", "train.py"]),
        ("python {here}/train.py {seed}", ["train.py"]),
        ("python data.csv {seed}", []),
        ("./built {seed}", ["built"]),
        ("/bin/sh train.py {seed}", ["train.py"]),
        ("awk 'BEGIN { print \"it'\\''s\" }' {seed}", []),
        ("python train.py --out a.yaml --save-to=b.toml {seed} > sub/train.py", ["train.py"]),
    ],
)
def test_files_that_a_command_names(tmp_path, monkeypatch, command, files):
    monkeypatch.chdir(tmp_path)
    for name in (*FILES, "built"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x")
    Path("built").chmod(0o755)
    assert sorted(named_files(command)) == files
