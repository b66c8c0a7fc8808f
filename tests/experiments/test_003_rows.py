"""The rows of document 003: their numbers against computations by hand, and verdicts that follow the numbers."""

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from windtunnel.experiments.direct_connections import LastBatches, share_beyond
from windtunnel.experiments.direct_connections import claims as direct_claims
from windtunnel.experiments.fold_batch_norm import compare, forgetful, same_function, speed, useless_bias
from windtunnel.experiments.initial_loss import BLIND, INITS, NAIVE, TINY, UNIFORM, begin
from windtunnel.experiments.initial_loss import claims as initial_claims
from windtunnel.experiments.makemore import GENERATOR, LADDER, config_of, descended
from windtunnel.experiments.makemore_ladder import block_means, ladder, minibatch_minima, minima, rungs
from windtunnel.experiments.zero_init import (
    bias_gradients,
    entropy,
    filled,
    first_batch,
    from_zero,
    partly_random,
    rank,
    ranks,
    singular_values,
)  # fmt: skip
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.inspect.fold import Agreement, agreement
from windtunnel.models import build
from windtunnel.report.outcome import Claim
from windtunnel.stats.intervals import mean_interval
from windtunnel.text.batches import Batch
from windtunnel.training.events import Step


def verdicts(claims):
    return [claim.verdict for claim in claims if isinstance(claim, Claim)]


@pytest.fixture(scope="module")
def zero():
    return recipe_subject("zero", config_of(filled(0.0)))


@pytest.fixture(scope="module")
def rows(zero):
    return first_batch(zero, 2048)


# -------------------------------------------------------------------------------------------------- zero and constant


def test_only_the_output_bias_gets_a_gradient_and_it_is_what_counting_says(zero, rows):
    counted = bias_gradients(zero, n=20)
    for i in (0, 7, 19):
        some = Batch({"ids": rows.ids[32 * i : 32 * i + 32]}, rows.targets[32 * i : 32 * i + 32])
        logits = torch.zeros(32, 27, requires_grad=True)
        [gradient] = torch.autograd.grad(F.cross_entropy(logits, some.targets[:, 0]), [logits])
        assert gradient.sum(0).abs().max().item() == pytest.approx(counted[i], abs=1e-6)
        flow = {g.name: g for g in gradient_flow(zero.model, some)}
        assert [name for name, g in flow.items() if g.state == "flows"] == ["output.bias"]
        assert flow["output.bias"].rms == pytest.approx(gradient.sum(0).square().mean().sqrt().item(), abs=1e-6)
    assert abs(7 / 32 - 1 / 27 - 0.1817) < 5e-5


def test_zero_stays_zero_and_its_loss_falls_towards_the_entropy_of_the_tokens(zero):
    trained, losses = descended(zero, 60)
    assert [name for name, p in trained.named_parameters() if p.detach().any()] == ["output.bias"]
    assert losses[0] == pytest.approx(math.log(27), abs=1e-6)
    assert np.mean(losses[-20:]) < losses[0] - 0.1
    part = zero.store.splits["train"]
    counts = np.append(np.bincount(np.asarray(part.ids), minlength=27)[1:], len(part.offsets) - 1)
    assert entropy(zero) == pytest.approx(scipy.stats.entropy(counts), abs=1e-9)
    assert entropy(zero) == pytest.approx(2.82, abs=0.02)


def test_equal_units_stay_equal_until_something_tells_them_apart():
    subject = recipe_subject("constant", config_of(filled(0.1)))
    equal = descended(subject, 30)[0].layers[0].linear.weight.detach()
    assert torch.equal(equal, equal[:1].expand_as(equal))
    assert len(equal[0].unique()) > 1
    model = partly_random(subject, ("output.weight",))
    assert rank(singular_values(model)) == 1
    apart = descended(subject, 30, model)[0]
    assert rank(singular_values(apart)) > 1
    assert rank(singular_values(apart)) == np.linalg.matrix_rank(apart.layers[0].linear.weight.detach().numpy())


def test_the_verdicts_on_zero_follow_what_moved():
    start = tuple(
        Gradient(name, (2,), "zero", rms, rms, 0.0)
        for name, rms in (("layers.0.linear.weight", 0.0), ("output.weight", 0.0), ("output.bias", 0.1))
    )
    gap, bias = mean_interval([0.001, 0.002, 0.001]), np.array([0.1817, 0.2, 0.15])
    assert verdicts(from_zero(start, ["output.bias"], gap, bias)) == ["holds", "holds", "does not hold", "holds"]
    other = (dataclasses.replace(start[0], rms=1e-9), *start[1:])
    moved = from_zero(other, ["layers.0.linear.bias"], mean_interval([0.1, 0.11]), bias + 0.1)
    assert verdicts(moved) == ["does not hold", "does not hold", "holds", "does not hold"]
    one, two = torch.tensor([1.0, 1e-7, 0.0]), torch.tensor([1.0, 1e-2, 0.0])
    values = {"every weight .1": one, "random C": one, "random b2": one, "random b1": two, "random W2": two}
    assert verdicts(ranks(values, 300)) == ["holds", "holds"]
    assert verdicts(ranks({**values, "random C": two}, 300)) == ["holds", "does not hold"]
    assert verdicts(ranks({**values, "every weight .1": two}, 300)) == ["does not hold", "does not hold"]


