"""look, on the command line: what is shown of a recurrent network."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from windtunnel.config import override
from windtunnel.generation.prompt import prompt_ids
from windtunnel.inspect.through_time import through_time
from windtunnel.library.training import train
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe
from windtunnel.training.run import load

CHANGES = ["model.family=rnn", "model.d_model=8", "train.steps=2", "train.eval_every=2", "train.threads=1"]


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("look") / "run"
    list(fit(override(recipe("tiny", "names"), CHANGES), folder))
    return folder


def test_of_a_recurrent_network_it_shows_how_far_each_state_reaches(windtunnel, run, tmp_path):
    code, out, err = windtunnel("look", run, "anna", "--out", tmp_path / "seen", "--json")
    assert code == 0, err
    found = json.loads(out)
    trained = load(run)
    expected = through_time(trained.model, prompt_ids(trained.tokenizer, "line", "anna")).numpy()
    reach = found["through_time"]
    np.testing.assert_allclose(reach["norms"], expected)
    assert reach["labels"] == ["<end>", "a", "n", "n", "a"]
    assert reach["factor_per_step"] == pytest.approx(np.prod([expected[t, t - 1] for t in range(1, 5)]) ** 0.25)
    assert [token["text"] for token in found["trace"]["tokens"]] == list("anna")
    assert all(token["surprise_bits"] > 0 for token in found["trace"]["tokens"])
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["through_time.png", "trace.html"]
    code, out, _ = windtunnel("look", run, "anna", "--out", tmp_path / "seen")
    factor, whole = f"{reach['factor_per_step']:.3g}", f"{expected[-1, 0]:.3g}"
    said = f"a small change is multiplied by at most {factor} (geometric mean of 4 steps), from the first token to the"
    assert f"{said} last by at most {whole}" in " ".join(out.split())


def test_of_a_recurrent_network_a_single_token_has_no_factor(windtunnel, tmp_path):
    list(fit(override(recipe("tiny", "names"), [*CHANGES, "text.unit=text"]), tmp_path / "run"))
    code, out, err = windtunnel("look", "run", "a", "--json")
    assert code == 0, err
    reach = json.loads(out)["through_time"]
    assert (reach["norms"], reach["factor_per_step"]) == ([[1.0]], None)
    assert "one token has no step to the next" in windtunnel("look", "run", "a")[1]


def test_without_a_text_nothing_is_written(windtunnel, run):
    before = sorted(run.parent.rglob("*"))
    code, _, err = windtunnel("look", run)
    assert code == 2
    assert f"no text to look at; give one: windtunnel look {run} TEXT" in err
    assert sorted(run.parent.rglob("*")) == before


def test_each_text_and_setting_has_a_folder_of_its_own_beside_the_seed(windtunnel, run):
    asked = (["anna"], ["annabel"], ["anna", "--alternatives", 2])
    files = [json.loads(windtunnel("look", run, *words, "--json")[1])["files"] for words in asked]
    folders = [str(Path(some[0]).parent) for some in files]
    assert len(set(folders)) == 3
    assert all(re.fullmatch(rf"{run.parent}/look/run-anna[a-z-]*-[0-9a-f]{{6}}", folder) for folder in folders)
    assert json.loads(windtunnel("look", run, "anna", "--json")[1])["files"] == files[0]


def test_without_a_sampled_token_there_is_no_column_of_sampled_probabilities(windtunnel, run):
    _, out, _ = windtunnel("look", run, "anna")
    heading = next(line for line in out.splitlines() if line.startswith("token"))
    assert heading.split()[:4] == ["token", "p", "T=1", "rank"]
    assert "as sampled" not in out


def test_a_recurrent_network_has_no_heads_to_choose_from(windtunnel, run):
    code, _, err = windtunnel("look", run, "anna", "--head", 1)
    assert code == 2
    assert "no attention to choose from; leave out --layer and --head" in err


def test_it_ablates_by_layer_and_head_from_1_and_judges(windtunnel, tmp_path):
    model = {"n_layers": 2, "d_model": 16, "n_heads": 2}
    seeds = train("names", "tiny", steps=2, out=tmp_path / "runs", progress=False, model=model, train__threads=1)
    [folder], out = seeds.folders, ("--out", tmp_path / "seen", "--json")
    code, shown, err = windtunnel("look", folder, "--judge", "--ablate", "2.1", "--ablate", "blocks.0.attention")
    assert code == 0, err
    assert shown.startswith("without 2.1 against the whole model: undecided: ")
    assert shown.splitlines()[1].startswith("  over the documents of the dev split, for these models: ")
    data = json.loads(windtunnel("look", folder, "--judge", "--ablate", "2.1", "--json")[1])
    [head] = seeds.ablate(head="blocks.1.attention.heads.0")
    assert data[0]["verdict"]["difference"]["estimate"] == pytest.approx(head.verdict.difference.estimate, abs=1e-9)
    without = json.loads(windtunnel("look", folder, "anna", "--ablate", "blocks.*.attention", *out)[1])
    whole = json.loads(windtunnel("look", folder, "anna", *out)[1])
    assert without["trace"]["tokens"][-1]["surprise_bits"] != whole["trace"]["tokens"][-1]["surprise_bits"]
    for given, said in (
        (["--judge"], "--judge takes --ablate"),
        (["anna", "--judge", "--ablate", "1.1"], "and no text"),
        (["anna", "--ablate", "0.1"], "counted from 1"),
        (["anna", "--ablate", "1.3"], "has the heads 0 to 1, given 2"),
    ):
        code, _, err = windtunnel("look", folder, *given)
        assert code == 2
        assert said in err
