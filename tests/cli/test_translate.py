"""`windtunnel translate`: words, lines and files, and what cannot be translated."""

import json

import pytest

from windtunnel.config import override
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translate")
    pairs = [f"{a}{b}\t{b}{a}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
    (folder / "pairs.tsv").write_text("\n".join(["source\ttarget", *pairs]))
    changes = [
        "train.steps=150",
        "schedule.warmup=20",
        "train.sample_tokens=0",
        "model.context_length=16",
        "model.n_layers=1",
    ]
    list(fit(override(recipe("translate", str(folder / "pairs.tsv")), changes), folder / "run"))
    return folder / "run"


def test_the_command_line_translates_words_lines_and_files(trained, windtunnel, tmp_path):
    found = json.loads(windtunnel("translate", trained, "ab cd", "--json")[1])
    assert [one["source"] for one in found] == ["ab", "cd"]
    assert all(0 < one["probability"] <= 1 and one["target"] for one in found)
    targets = [one["target"] for one in found]
    assert windtunnel("translate", trained, "ab cd")[:2] == (0, " ".join(targets) + "\n")
    (tmp_path / "in.txt").write_text("cd\nab cd\n\n")
    lines = f"{targets[1]}\n{' '.join(targets)}\n"
    assert windtunnel("translate", trained, "--file", tmp_path / "in.txt")[:2] == (0, lines)


@pytest.mark.parametrize(("words", "message"), [
    (("aé",), "no token for the character 'é'"),
    ((), "expected a text or --file PATH"),
    (("a" * 40,), "more than 14 tokens"),
    (("--file", "none.txt"), "cannot be read"),
    (("--file", "latin.txt"), "not UTF-8 at byte 3"),
])  # fmt: skip
def test_what_cannot_be_translated_is_said(trained, windtunnel, tmp_path, words, message):
    (tmp_path / "latin.txt").write_bytes(b"ab \xe9")
    code, _, err = windtunnel("translate", trained, *words)
    assert code != 0
    assert message in err