# ---------------------------------------------------------------------------------------------------- the first loss


def test_the_naive_start_is_that_of_the_published_weights(rows):
    draw = torch.Generator().manual_seed(GENERATOR)
    c, w1, b1, w2, b2 = (torch.randn(s, generator=draw) for s in ((27, 10), (30, 200), 200, (200, 27), 27))
    hidden = torch.tanh(c[rows.ids].flatten(1) @ w1 + b1)
    for name, logits in {NAIVE: hidden @ w2 + b2, TINY: hidden @ (w2 * 0.01), UNIFORM: torch.zeros(2048, 27)}.items():
        found = begin(INITS[name], rows, range(1))
        by_hand = F.cross_entropy(logits, rows.targets[:, 0], reduction="none").reshape(-1, 32).mean(1)
        assert found.batches == pytest.approx(by_hand.numpy(), rel=1e-4)
    assert found.losses == pytest.approx([BLIND], abs=1e-6)
    assert found.saturated[0] == pytest.approx(0.64, abs=0.06)
    assert by_hand.mean() == pytest.approx(BLIND)


def test_the_doctor_names_the_cause_of_the_naive_start(rows):
    assert {name: begin(settings, rows, range(1)).cause for name, settings in INITS.items()} == {
        **dict.fromkeys(INITS, ""), NAIVE: "output.weight",
    }  # fmt: skip


def test_the_verdicts_on_first_losses_follow_the_numbers(rows):
    found = {name: begin(settings, rows, range(3)) for name, settings in INITS.items()}
    ends = ["holds", "holds", "holds", "holds", "does not hold", "holds"]
    assert verdicts(initial_claims(found))[:5] == ends[:5]
    tiny = dataclasses.replace(found[TINY], losses=[BLIND, BLIND + 1e-6], saturated=[0.1, 0.11], batches=np.ones(9))
    naive = dataclasses.replace(found[NAIVE], batches=np.ones(9), cause="embedding.weight")
    uniform = dataclasses.replace(found[UNIFORM], losses=[3.4, 3.41])
    other = {**found, TINY: tiny, NAIVE: naive, UNIFORM: uniform}
    assert verdicts(initial_claims(other)) == [*["does not hold"] * 4, "holds", "does not hold"]


# ------------------------------------------------------------------------------------------------------- the ladder


def test_rungs_are_paired_and_corrected_as_scipy_has_it():
    draw = np.random.default_rng(0)
    losses = {name: list(2.2 - 0.02 * i + draw.normal(0, 0.01, 8)) for i, name in enumerate(LADDER)}
    found = rungs(losses)
    names = list(LADDER)
    p = [scipy.stats.ttest_rel(losses[b], losses[a]).pvalue for a, b in pairwise(names)]
    order = np.argsort(p)
    by_hand = np.empty(4)
    by_hand[order] = np.minimum(1, np.maximum.accumulate(np.array(p)[order] * [4, 3, 2, 1]))
    assert [q for _, q in found.values()] == pytest.approx(by_hand, rel=1e-9)
    assert [d.estimate for d, _ in found.values()] == pytest.approx(np.diff([np.mean(losses[n]) for n in names]))
    losses["Kaiming"][3] = math.nan
    assert [d.n for d, _ in rungs(losses).values()] == [8, 8, 7, 7]


def comparison(losses):
    """As much of a comparison as the claims read."""
    arms = [
        SimpleNamespace(name=name, seeds=[SimpleNamespace(loss=x, folder="") for x in own])
        for name, own in losses.items()
    ]
    return SimpleNamespace(arms=arms, rule=SimpleNamespace(alpha=0.05, margin=0.01))


def test_the_verdicts_on_rungs_follow_the_losses():
    noise = np.array([0.001, -0.001, 0.0005, -0.0005])
    middle = {"naive": 2.2, "output fix": 2.1, "tanh fix": 2.15, "Kaiming": 2.15, "batch norm": 2.05}
    losses = {name: list(value + noise * (i + 1)) for i, (name, value) in enumerate(middle.items())}
    losses["Kaiming"] = list(np.array(losses["tanh fix"]) + np.array([0.01, -0.01, 0.004, -0.004]))
    found = ladder(comparison(losses), mean_interval(losses["batch norm"]))
    assert verdicts(found) == ["holds", "holds", "does not hold", "undecided", "holds"]
    assert verdicts(ladder(comparison(losses), mean_interval([2.3, 2.31])))[0] == "does not hold"


