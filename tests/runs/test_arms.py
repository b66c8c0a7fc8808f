"""Arms, their pairing and their budget."""

import json
import os

import pytest
import torch

from windtunnel.comparison.pairing import pairing
from windtunnel.comparison.plan import make_plan
from windtunnel.config import override
from windtunnel.errors import ConfigError, DataError
from windtunnel.models import TransformerConfig, TranslatorConfig, build
from windtunnel.runs.arms import Arm, arm_from_file, resolve_arms, vary
from windtunnel.runs.budget import parse_budget, spent, within_budget
from windtunnel.text.batches import batch
from windtunnel.text.store import TextConfig
from windtunnel.training.disk import read_sealed
from windtunnel.training.recipes import recipe

SMALL = ["model.n_layers=1", "model.d_model=16", "model.n_heads=2", "train.batch_size=8", "train.steps=20"]


@pytest.fixture
def base():
    return override(recipe("tiny", "names"), SMALL)


def test_a_grid_and_a_zip(base):
    grid = vary(base, ["model.position=learned,rope", "optimizer.lr=1e-3,1e-2"])
    assert [arm.name for arm in grid] == [
        "position=learned, lr=1e-3",
        "position=learned, lr=1e-2",
        "position=rope, lr=1e-3",
        "position=rope, lr=1e-2",
    ]
    assert [(a.config.model.position, a.config.optimizer.lr) for a in grid][3] == ("rope", 0.01)
    both = vary(base, ["model.position=learned,rope", "optimizer.lr=1e-3,1e-2"], zipped=True)
    assert [arm.name for arm in both] == ["position=learned, lr=1e-3", "position=rope, lr=1e-2"]


def test_values_may_hold_commas_and_the_word_none(base):
    arms = vary(override(base, ["model.n_layers=2"]), ["model.window=4,[4,8],null"])
    assert [arm.config.model.window for arm in arms] == [4, (4, 8), None]
    assert [a.config.model.position for a in vary(base, ["model.position=none,rope"])] == ["none", "rope"]
    assert vary(base, ["train.clip=none,1"])[0].config.train.clip is None


@pytest.mark.parametrize(
    ("variations", "zipped", "message"),
    [
        (["model.positon=learned,rope"], False, "did you mean model.position"),
        (["model.position"], False, "expected PATH=A,B"),
        (["model.position=learned,sideways"], False, "position"),
        (["model.position=learned,rope", "optimizer.lr=1,2,3"], True, "lists of one length"),
        (["seed=" + ",".join(map(str, range(100))), "train.steps=" + ",".join(map(str, range(1, 101)))], False,
         "10,000 arms"),
    ],
)  # fmt: skip
def test_bad_variations_are_told(base, variations, zipped, message):
    with pytest.raises(ConfigError, match=message):
        vary(base, variations, zipped)


