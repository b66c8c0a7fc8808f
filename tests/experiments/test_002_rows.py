"""The rows of 002: printed numbers to the last digit, bounds on both sides, and summaries that keep censored runs."""

import copy
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from windtunnel.config import fingerprint
from windtunnel.experiments.descent import Reached, reached, slopes, summary, times_longer
from windtunnel.experiments.frame import Drawing, Given, Row, Setting
from windtunnel.experiments.learning_rate import CURVATURES, GOOD, LARGE, doctors_curvatures, ends, path, story
from windtunnel.experiments.training import small_names, trained, verdicts
from windtunnel.experiments.weight_decay_groups import as_meant, as_written, both_ways, decayed
from windtunnel.inspect.doctor.batch_gradients import apart, gradient_of, gradient_variance
from windtunnel.models import TransformerConfig, build
from windtunnel.report.outcome import Progress
from windtunnel.report.table import Table
from windtunnel.runs.arms import Arm
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import batch
from windtunnel.text.corpora import open_corpus
from windtunnel.text.store import prepare
from windtunnel.training.data import open_task, train_examples
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer


def claims_of(outcome, id):
    return {claim.statement: claim for claim in outcome.claims if claim.id == id}


def test_shapes_counts_and_errors(outcome_of):
    found = outcome_of("tensor-shapes")
    assert {claim.verdict for claim in found.claims} == {"holds"}
    shapes = [claim.values["shape"] for claim in found.claims if claim.id == "002-1.1"]
    assert shapes == [(2, 4, 3), (1, 3, 4, 1), (2, 1, 3, 4), (1, 3, 4, 1, 1)]
    assert [claim.values["sizes"] for claim in found.claims if claim.id == "002-1.2"] == [[512], [64, 512, 9]]
    counts = claims_of(found, "002-2")
    assert [claim.values["counted"] for claim in counts.values()] == [338_896, 339_850]
    assert next(iter(counts.values())).values["terms"] == [111_392, 222_784, 4_720]
    said = [claim.measured for statement, claim in claims_of(found, "002-1.3").items() if "error" in statement]
    assert len(said) == 2
    assert all("index out of range in self" in words for words in said)


def test_seed_42(outcome_of):
    found = outcome_of("seed-42")
    first, clean, fourth = [claim for claim in found.claims if "first" in claim.values or "found" in claim.values]
    assert (first.verdict, clean.verdict, fourth.verdict) == ("does not hold", "holds", "holds")
    assert clean.values["first"] == 1.5464396476745605
    assert (fourth.values["found"], fourth.values["value"], fourth.values["matches"]) == (4, 1.3744735717773438, 1)
    assert "= 162" in claims_of(found, "002-3.1")["the network has 162 parameters"].measured
    assert [claim.verdict for claim in found.claims if claim.id == "002-3.2"] == ["holds"] * 3
    shared = claims_of(found, "E18")["one b can serve both layers"]
    assert shared.verdict == "does not hold"
    assert shared.values == {"hidden_10": True, "hidden_4": False, "output_10": False, "output_4": True}


def test_attention_by_hand(outcome_of):
    found = outcome_of("attention-by-hand")
    verdicts = [claim.verdict for claim in found.claims if claim.id == "002-4"]
    assert verdicts == ["holds", "holds", "holds", "does not hold", "holds", "holds"]
    of_any = claims_of(found, "E17")
    assert of_any["not about, but exactly d_k, whatever the data"].values["most_apart"] < 1e-12
    alike = of_any["the unscaled variance grows like d_k for any data"]
    assert alike.verdict == "does not hold"
    assert min(alike.values["variance"].values()) > 50
    grown = [claim.values["estimate"].estimate for claim in of_any.values() if "estimate" in claim.values]
    assert len(grown) == 4
    assert grown == pytest.approx([1] * 4, abs=0.06)


