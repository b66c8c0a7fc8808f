"""The doctor on pictures and captions: vectors that are all the same are found, a healthy run is left alone."""

import math
from dataclasses import replace

import pytest
import torch

from shapes import captioned_shapes
from windtunnel.config import override
from windtunnel.inspect.doctor.checks import collapsed, fitting, frequencies, judge, measure
from windtunnel.inspect.doctor.collapse import Collapse, collapse
from windtunnel.inspect.doctor.fit import fit_of
from windtunnel.inspect.doctor.history import History, history
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.models import TransformerConfig, build
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import wilson
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.recipes import recipe

SMALL = [
    "model.picture.size=16", "model.picture.widths=[16, 32]", "model.caption.d_model=32", "train.threads=1",
    "model.d_shared=32", "train.batch_size=32", "optimizer.lr=0.003", "model.picture.norm=group",
]  # fmt: skip


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    captioned_shapes(folder, ["caption"], lambda i, name: [[name]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(folder.parent / "cache"))
        yield recipe_subject("clip", override(recipe("clip", str(folder)), SMALL))


def test_the_cosine_of_different_ones_is_measured(subject):
    batch = subject.task.examples("train").take(torch.arange(20).numpy(), 0)
    model = build(subject.config.model, 0).eval()
    with torch.no_grad():
        seen = model.encode_pictures(batch.inputs["pictures"])
        pairs = (seen @ seen.T)[~torch.eye(20, dtype=torch.bool)]
    assert collapse(model, batch).pictures == pytest.approx(pairs.mean().item(), abs=1e-5)
    with torch.no_grad():
        model.picture_projection.weight.copy_(torch.outer(torch.randn(32), torch.ones(64)))
    broken = collapse(model, batch)
    assert broken.pictures == pytest.approx(1, abs=1e-5)
    assert broken.captions < 0.99
    assert collapse(build(TransformerConfig(vocab_size=5, n_layers=1, n_heads=1, d_model=8), 0), batch) is None


def test_a_healthy_recipe_has_no_finding_and_a_collapsed_one_has(subject):
    exam = measure(subject, 100)
    assert exam.collapse is not None
    assert [finding.name for finding in judge(exam) if finding.severity == "problem"] == []
    assert collapsed(exam) == []
    (finding,) = collapsed(replace(exam, collapse=Collapse(pictures=0.995, captions=0.2)))
    assert (finding.name, finding.severity) == ("collapsed vectors", "warning")
    assert "two different pictures have the cosine 0.995" in finding.evidence
    assert "captions have" not in finding.evidence
    (finding,) = collapsed(replace(exam, collapse=Collapse(0.997, 0.993), is_run=True))
    assert finding.severity == "problem"
    assert "captions have the cosine 0.993" in finding.evidence


def test_both_splits_are_fitted_among_as_many_pictures(subject):
    model, task = build(subject.config.model, 0).eval(), subject.task
    with torch.no_grad():
        for tower in (model.picture_projection, model.caption_projection):
            tower.weight.zero_()  # then every picture is as near as any other
    n = min(task.n_units("train"), task.n_units("dev"))
    assert task.n_units("train") > n
    fit = fit_of(model, task, subject.store, 8192)
    assert [e.estimate for e in (fit.train, fit.dev, fit.unigram)] == pytest.approx([math.log(n)] * 3, abs=1e-5)
    assert fit.gap.estimate == pytest.approx(0, abs=1e-5)


def test_a_loss_that_rises_while_no_less_is_found_is_sureness_and_not_overfitting(subject):
    exam = replace(measure(subject, 100), is_run=True)
    falling = tuple(5 - step / 50 for step in range(100))
    past = History(
        tuple(range(1, 101)), falling, falling, ((0, 5.0), (50, 4.5), (100, 9.0)), "finished", "recall_at_1",
        ((0, 0.01), (50, 0.1), (100, 0.14)),
    )  # fmt: skip
    (finding,) = [one for one in fitting(replace(exam, history=past)) if one.name != "underfitting"]
    assert (finding.name, finding.severity) == ("too sure on dev", "warning")
    assert "recall_at_1 went from 0.1000 to 0.1400" in finding.evidence
    worse = replace(past, right=((0, 0.01), (50, 0.1), (100, 0.09)))
    for lost in (worse, replace(past, metric="", right=())):
        (finding,) = [one for one in fitting(replace(exam, history=lost)) if one.name != "underfitting"]
        assert (finding.name, finding.severity) == ("overfitting", "problem")


def test_a_model_that_finds_pictures_is_better_than_a_blind_guess_whatever_its_loss(subject):
    exam = replace(measure(subject, 100), is_run=True)
    assert exam.fit.among_first.n == len(list(subject.task.examples("dev").places))
    assert exam.fit.chance == pytest.approx(5 / exam.fit.among_first.n)
    worse = replace(exam.fit, better_than_unigram=Estimate(-3, -4, -2, 20, "made up"), chance=0.25)
    for found, names in ((12, []), (5, ["no better than a blind guess"])):
        fit = replace(worse, among_first=wilson(found, 20))
        assert [one.name for one in frequencies(replace(exam, fit=fit))] == names


def test_a_history_has_the_metric_of_which_more_is_better():
    seen = [Evaluation(step, "dev", {"recall_at_1": step / 10, "loss": 3.0}, 9, True) for step in (0, 4)]
    step = Step(1, 2.0, 1e-3, 1.0, 1, 0.1)
    found = history([seen[0], step, seen[1]])
    assert (found.metric, found.right, found.dev) == ("recall_at_1", ((0, 0.0), (4, 0.4)), ((0, 3.0), (4, 3.0)))
    plain = [replace(one, scores={"loss": 3.0}) for one in seen]
    assert (history([step, *plain]).metric, history([step, *plain]).right) == ("", ())
