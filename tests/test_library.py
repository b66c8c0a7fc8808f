"""`import windtunnel as wt`: the names, their examples, and that the import is light."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import windtunnel as wt
from test_imports import modules_after
from windtunnel.errors import ConfigError, DataError, WindtunnelError

ROOT = Path(__file__).parents[1]
PUBLIC = [name for name in wt.__all__ if name not in ("__version__", "stats")]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with one run of 20 steps below ./runs."""
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, train__threads=1, progress=False)
        yield folder


def test_the_import_loads_nothing_heavy():
    loaded, _ = modules_after("import windtunnel; dir(windtunnel); windtunnel.__all__")
    assert not {"torch", "numpy", "scipy", "pydantic", "rich", "typer", "matplotlib"} & set(loaded)


def for_type_checkers(package):
    """The names that a package imports for type checkers alone, and from where."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    for_types = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in for_types.body for alias in node.names}


def test_every_name_is_there_and_typed():
    told, of_stats = for_type_checkers(wt), for_type_checkers(wt.stats)
    assert inspect.ismodule(wt.stats)
    assert told == wt._MODULES  # what a type checker sees is what is imported
    assert sorted([*told, "__version__", "stats"]) == sorted(wt.__all__) == sorted(dir(wt))
    assert of_stats == wt.stats._MODULES
    assert sorted(of_stats) == sorted(wt.stats.__all__) == sorted(dir(wt.stats))
    assert all(inspect.getdoc(getattr(wt.stats, name)) for name in wt.stats.__all__)
    for name in PUBLIC:
        assert inspect.getdoc(getattr(wt, name))
    with pytest.raises(AttributeError, match=r"it has .*train"):
        wt.trian


LONGER = ("compare", "experiment", "Diagnosis", "check")
EXAMPLES = [
    pytest.param(name, marks=pytest.mark.slow if name in LONGER else ()) for name in PUBLIC if name != "WindtunnelError"
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_true(name, here):
    """Each has one, and so have the methods of Model and Seeds; its output is the one that is printed."""
    found = run_examples(getattr(wt, name), name)
    if name in ("Model", "Seeds"):
        methods = {own for own, member in vars(getattr(wt, name)).items() if inspect.isfunction(member)}
        without = {own for own in methods if own[0] != "_" and not found[f"{name}.{own}"]}
        assert without == ({"classify", "search"} if name == "Model" else set())  # other runs than one on names


@pytest.mark.parametrize("name", [name for name in wt.stats.__all__ if name != "Estimate"])
def test_the_examples_of_the_statistics_are_true(name):
    run_examples(getattr(wt.stats, name), name)


def run_examples(what, name):
    """How many there are in each docstring."""
    found = doctest.DocTestFinder(recurse=inspect.isclass(what)).find(what, name, globs={"wt": wt})
    assert sum(len(one.examples) for one in found) > 0
    failures = []
    for one in found:
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(one, out=failures.append)
    assert not failures, "".join(failures)
    return {one.name: len(one.examples) for one in found}


def test_the_page_of_the_api_is_what_the_docstrings_say():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_api.py"], capture_output=True, text=True)
    assert done.stderr == ""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == done.stdout, "run: python scripts/make_api.py > docs/api.md"
    assert [name for name in PUBLIC if f"### wt.{name}\n" not in page] == []
    assert [name for name in wt.stats.__all__ if f"### wt.stats.{name}\n" not in page] == ["Estimate"]  # given back
    assert "\n### Comparison\n" in page
    assert "#### Model.record\n" in page


def test_a_model_in_ones_hands(here):
    model = wt.load()
    text = model.generate("an", 6, seed=3)
    assert repr(text).startswith(f"Trace({text.text!r}: {len(text.tokens) - 2} tokens of ")
    assert str(text).startswith("an")
    assert str(text) == text.text == str(model.generate("an", 6, seed=3))
    assert len(model.trace("anna").tokens) == 4
    logits_TV = model.logits("anna")
    assert logits_TV.shape == (5, model.config.model.vocab_size)
    assert model.trace("anna").tokens[0].alternatives[0].id == logits_TV[0].argmax()
    assert repr(model.attention("anna")) == f"AttentionMap(1 layers, {model.config.model.n_heads} heads, 5 tokens)"
    assert model.attention("anna").weights.shape == (1, model.config.model.n_heads, 5, 5)
    assert model.ids("anna")[1:] == list(model.tokenizer.encode("anna"))
    assert model.evaluate("dev").n_tokens > 10_000
    with pytest.raises(ConfigError, match=r"'tests'; it has train, dev, test"):
        model.evaluate("tests")
    for refused in (model.translate, model.classify):
        with pytest.raises(ConfigError):
            refused("anna")
    assert repr(model) == f"Model({model.folder}: transformer, {model.config.model.n_parameters():,} parameters, "\
        "step 20, seed 0)"  # fmt: skip


def test_looking_inside(here):
    model = wt.load()
    with model.record("blocks.*.resid", "blocks.0.attention.pattern") as seen:
        logits_TV = model.logits("anna")
    assert set(seen) == {"blocks.0.resid", "blocks.0.attention.pattern"}
    assert seen["blocks.0.attention.pattern"][0].numpy() == pytest.approx(model.attention("anna").weights[0], abs=1e-6)
    assert model.lens("anna")[-1] == pytest.approx(logits_TV, abs=1e-5)
    assert model.attribution("anna", "e").logit == pytest.approx(
        logits_TV[-1, model.tokenizer.encode("e")[0]], abs=1e-5
    )
    assert model.gradients("anna").shape == (5, model.config.model.d_model)
    whole, with_attention = model.evaluate().loss, model.trace("anna").tokens[1].probability_1
    with model.ablate("blocks.0.attention"):
        assert model.evaluate().loss != pytest.approx(whole, abs=1e-4)
        assert model.trace("anna").tokens[1].probability_1 != pytest.approx(with_attention, abs=1e-5)
    assert model.evaluate().loss == whole
    n_heads = model.config.model.n_heads
    with model.ablate(*(f"blocks.0.attention.heads.{head}" for head in range(n_heads))):
        no_heads = model.logits("anna")
    with model.ablate("blocks.0.attention.heads"):
        assert np.array_equal(model.logits("anna"), no_heads)
    with model.patch("blocks.0.resid", "anna"):
        assert model.logits("lisa") == pytest.approx(logits_TV, abs=1e-6)
    with model.patch("blocks.0.resid", "anna", [-1]):
        mixed = model.logits("lisa")
    assert mixed[-1] == pytest.approx(logits_TV[-1], abs=1e-6)
    assert np.array_equal(mixed[:-1], model.logits("lisa")[:-1])
    with model.patch("blocks.0.resid", "anna"), pytest.raises(DataError, match=r"\(1, 4, .* in the text patched from"):
        model.logits("eva")
    with (
        pytest.raises(ConfigError, match=f"has the heads 0 to {n_heads - 1}, given {n_heads}"),
        model.ablate(head=(0, n_heads)),
    ):
        pass
    with pytest.raises(ConfigError, match="did you mean"), model.ablate(head=(1, 0)):
        pass
    with pytest.raises(DataError, match="'ab', which is 2"):
        model.attribution("anna", "ab")


def test_seeds_are_a_sequence_of_models_and_their_mean(here):
    seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, train__threads=1, progress=False)
    assert [model.config.seed for model in seeds] == [0, 1]
    assert seeds.loss.estimate == pytest.approx(sum(model.evaluate().loss for model in seeds) / 2, abs=1e-6)
    assert seeds.evaluate("test").loss.n == 2
    assert seeds.curves().name == "curves.png"
    assert f"dev loss {seeds.loss}" in repr(seeds)


def test_a_value_of_an_arm_may_hold_a_comma():
    one, other = wt.vary(wt.recipe("tiny", "names"), text__tokenizer=["a,b.json", "bytes"])
    assert (one.config.text.tokenizer, other.config.text.tokenizer) == ("a,b.json", "bytes")


def test_settings_are_said_in_three_ways():
    same = [
        wt.recipe("tiny", "names", model__n_layers=3),
        wt.recipe("tiny", "names", model={"n_layers": 3}),
        wt.recipe("tiny", Path("names"), **{"model.n_layers": 3}),
    ]
    assert {config.model_dump_json() for config in same} == {same[0].model_dump_json()}
    assert same[0].model.n_layers == 3
    assert wt.recipe("tiny", "names", train__freeze=None).train.freeze is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: wt.recipe("tiny", "names", model__n_layer=3), "did you mean model.n_layers"),
        (lambda: wt.recipe("tiny", "names", model__n_layers=object()), "model.n_layers: expected a number"),
        (lambda: wt.recipe("tiny", "names", optimizer__lr=float("nan")), "optimizer.lr: expected a number"),
        (lambda: wt.recipe("tinny", "names"), "there is no recipe 'tinny'"),
        (lambda: wt.train("names", task="clustering"), "there is no task 'clustering'"),
        (lambda: wt.train("no-such-file.txt"), "no-such-file.txt"),
        (lambda: wt.load("no-such-run"), "no-such-run"),
        (lambda: wt.vary(wt.recipe("tiny", "names"), model__position="rope"), "expected a list of values"),
        (lambda: wt.compare("names", recipe="tiny"), "at least two arms"),
        (lambda: wt.compare(wt.vary(wt.recipe("tiny", "names"), seed=[1, 2]), model__n_layers=1), "arms are given"),
        (lambda: wt.compare(wt.vary(wt.recipe("tiny", "names"), seed=[1, 2]), steps=5), "arms are given"),
        (lambda: wt.experiment("email"), "did you mean"),
        (lambda: wt.import_model("no-such-folder"), "no-such-folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_of_our_errors(wrong, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WindtunnelError, match=said):
        wrong()


def test_a_temperature_out_of_range_is_one_of_our_errors(here):
    with pytest.raises(ConfigError, match="temperature"):
        wt.load().generate("an", temperature=-1)


@pytest.mark.slow
def test_arms_are_settings(here):
    found = wt.compare(
        "names", recipe="tiny", steps=20, seeds=4, arms={"base": None, "fast": {"optimizer.lr": 1e-2}},
        model__n_layers=1, train__threads=1, progress=False,
    )  # fmt: skip
    assert [arm.name for arm in found.arms] == ["base", "fast"]
    assert found.judgements[0].verdict.word == "better"
    assert str(found) == found.judgements[0].sentence
    assert repr(found) == f"Comparison(names, 2 arms: {found})"
    assert (Path(found.folder) / "report.html").exists()


@pytest.mark.slow
def test_the_page_on_the_library_runs(tmp_path, monkeypatch, capsys):
    """Its blocks in their order; all the more are checked by the other tests."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "library.md"
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, page.name, "exec"), names)
    assert "optimizer.lr" not in capsys.readouterr().err
    assert names["again"].step == 0
    assert (tmp_path / "curves.png").exists()
