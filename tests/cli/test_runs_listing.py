"""`runs`: in which order, which of them, and how two differ."""

import json
from pathlib import Path

SMALL = ("--recipe", "tiny", "--set", "model.d_model=16", "--set", "model.n_layers=1", "--set", "train.threads=1")


def test_runs_are_sorted_and_chosen_and_two_are_told_apart(windtunnel):
    Path("mine.txt").write_text("the cat sat\n" * 300)
    for words in (("names", "--steps", 3), ("names", "--steps", 1, "--seed", 2), ("mine.txt", "--steps", 2)):
        assert windtunnel("train", *words, *SMALL)[0] == 0

    def found(*words):
        return json.loads(windtunnel("runs", *words, "--json")[1])

    losses = [run["dev"]["scores"]["loss"] for run in found("--sort", "loss")]
    assert losses == sorted(losses)
    assert len(losses) == 3
    assert [run["corpus"] for run in found("--corpus", "names")] == ["names", "names"]
    assert [Path(run["corpus"]).name for run in found("--corpus", "mine.txt")] == ["mine.txt"]
    a, b = (run["folder"] for run in sorted(found("--corpus", "names"), key=lambda run: -run["seed"]))
    assert found(a, b)["differences"] == {"train.steps": [1, 3], "seed": [2, 0]}
    code, out, _ = windtunnel("runs", a, b, "--figure", "new/f.png")
    assert (code, "train.steps" in out) == (0, True)
    assert Path("new/f.png").read_bytes()[:4] == b"\x89PNG"
    code, _, err = windtunnel("runs", a, "--figure", "f.png")
    assert (code, "two runs are compared with each other, given 1" in err) == (2, True)
    code, _, err = windtunnel("runs", "--sort", "name")
    assert (code, "--sort name: expected loss or time" in err) == (2, True)
