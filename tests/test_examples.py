"""The examples run, and the README shows what they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from patience import PATIENCE

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    result = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    [loss] = map(float, re.findall(r"dev loss ([\d.]+)", result.stdout))
    assert loss < 2  # it begins above: a blind guess among its tokens has more
    beliefs = re.findall(r"([\d.]+)  true ([\d.]+)", result.stdout)
    assert sum(abs(float(p) - float(true)) for p, true in beliefs) / len(beliefs) < 0.1


def test_the_readme_shows_the_example():
    code = (ROOT / "examples" / "train_and_trace.py").read_text()
    body = code.split('"""', 2)[2].strip()
    assert body in (ROOT / "README.md").read_text()
