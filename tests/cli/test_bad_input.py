"""A user's mistakes: one clear sentence with the cure, the documented exit code, and never a traceback."""

import json
import shutil

import pytest

from windtunnel.training.disk import locked

TINY = ["--set", "model.n_layers=1", "--set", "model.d_model=8", "--set", "model.n_heads=2", "--set", "train.threads=1"]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A finished run of 4 steps on names."""
    from windtunnel.config import override
    from windtunnel.training.loop import fit
    from windtunnel.training.recipes import recipe

    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = [*TINY[1::2], "train.steps=4", "train.save_every=2", "model.context_length=16"]
    assert list(fit(override(recipe("tiny", "names"), settings), folder))
    return folder


@pytest.fixture
def run(run_folder, tmp_path):
    """A copy of that run, to be damaged."""
    return shutil.copytree(run_folder, tmp_path / "run")


def write(path, data):
    path.write_bytes(data)
    return path.name


CORPORA = {
    "missing": (lambda p: "nams", 3, ["there is no corpus or path 'nams'", "did you mean names"]),
    "empty": (lambda p: write(p / "a.txt", b""), 3, ["holds no text"]),
    "too short": (lambda p: write(p / "a.txt", b"To be or not to be, that is the question."), 3, ["tokens", "--set"]),
    "not UTF-8": (lambda p: write(p / "a.txt", b"line\nb\xffd\n" * 99), 3, ["UTF-8", "byte 6", "line 2"]),
    "binary": (lambda p: write(p / "a.txt", b"\x89PNG\x00\x01" * 99), 3, ["binary"]),
}


@pytest.mark.parametrize("case", CORPORA)
def test_corpus(windtunnel, tmp_path, case):
    make, expected, words = CORPORA[case]
    code, out, err = windtunnel("train", make(tmp_path), *TINY, "--steps", 2)
    assert (code, out) == (expected, "")
    assert all(word in err for word in words), err


SETTINGS = {
    "heads": ("model.n_heads=3", ["d_model 64 is not divisible by n_heads 3", "give n_heads 2 or 4, or d_model 66"]),
    "kv heads": ("model.n_kv_heads=3", ["n_heads 4 is not divisible by n_kv_heads 3", "1, 2, 4"]),
    "unknown path": ("model.n_layer=3", ["there is no such setting", "did you mean model.n_layers?"]),
    "wrong type": ("model.n_layers=many", ["model.n_layers", "integer", "'many'"]),
    "out of range": ("model.dropout=1.5", ["model.dropout", "less than 1", "1.5"]),
    "no value": ("model.n_layers", ["expected PATH=VALUE"]),
    "unknown choice": ("model.position=rotary", ["model.position", "rope", "'rotary'"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(windtunnel, case):
    assignment, words = SETTINGS[case]
    code, out, err = windtunnel("train", "names", "--set", assignment)
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err


def test_unknown_recipe(windtunnel):
    code, _, err = windtunnel("train", "names", "--recipe", "huge")
    assert code == 2
    assert "known are tiny, small" in err


def test_prompt_with_an_unknown_character(windtunnel, run):
    code, _, err = windtunnel("generate", run, "zoé")
    assert code == 3
    assert "'é'" in err
    assert "U+00E9" in err
    assert "position 2" in err


def test_empty_prompt_begins_a_document(windtunnel, run):
    code, out, _ = windtunnel("generate", run, "", "--tokens", 3, "--json")
    assert code == 0
    assert json.loads(out)["n_prompt"] == 0


def test_prompt_longer_than_the_context_slides(windtunnel, run):
    code, out, _ = windtunnel("generate", run, "abcdefghij" * 3, "--tokens", 3, "--json")
    assert code == 0
    assert "sees only the last 16" in json.loads(out)["note"]


def test_samples_are_the_texts_of_their_seeds_and_unknown_weights_are_refused(windtunnel, run):
    code, out, _ = windtunnel("generate", run, "ab", "--tokens", 5, "--samples", 3, "--seed", 4, "--json")
    assert code == 0
    alone = json.loads(windtunnel("generate", run, "ab", "--tokens", 5, "--seed", 5, "--json")[1])
    assert [sample["seed"] for sample in json.loads(out)] == [4, 5, 6]
    assert json.loads(out)[1]["text"] == alone["text"]
    code, _, err = windtunnel("generate", run, "ab", "--weights", "int4")
    assert code == 2
    assert "one of fp32, bf16, int8" in err


def test_a_text_ends_before_a_stop_string(windtunnel, run):
    words = ("generate", run, "ab", "--tokens", 9, "--temperature", 0)
    free = json.loads(windtunnel(*words, "--json")[1])
    assert "".join(token["piece"] for token in free["tokens"]) == free["text"]
    stop = free["text"][3:5]
    expected = free["text"][: free["text"].index(stop, 2)]
    code, out, _ = windtunnel(*words, "--stop", "@", "--stop", stop, "--json")
    ended = json.loads(out)
    assert (code, ended["finish"], ended["text"]) == (0, "stop", expected)
    assert windtunnel(*words, "--stop", stop, "--alternatives", 0)[:2] == (0, expected + "\n")
    samples = json.loads(windtunnel(*words, "--stop", stop, "--samples", 2, "--json")[1])
    assert samples == [{"seed": seed, "text": expected, "finish": "stop"} for seed in (0, 1)]
    code, _, err = windtunnel("generate", run, "ab", "--stop", "")
    assert code == 2
    assert "at least one character" in err


def test_look_beyond_the_context(windtunnel, run):
    code, _, err = windtunnel("look", run, "abcdefghij" * 3)
    assert code == 3
    assert "context" in err


def test_not_a_run(windtunnel, tmp_path):
    (tmp_path / "thing").mkdir()
    for name, words in (("thing", "thing is not a run folder"), ("nothing", "nothing does not exist")):
        code, _, err = windtunnel("generate", name, "a")
        assert code == 3
        assert words in err
        assert "windtunnel train names" in err


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "record.json", "manifest.json"])
def test_altered_description(windtunnel, run, name):
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    code, _, err = windtunnel("generate", run, "a")
    assert code == 3
    assert name in err


def test_altered_checkpoint_falls_back_aloud(windtunnel, run):
    weights = run / "step-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, out, err = windtunnel("generate", run, "a", "--tokens", 3, "--json")
    assert code == 0
    assert "step-4/model.safetensors was truncated or altered" in err
    assert "going back to step 2" in err
    assert json.loads(out)["step"] == 2


def test_no_checkpoint_left(windtunnel, run):
    for step in ("step-2", "step-4"):
        (run / step / "manifest.json").write_bytes(b"{}")
    code, _, err = windtunnel("generate", run, "a")
    assert code == 3
    assert "no checkpoint" in err
    assert "train again" in err


def test_busy(windtunnel, run):
    for folder in (run / "step-2", run / "step-4"):
        shutil.rmtree(folder)
    (run / "metrics.jsonl").unlink()
    with locked(run):
        code, _, err = windtunnel("resume", run)
    assert code == 1
    assert "another process" in err


def test_fetching_an_unknown_corpus(windtunnel):
    code, _, err = windtunnel("corpora", "get", "names")
    assert code == 3
    assert "possible are shakespeare" in err