def steps(losses):
    return [Step(i + 1, loss, 0.1, 1.0, 32, 0.01) for i, loss in enumerate(losses)]


def test_the_least_of_the_printed_losses_is_one_of_every_twentieth():
    losses = list(3 - 0.01 * np.arange(100))
    losses[51] = 1.0
    found = minibatch_minima(comparison({"batch norm": [2.1, 2.1]}), [steps(losses), steps(losses[::-1])])
    assert found["printed"] == pytest.approx([3 - 0.95, 3 - 0.99])
    assert found["all"] == [1.0, 1.0]
    assert verdicts(minima({"printed": [1.8, 1.81], "all": [1.4, 1.41], "dev": [2.1, 2.1]})) == [
        "does not hold", "does not hold",
    ]  # fmt: skip
    assert verdicts(minima({"printed": [2.1, 2.1], "all": [2.1, 2.1], "dev": [2.1, 2.1]})) == ["holds", "holds"]


def test_means_over_blocks_of_steps():
    found, losses = block_means([steps(range(200)), steps([2.0] * 230)], blocks=4)
    assert found == pytest.approx([25, 75, 125, 175])
    assert losses == pytest.approx([(49 / 2 + 50 * i + 2) / 2 for i in range(4)])


def test_direct_connections_are_judged_by_dev_and_minibatches_by_their_sign():
    last = LastBatches(np.array([[0.5, -0.5, 0.1, 0.2], [-1.0, 0.3, 0.1, 0.1]]), np.array([0.01, -0.02]))
    assert last.right == pytest.approx([0.75, 0.25])
    assert share_beyond(last, 0.35).estimate == pytest.approx(3 / 8)

    def judged(word):
        verdict = SimpleNamespace(word=word, difference=0.0)
        judgement = SimpleNamespace(verdict=verdict, sentence="s 1", over_seeds=mean_interval([0.01, -0.02]))
        return SimpleNamespace(judgements=[judgement], rule=SimpleNamespace(margin=0.01))

    words = {"better": "holds", "worse": "does not hold", "no difference that matters": "does not hold"}
    for word, verdict in {**words, "undecided": "undecided"}.items():
        assert verdicts(direct_claims(judged(word), last))[0] == verdict
    sure = LastBatches(np.full((4, 50), -0.1), np.full(4, -0.1))
    assert verdicts(direct_claims(judged("better"), sure))[1:] == ["holds", "does not hold"]
    wrong = LastBatches(np.full((4, 50), 0.5), np.full(4, -0.1))
    assert verdicts(direct_claims(judged("better"), wrong))[1:] == ["does not hold", "holds"]


# ---------------------------------------------------------------------------------------------------------- folding


def test_an_untrained_model_cannot_tell_a_right_folding_from_a_forgetful_one(zero):
    model = build(config_of({"n_layers": 3, "d_hidden": 16}).model, 0).eval()
    kept = compare(model, zero)
    assert kept.forgetful.largest < 1e-6
    assert kept.single.n == kept.single.same == 9_821 + 1_562
    assert (kept.n_before - kept.n_after, kept.double.largest < 1e-13) == (3 * 16, True)
    with torch.no_grad():
        model.layers[1].norm.weight.mul_(1.5)
        model.layers[2].norm.bias.add_(0.5)
        model.output.weight.mul_(100)
    assert agreement(model, forgetful(model), zero.task).largest > 0.1
    assert compare(model, zero).single.largest < 1e-4


def test_the_verdicts_on_folding_follow_the_differences():
    same, far = Agreement(1e-6, 100, 100), Agreement(0.3, 90, 100)

    def kept(**changes):
        parts = {"single": same, "double": Agreement(1e-15, 100, 100), "forgetful": same}
        return SimpleNamespace(**{**parts, **changes})

    gains = torch.tensor([0.5, 2.0])
    right = same_function({"untrained": [kept()], "trained": [kept(forgetful=far)]}, gains)
    assert verdicts(right) == ["holds", "holds", "holds", "does not hold"]
    wrong = same_function({"untrained": [kept(forgetful=far)], "trained": [kept(single=far, double=far)]}, gains)
    assert verdicts(wrong) == ["does not hold", "does not hold", "does not hold", "holds"]
    assert [speed({"before": [a] * 3, "after": [1.0] * 3}).verdict for a in (2.0, 0.5)] == ["holds", "does not hold"]
    bias = Gradient("layers.0.linear.bias", (2,), "cancels", 1e-9, 1e-18, 0.1)
    assert useless_bias([bias, bias]).verdict == "holds"
    assert useless_bias([bias, dataclasses.replace(bias, state="flows")]).verdict == "does not hold"
