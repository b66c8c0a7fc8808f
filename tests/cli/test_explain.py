"""`windtunnel explain`: the rows' numbers on the terminal, as JSON and on a page; bad input in one sentence."""

import json

import pytest

from windtunnel.config import override
from windtunnel.training.loop import fit
from windtunnel.training.recipes import recipe


@pytest.fixture
def explain(windtunnel, monkeypatch):
    """Run a subcommand on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: windtunnel("explain", *words)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of 4 steps on names: 2 layers, 2 heads, rotary positions."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = ["n_layers=2", "d_model=8", "n_heads=2", "position=rope", "context_length=16"]
    training = ["train.threads=1", "train.steps=4", "train.save_every=2"]
    assert list(fit(override(recipe("tiny", "names"), [*(f"model.{s}" for s in settings), *training]), folder))
    return folder


SAID = {
    "chain": (["shapes", "(3,1,4,1) -> squeeze(1) -> unsqueeze(0) -> unsqueeze(-1)"], ["Result (1,3,4,1,1)"]),
    "bmm": (["shapes", "bmm (64,128,256) (64,256,512) (64,?,9)"], ["Result (64,128,9)", "512  its rows meet"]),
    "widths": (["parameters", "236-472-472-10", "--no-bias"], ["111,392", "222,784", "4,720", "338,896", "339,850"]),
    "recipe": (["parameters", "gpt2"], ["124,439,808", "50257 * 768", "model.n_heads = 12"]),
    "embedding": (["embedding", "10x5", "1,3,5,7,9"], ["shape (5,5)", "50 numbers", "IndexError"]),
    "loss": (["loss"], ["0.16985", "0.65785"]),
    "network": (["loss", "--network", "002-3"], ["1.5464396476745605", "Row 4"]),
    "replay": (["replay"], ["model 4 since the seed: 3 others, 486 random draws", "1.5464396476745605"]),
    "negative": (["replay", "-1.5", "--most", "3"], ["none of 3 models built after seed 42 gives -1.5"]),
    "attention": (
        ["attention"],
        ["0.5047   0.1876  0.3077", "0.6624   0.0915  0.2461", "0.5874   0.1331  0.2796", "ratio 2, which is d_k",
         "column of likes 2: he 1 looks at it most", "are ours"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_the_terminal_says_the_rows_numbers(explain, case):
    words, expected = SAID[case]
    code, out, err = explain(*words)
    assert (code, err) == (0, "")
    assert [text for text in expected if text not in out] == [], out


@pytest.mark.parametrize("case", SAID)
def test_json_and_page(explain, tmp_path, case):
    words, _ = SAID[case]
    code, out, err = explain(*words, "--json", "--html", "page.html")
    assert code == 0
    assert "written: page.html" in err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<table>" in page
    assert "http" not in page.replace("http-equiv", "")
    block = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(block) == json.loads(out)


def test_a_head_of_a_run(explain, run_folder, tmp_path):
    arguments = ("attention", run_folder, "emma", "--layer", 2, "--head", 1)
    code, out, _ = explain(*arguments)
    assert code == 0
    assert "largest difference to the model's own attention weights" in out
    assert "turned by its place 4" in out
    found = json.loads(explain(*arguments, "--json", "--html", "a.html")[1])
    assert found["max_difference"] < 1e-6
    assert found["tokens"] == ["<end>", "e", "m", "m", "a"]
    assert found["variance_ratio"] == pytest.approx(found["d_head"])
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;end&gt;" in page
    assert "<end>" not in page
    assert page.count('style="--s:') == 25  # the weights, 5 x 5, are shaded


def test_parameters_of_a_run(explain, run_folder):
    found = json.loads(explain("parameters", run_folder, "--json")[1])
    assert found["n_parameters"] == found["n_counted"] == sum(term["n_parameters"] for term in found["terms"])
    assert "model.position = rope" in found["hyper"]


WRONG = {
    "shapes": (["shapes", "(3,4) -> @ (5,6)"], 2, "(3,4) is 4 and the rows of (5,6) are 5"),
    "two unknowns": (["shapes", "bmm (64,128,?) (64,?,9)"], 2, "2 unknown sizes are not determined"),
    "embedding high": (["embedding", "10x5", "10"], 2, "torch says 'index out of range in self'"),
    "embedding low": (["embedding", "10x5", "-1"], 2, "no row -1"),
    "widths": (["parameters", "236"], 2, "two or more widths"),
    "no such model": (["parameters", "huge"], 2, "known are tiny, small"),
    "bias of a recipe": (["parameters", "tiny", "--no-bias"], 2, "for widths such as"),
    "logits": (["loss", "--logits", "a,b"], 2, "expected logits"),
    "target": (["loss", "--targets", "3"], 2, "target 3 is no column"),
    "network": (["loss", "--network", "003"], 2, "known is 002-3"),
    "model number": (["loss", "--network", "002-3", "--model", "0"], 2, "counted from 1"),
    "replay": (["replay", "abc"], 2, "expected a printed number"),
    "layer without run": (["attention", "--layer", "2"], 2, "give a run and a text"),
    "no run": (["attention", "nothing", "text"], 3, "nothing does not exist"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence(explain, case):
    words, expected, sentence = WRONG[case]
    code, out, err = explain(*words)
    assert (code, out) == (expected, "")
    assert sentence in err
    assert err.startswith("windtunnel: ")


WRONG_OF_A_RUN = {
    "no text": ([], 2, "a text is missing"),
    "layer": (["emma", "--layer", "3"], 2, "no layer 3; the model has 1 to 2"),
    "head": (["emma", "--head", "0"], 2, "no head 0; the model has 1 to 2"),
    "query": (["emma", "--query", "6"], 2, "no query 6; the text has 1 to 5"),
    "long": (["a" * 16], 3, "the text has 17 tokens"),
    "unknown": (["zoé"], 3, "'é'"),
}


@pytest.mark.parametrize("case", WRONG_OF_A_RUN)
def test_bad_input_about_a_run_is_one_sentence(explain, run_folder, case):
    words, expected, sentence = WRONG_OF_A_RUN[case]
    code, out, err = explain("attention", run_folder, *words)
    assert (code, out) == (expected, "")
    assert sentence in err
