"""Runs on mixes: they resume bit for bit, and as arms are judged on the same text, as a whole and by corpus."""

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from windtunnel import cli
from windtunnel.comparison.compare import train_arms
from windtunnel.comparison.plan import make_plan
from windtunnel.comparison.slices import conclude_all
from windtunnel.config import override
from windtunnel.errors import ConfigError
from windtunnel.inspect.answers import FEWEST
from windtunnel.runs.arms import vary
from windtunnel.runs.listing import describe, listed
from windtunnel.runs.measure import read_measured
from windtunnel.runs.seeds import evaluate_seeds
from windtunnel.training.data import batches, open_task
from windtunnel.training.events import Step
from windtunnel.training.loop import fit, resume
from windtunnel.training.recipes import recipe
from windtunnel.training.run import open_run

CHANGES = ["train.steps=30", "train.eval_every=30", "train.save_every=30", "schedule.warmup=5",
           "train.sample_tokens=0", "train.batch_size=16", "model.n_layers=1", "model.n_heads=2", "model.d_model=16",
           "model.context_length=16", "train.compile=false", "train.precision=fp32", "train.threads=1"]  # fmt: skip


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
    """Lines of a-f, and running text of u-z: what is learned of one says nothing of the other."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    words = (
        "".join(rng.choice(list("abcdef"), rng.integers(3, 9), p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])) for _ in range(2000)
    )
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": word}) for word in words))
    (folder / "b.txt").write_text("".join(rng.choice(list("uvwxyz"), 20000, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])))
    return folder


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def config_of(mix, *more):
    return override(recipe("tiny", mix), ["text.tokenizer=characters", *CHANGES, *more])


@pytest.fixture(scope="module", name="trained")
def _trained(folder, tmp_path_factory):
    """Two mixes whose shares are each other's, 4 seeds, trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arms = vary(config_of("a.jsonl:0.5,b.txt:0.5"), ["corpus=a.jsonl:0.9,b.txt:0.1;b.txt:9, a.jsonl:1"])
        plan = make_plan(arms, 4, root=tmp_path_factory.mktemp("runs"))
        with ThreadPoolExecutor(1) as workers:
            list(train_arms(plan, workers))
        return plan, conclude_all(plan)


def test_every_arm_is_judged_on_the_same_text_and_by_corpus(trained):
    plan, found = trained
    assert [arm.name for arm in found.arms] == ["corpus=a.jsonl:0.9,b.txt:0.1", "corpus=b.txt:9, a.jsonl:1"]
    sums = [read_measured(plan.grid.folders[place]).sums["targets"] for place in plan.grid.places]
    assert all(np.array_equal(sums[0], other) for other in sums)
    assert [part.name for part in found.slices] == list(plan.baseline.task.by_name("dev"))
    of = {part.name: part for part in found.slices}
    assert sum(part.n for part in found.slices) == found.n_documents
    differences = {
        name: part.scores[found.arms[1].name]["loss"].estimate - part.scores[found.arms[0].name]["loss"].estimate
        for name, part in of.items()
    }
    assert differences["a.jsonl"] > 0.1  # trained on the other corpus
    assert differences["b.txt"] < -0.1
    assert of["a.jsonl"].n >= FEWEST
    assert [j.verdict.word for j in of["a.jsonl"].judgements] == ["worse"]
    assert found.slices_of == "documents"


def test_the_loss_of_all_is_that_of_the_corpora_by_their_tokens(trained):
    plan, found = trained
    parts = plan.baseline.task.by_name("dev")
    tokens = {name: part.totals("dev") for name, part in parts.items()}
    for arm in found.arms:
        for metric, total in (("loss", "targets"), ("bits_per_byte", "bytes")):
            each = [(part.scores[arm.name][metric].estimate, tokens[part.name][total]) for part in found.slices]
            mean = sum(score * n for score, n in each) / sum(n for _, n in each)
            assert math.isclose(mean, arm.scores[metric].estimate, rel_tol=1e-9)
    assert any("the held-out tokens are " in note and "whatever the mix" in note for note in found.notes)
    assert any("another mix" in line for line in found.pairing)


def test_evaluate_says_the_loss_of_each_corpus(trained, capsys, monkeypatch):
    plan, found = trained
    folder = plan.grid.folders[found.arms[0].name, 0]
    loss = evaluate_seeds([folder], "dev")
    for part in found.slices:
        totals = plan.baseline.task.by_name("dev")[part.name].totals("dev")
        own = plan.baseline.task.units_by_part("dev")[part.name]
        nats = read_measured(folder).sums["nats"][own].sum()
        assert loss.parts[part.name]["loss"].estimate == pytest.approx(nats / totals["targets"], rel=1e-6)
    monkeypatch.setattr("sys.argv", ["windtunnel", "evaluate", str(folder)])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    printed = capsys.readouterr().out
    assert f"of it a.jsonl: {loss.parts['a.jsonl']['loss'].estimate:.4f}" in printed
    assert "of it b.txt: " in printed


def test_a_run_on_a_mix_is_found_by_each_of_its_corpora(trained, folder):
    plan, found = trained
    runs = [describe(plan.grid.folders[found.arms[0].name, 0])]
    assert runs[0]["corpus"] == f"{folder.resolve()}/a.jsonl:0.9,{folder.resolve()}/b.txt:0.1"
    assert all(listed(runs, corpus=asked) == runs for asked in ("a.jsonl", "b.txt", str(folder / "b.txt")))
    assert listed(runs, corpus="names") == []


def test_a_run_on_a_mix_resumes_bit_for_bit(tmp_path):
    config = config_of("a.jsonl:0.6,b.txt:0.2,names:0.2", "train.save_every=5")

    def losses(folder):
        return [event.loss for event in open_run(folder).events() if isinstance(event, Step)]

    list(fit(config, tmp_path / "whole"))
    list(itertools.islice(fit(config, tmp_path / "parts"), 1))
    for stop in (4, 17, 30):
        done = [0]
        for event in resume(tmp_path / "parts", should_stop=lambda done=done, stop=stop: done[0] >= stop):
            done[0] = event.step
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 30


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ("a.jsonl:1,b.txt:1;a.jsonl", "differs; give every arm the same corpora"),
        ("a.jsonl:1,b.txt:1;a.jsonl:1,names:1", "the corpus differs"),
        ("a.jsonl:1,b.txt:1;b.txt:2,a.jsonl:2", "are the same run"),
    ],
)
def test_arms_on_other_texts_and_equal_arms_are_refused(arms, said):
    with pytest.raises(ConfigError, match=said):
        make_plan(vary(config_of("a.jsonl:1,b.txt:1"), [f"corpus={arms}"]), 4)


def test_what_draws_from_one_corpus_is_refused():
    config = config_of("a.jsonl:1,b.txt:1", "train.n_examples=10")
    with pytest.raises(ConfigError, match=r"train\.n_examples draws from one corpus"):
        batches(config, open_task(config))


def test_arms_with_other_tokenizers_are_judged_as_a_whole(tmp_path):
    plan = make_plan(
        vary(config_of("a.jsonl:1,b.txt:1"), ["text.tokenizer=characters,bytes"]), 4, root=tmp_path / "runs"
    )
    assert conclude_all(plan).slices == ()
    with pytest.raises(ConfigError, match="another tokenizer"):
        conclude_all(plan, slices=True)