def test_a_quadratic_on_both_sides_of_its_bound():
    assert path(3.0, 0.5, 4) == pytest.approx([(1 - 1.5) ** n for n in range(5)])
    assert max(ends(0.99)) == pytest.approx(0.98**3000)
    assert min(ends(1.01)) == pytest.approx(1.02**3000, rel=1e-9)
    assert ends(1.0) == pytest.approx([1.0] * len(CURVATURES))
    assert max(ends(0.99, momentum=0.9)) < 1e-3 < 1e3 < min(ends(1.01, momentum=0.9))
    assert doctors_curvatures() == pytest.approx(CURVATURES, rel=1e-3)


def test_a_story_is_judged_by_how_far_the_loss_rose_again():
    smooth = [[3.0, 2.9, 2.5 - shift, 2.0 - shift] for shift in (0.0, 0.01, 0.02)]
    rough = [[3.0, 2.9, 3.4 + shift, 2.8] for shift in (0.0, 0.01, 0.02)]
    slow, rose, _ = story({LARGE: rough, GOOD: smooth}, slow=1)
    assert (slow.verdict, rose.verdict) == ("holds", "holds")
    assert rose.values["estimate"].estimate == pytest.approx(0.51)
    assert list(story({LARGE: smooth, GOOD: smooth}, slow=1))[1].verdict != "holds"


def model_with_biases():
    return build(TransformerConfig(vocab_size=11, context_length=8, n_layers=1, n_heads=2, d_model=8), seed=0)


def test_groups_that_are_ignored_decay_every_vector():
    model, config = model_with_biases(), OptimizerConfig(weight_decay=0.1)
    ways = both_ways(model, config)
    shapes = {name: p.dim() for name, p in model.named_parameters()}
    assert all(written for _, written in ways.values())
    assert {name for name, (meant, _) in ways.items() if meant} == {name for name, n in shapes.items() if n >= 2}
    everything = copy.deepcopy(model)
    asked = OptimizerConfig(weight_decay=0.1, decay_vectors=True)
    assert all(decayed(everything, build_optimizer(everything, asked)).values())
    for make, n_groups in ((as_meant, 2), (as_written, 1)):
        assert len(make(model, config).param_groups) == n_groups