def test_arms_from_files(base, tmp_path):
    (tmp_path / "a.toml").write_text('[model]\nposition = "rope"\n')
    (tmp_path / "b.json").write_text(json.dumps({"optimizer": {"lr": 0.5}}))
    a, b = (arm_from_file(base, f"{name}={tmp_path / file}") for name, file in (("A", "a.toml"), ("B", "b.json")))
    assert a == Arm("A", override(base, ["model.position=rope"]))
    assert b == Arm("B", override(base, ["optimizer.lr=0.5"]))
    (tmp_path / "c.json").write_text('{"optimizer": {"rl": 0.5}}')
    for named, message in (("x", "expected NAME=FILE"), (f"x={tmp_path / 'no.json'}", "not a readable config"),
                           (f"x={tmp_path / 'c.json'}", r"c.json: .*optimizer.rl")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            arm_from_file(base, named)


def test_arms_that_cannot_be_compared(base):
    rope = override(base, ["model.position=rope"])
    for arms, baseline, message in (
        ([Arm("a", base)], None, "at least two arms"),
        ([Arm("a", base), Arm("b", base)], None, "the same run: no setting differs"),
        ([Arm("a", base), Arm("a", rope)], None, "two arms are named 'a'"),
        ([Arm("a", base), Arm("b", rope)], "c", "no arm 'c'.*a; b"),
        ([Arm("a", base), Arm("b", override(base, ["text.dev_fraction=0.2"]))], None, "text.dev_fraction differs"),
        ([Arm("a", base), Arm("b", override(base, ['corpus="pets"']))], None, "the corpus differs|unit differs"),
        ([Arm("a", base), Arm("b", override(base, ["model.vocab_size=3"]))], None, "arm b: model.vocab_size"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve_arms(arms, baseline)
    nothing = [Arm("a", override(base, ["text.dev_fraction=0"])), Arm("b", override(rope, ["text.dev_fraction=0"]))]
    with pytest.raises(DataError, match="held out"):
        resolve_arms(nothing)


def test_the_baseline_comes_first(base):
    arms = vary(base, ["model.position=learned,rope,none"])
    assert resolve_arms(arms, "position=none")[0].name == "position=none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0}, "no number of seeds can show"),
        ({"margin": 1.5}, "between 0 and 1"),
        ({"alpha": 0}, "alpha"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": 3, "until_decided": True}, "at least 4"),
        ({"until_decided": True, "correction": "dunnett"}, "Dunnett"),
    ],
)
def test_a_rule_that_decides_nothing_is_refused(base, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(vary(base, ["model.position=learned,rope"]), **changes)


def test_the_pairing_that_is_stated_is_true(base):
    arms = resolve_arms(vary(base, ["model.position=learned,rope"]))
    said = pairing(arms, 1562)
    learned, rope = (dict(build(arm.config.model, seed=3).named_parameters()) for arm in arms)
    assert "same batches" in said[1]
    assert f"{sum(p.numel() for p in rope.values()):,} of its" in said[1]
    assert all(torch.equal(learned[name], rope[name]) for name in rope)
    first, second = (batch(arm.task.examples("train"), 8, seed=3, step=5) for arm in arms)
    assert torch.equal(first.ids, second.ids)


def test_what_is_not_paired_is_stated(base):
    said = {}
    for setting in ("train.batch_size=8,16", "model.context_length=32,16", "text.tokenizer=characters,bytes",
                    "train.steps=20,40", "model.d_model=16,32"):  # fmt: skip
        said[setting.partition("=")[0]] = pairing(resolve_arms(vary(base, [setting])), 1)[1]
    assert "batches of another size" in said["train.batch_size"]
    assert "another context length" in said["model.context_length"]
    assert "another tokenizer" in said["text.tokenizer"]
    assert "as far as both go" in said["train.steps"]
    assert " 0 of its" in said["model.d_model"]


@pytest.mark.parametrize(("kind", "field"), [("tokens", "tokens"), ("flops", "flops")])
def test_a_budget_is_what_is_spent(base, kind, field, tmp_path):
    arms = resolve_arms(vary(base, ["model.d_model=16,32", "train.batch_size=8,16"]))
    amount = 300 * getattr(spent(arms[0]), field) / spent(arms[0]).steps
    for arm in within_budget(arms, kind, amount, tmp_path):
        cost = spent(arm)
        assert amount * (1 - 1 / cost.steps) <= getattr(cost, field) <= amount
    with pytest.raises(ConfigError, match="one step costs"):
        within_budget(arms, kind, amount / 1e6, tmp_path)


def test_a_pair_costs_all_that_is_read_of_it(tmp_path):
    """A stream reads source and target, an encoder-decoder each in its half; both predict the target."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("source\ttarget\n" + "\n".join(f"{i:04d}\t{i:06d}" for i in range(200)))
    base = recipe("translate", str(pairs))
    base = base.replace(text=TextConfig(dev_fraction=0.2), train=base.train.replace(batch_size=8, steps=10))
    shape = {"context_length": 16, "n_layers": 1, "n_heads": 2, "d_model": 16, "dropout": 0.0}
    alone, apart = (
        spent(arm)
        for arm in resolve_arms(
            [Arm("alone", base.replace(model=TransformerConfig(**shape))),
             Arm("apart", base.replace(model=TranslatorConfig(**shape)))]
        )
    )  # fmt: skip
    vocab = len("0123456789\t") + 1
    model = TransformerConfig(vocab_size=vocab, **shape)
    assert alone.tokens == apart.tokens == 10 * 8 * (6 + 1)
    assert alone.flops == 3 * 80 * sum(model.flops_by_part(1 + 4 + 1 + 6).values())
    assert apart.flops == 3 * 80 * sum(TranslatorConfig(vocab_size=vocab, **shape).flops_by_part(7, source=5).values())


def test_a_budget_of_seconds_is_timed_once(base, tmp_path):
    arms = resolve_arms(vary(base, ["model.n_layers=1,4"]))
    first = within_budget(arms, "seconds", 10.0, tmp_path)
    assert first[1].config.train.steps < first[0].config.train.steps  # four layers take longer than one
    assert within_budget(arms, "seconds", 10.0, tmp_path) == first


@pytest.mark.parametrize("damage", ["digit", "cut", "[]", "{}", "pipe", "missing"])
def test_altered_times_of_steps_are_taken_again_and_said(base, tmp_path, caplog, damage):
    """A digit of them decides how many steps an arm trains."""
    arms, path = resolve_arms(vary(base, ["optimizer.lr=1,2"])), tmp_path / "compare-names/pace.json"
    assert not caplog.text
    within_budget(arms, "seconds", 10.0, path.parent)
    text = path.read_text()
    assert not caplog.text
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage != "missing":
        altered = {"digit": text.replace(": 0.", ": 1."), "cut": text[:40]}
        path.write_text(altered.get(damage, damage))
    within_budget(arms, "seconds", 10.0, path.parent)
    assert "the arms are timed again" in caplog.text
    assert read_sealed(path)["seconds"].keys() == {arm.key for arm in arms}


@pytest.mark.parametrize("text", ["tokens", "tokens=", "tokens=-3", "tokens=nan", "money=3", "steps=inf"])
def test_bad_budgets_are_told(text):
    with pytest.raises(ConfigError, match="expected one of steps, tokens, flops, seconds"):
        parse_budget(text)


def test_a_budget_is_read():
    assert parse_budget("tokens=2e6") == ("tokens", 2e6)
