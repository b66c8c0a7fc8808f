"""The doctor on pictures and captions: vectors that are all the same are found, a healthy run is left alone."""

import math
from dataclasses import replace

import pytest
import torch

from shapes import captioned_shapes
from windtunnel.config import override
from windtunnel.inspect.doctor.checks import collapsed, judge, measure
from windtunnel.inspect.doctor.collapse import Collapse, collapse
from windtunnel.inspect.doctor.fit import fit_of
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.models import TransformerConfig, build
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