def test_later_settings_leave_older_fingerprints_alone(tmp_path):
    base = small_names(Setting(True, 0, tmp_path))
    before = {
        name: value for name, value in OptimizerConfig().model_dump().items() if name not in OptimizerConfig.added
    }
    canonical = json.dumps(before, sort_keys=True, separators=(",", ":"))
    assert fingerprint(OptimizerConfig()) == hashlib.sha256(canonical.encode()).hexdigest()
    assert fingerprint(OptimizerConfig()) != fingerprint(OptimizerConfig(decay_vectors=True))
    assert fingerprint(base.train) != fingerprint(base.train.replace(n_examples=5))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A model, sixteen names and the setting of a quick experiment."""
    setting = Setting(True, 0, tmp_path_factory.mktemp("few"))
    config = small_names(setting)
    store = prepare(open_corpus(config.corpus, "line"), config.text)
    model = build(config.model.replace(vocab_size=store.tokenizer.vocab_size), seed=1)
    sampled = config.replace(train=config.train.replace(n_examples=16))
    return setting, config, model, train_examples(sampled, open_task(sampled, store))


def per_example(model, source):
    """Gradient of each example alone over the mean number of targets of an example, (N, P): the slow way."""
    batches = [batch(source, 1, 0, i) for i in range(len(source))]
    mean = sum(b.n_targets for b in batches) / len(batches)
    rows = []
    for b in batches:
        model.zero_grad()
        (loss_sum(model(b.ids), b.targets) / mean).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy())
    return np.array(rows)


def test_the_variance_of_a_gradient(few):
    _, _, model, source = few
    one = float(per_example(model, source).var(axis=0, ddof=1).sum())
    found = gradient_variance(model, source, (1, 2, 4), range(12))
    assert found[:, 0] == pytest.approx(one, rel=1e-3)
    assert found[:, 1:].mean(axis=0) == pytest.approx([one / 2, one / 4], rel=0.2)
    assert slopes((1, 2, 4), found).estimate == pytest.approx(-1, abs=0.12)


def test_a_full_batch_has_no_noise_and_comes_in_parts(few):
    _, _, model, source = few
    whole, other, parts = (gradient_of(model, source, 16, n, seed) for n, seed in ((1, 0), (1, 1), (4, 0)))
    assert apart(whole, other) < 1e-5
    assert apart(whole, parts) < 1e-5
    assert apart(whole, gradient_of(model, source, 8, 1, 0)) > 0.05


def test_runs_that_never_came_there_are_told_not_dropped():
    there = [Reached(n, 2 * n, n / 10, False) for n in (10, 20, 30)]
    never = [Reached(40, 80, 4.0, True)]
    assert summary(there[:2], "steps", ".0f").startswith("15 [")
    assert summary(there + never, "steps", ".0f") == "median 25; 1 of 4 not within 40"
    assert summary(there[:1] + never, "steps", ".0f") == "more than 40 in 1 of 2"
    assert times_longer(never, there[:1]).estimate == pytest.approx(4.0)
    assert times_longer(there[:1], never) is None
    ratio = times_longer([Reached(n, n, 3.0 * n + 0.1 * n**2, False) for n in (4, 5, 6)], there[:1] * 3)
    assert ratio.low < ratio.estimate == pytest.approx(np.mean([13.6, 17.5, 21.6]))


def test_a_quick_comparison_trains_here_once_and_tells_when_a_loss_was_reached(few, drained):
    setting, base = few[0], few[1].replace(train=few[1].train.replace(steps=6, eval_every=2, n_examples=16))
    wild = base.replace(optimizer=base.optimizer.replace(lr=1e3), train=base.train.replace(clip=None))
    arms = [Arm("plain", base), Arm("wild", wild)]
    yielded, found = drained(trained(setting, "tried", arms, (0, 1), "figure"))
    shown = [finding for finding in yielded if isinstance(finding, Progress)]
    assert (shown[0].done, shown[-1].total) == (0, 24)
    [given] = [finding.values for finding in yielded if isinstance(finding, Given)]
    assert (given["paired seeds"], given["tried: signature"]) == (2, found.signature)
    tables = [finding for finding in yielded if isinstance(finding, Table)]
    assert [table.title for table in tables] == ["Tried: every arm", "Tried: against plain"]
    assert [row[0] for row in tables[0].rows] == ["plain", "wild"]
    assert [finding.name for finding in yielded if isinstance(finding, Drawing)] == ["figure"]
    assert [run.reason for arm in found.arms for run in arm.seeds] == ["finished"] * 2 + ["diverged"] * 2
    assert found.arms[1].loss is None
    assert [run.loss for run in found.arms[1].seeds] == [math.inf] * 2
    assert found.judgements[0].verdict.diverged == (2, 0)
    yielded, again = drained(trained(setting, "tried", arms, (0, 1)))
    shown = [finding for finding in yielded if isinstance(finding, Progress)]
    assert again.arms[0].loss == found.arms[0].loss
    assert shown[-1].done == shown[0].done == 24
    [claim] = verdicts(Row("r"), found, {"wild": ("it is worse", ["worse"])})
    assert (claim.statement, claim.verdict) == ("it is worse", "undecided")  # of two seeds
    folder = Path(found.arms[0].seeds[0].folder)
    assert reached(folder, 10.0) == Reached(0, 0, 0.0, False)
    never = reached(folder, 0.1)
    assert (never.steps, never.examples, never.censored) == (6, 48, True)
    between = reached(folder, found.arms[0].seeds[0].loss + 1e-6)
    assert (between.steps, between.censored) == (6, False)


def test_the_doctor_names_the_small_rate_also_in_a_quick_run(outcome_of):
    found = {claim.values["lr"]: claim for claim in outcome_of("learning-rate").claims if "lr" in claim.values}
    assert found[1e-4].values["findings"] == ["learning rate too small"]
    assert found[1e-4].verdict == "holds"
