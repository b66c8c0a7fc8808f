"""`import windtunnel as wt`: the names, their examples, and that the import is light."""

import ast
import doctest
import inspect
from pathlib import Path

import pytest

import windtunnel as wt
from test_imports import modules_after
from windtunnel.errors import ConfigError, WindtunnelError

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


def test_every_name_is_there_and_typed():
    tree = ast.parse(Path(wt.__file__).read_text(encoding="utf-8"))
    for_types = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in for_types.body for alias in node.names}
    assert told.pop("stats") == "windtunnel"
    assert told == wt._MODULES  # what a type checker sees is what is imported
    assert sorted([*told, "__version__", "stats"]) == sorted(wt.__all__) == sorted(dir(wt))
    for name in PUBLIC:
        assert inspect.getdoc(getattr(wt, name))
    with pytest.raises(AttributeError, match=r"it has .*train"):
        wt.trian


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "WindtunnelError"])
def test_the_examples_are_true(name, here):
    """Each has one, and its output is the one that is printed."""
    found = doctest.DocTestFinder(recurse=False).find(getattr(wt, name), name, globs={"wt": wt})
    assert sum(len(one.examples) for one in found) > 0
    failures = []
    for one in found:
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(one, out=failures.append)
    assert not failures, "".join(failures)


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
    [(folder, found)] = model.evaluate("dev").seeds
    assert Path(folder) == model.folder
    assert found.n_tokens > 10_000
    for refused in (model.translate, model.classify):
        with pytest.raises(ConfigError):
            refused("anna")
    assert repr(model) == f"Model({model.folder}: transformer, {model.config.model.n_parameters():,} parameters, "\
        "step 20, seed 0)"  # fmt: skip


def test_seeds_are_a_sequence_of_models_and_their_mean(here):
    seeds = wt.train("names", recipe="tiny", steps=20, seeds=2, model__n_layers=1, train__threads=1, progress=False)
    assert [model.config.seed for model in seeds] == [0, 1]
    assert seeds.loss.estimate == pytest.approx(sum(m.evaluate().loss.estimate for m in seeds) / 2, abs=1e-6)
    assert seeds.evaluate("test").loss.n == 2
    assert seeds.curves().name == "curves.png"
    assert f"dev loss {seeds.loss}" in repr(seeds)


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


def test_arms_are_settings_or_functions(here):
    found = wt.compare(
        "names", recipe="tiny", steps=20, seeds=4, arms={"base": None, "fast": {"optimizer.lr": 1e-2}},
        model__n_layers=1, train__threads=1, progress=False,
    )  # fmt: skip
    assert [arm.name for arm in found.arms] == ["base", "fast"]
    assert found.judgements[0].verdict.word == "better"
    assert str(found) == found.judgements[0].sentence
    assert repr(found) == f"Comparison(names, 2 arms: {found})"
    assert (Path(found.folder) / "report.html").exists()
