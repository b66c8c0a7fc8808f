"""An ablation is an arm: judged over seeds, with an interval over documents beside it."""

import math

import pytest

from windtunnel.comparison.ablation import WHOLE, judge_ablations
from windtunnel.errors import ConfigError
from windtunnel.inspect.sites import ablated
from windtunnel.library.training import train
from windtunnel.runs.seeds import evaluate_seeds
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import load


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Four seeds that have learned a little."""
    folder = tmp_path_factory.mktemp("ablated") / "runs"
    return train(
        "names", "tiny", seeds=4, steps=60, out=folder, progress=False,
        model={"n_layers": 2, "d_model": 16, "n_heads": 2}, train__threads=1,
    )  # fmt: skip


def test_the_difference_is_that_of_the_losses(seeds):
    names = {"everything": ["norm"], "head": ["blocks.1.attention.heads.0"]}
    whole, arms = evaluate_seeds(seeds.folders, "dev"), {name: [] for name in names}
    for folder in seeds.folders:
        trained = load(folder)
        for name, sites in names.items():
            with ablated(trained.model, sites):
                task = open_task(trained.run.config, trained.run.store())
                arms[name].append(evaluate(trained.model, task, "dev", 0).loss)
    found = judge_ablations(seeds.folders, names)
    assert [judgement.arm for judgement in found] == [*names]
    for judgement in found:
        theirs = [loss - one.loss for loss, (_, one) in zip(arms[judgement.arm], whole.seeds, strict=True)]
        assert [d for _, d in judgement.differences] == pytest.approx(theirs, abs=1e-6)
        assert judgement.over_documents.estimate == pytest.approx(sum(theirs) / 4, abs=1e-6)
        assert judgement.sentence.startswith(f"{judgement.arm} against {WHOLE}: ")
    assert found[0].verdict.word == "worse"
    assert found[0].over_documents.low > 0


def test_one_seed_decides_nothing_and_its_documents_still_say_something(seeds):
    [found] = judge_ablations(seeds.folders[:1], {"attention": ["blocks.0.attention"]})
    assert found.verdict.word == "undecided"
    assert "fewer than 4 seeds never decide" in found.sentence
    assert found.over_documents.low < found.verdict.difference.estimate < found.over_documents.high
    assert math.isnan(found.over_seeds.low)


@pytest.mark.parametrize(
    ("ablations", "split", "said"),
    [
        ({}, "dev", "at least one ablation"),
        ({"x": ["blocks.7.attention"]}, "dev", "no site 'blocks.7.attention'; did you mean"),
        ({"x": []}, "dev", "given none"),
        ({"x": ["blocks.0"]}, "tests", "it has train, dev, test"),
    ],
)
def test_a_mistake_is_answered(seeds, ablations, split, said):
    with pytest.raises(ConfigError, match=said):
        judge_ablations(seeds.folders, ablations, split)
