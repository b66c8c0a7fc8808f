"""One step: schedules, optimizer groups, exact accumulation, the guard."""

from __future__ import annotations

import math
import re
from typing import get_args

import pytest
import safetensors.torch
import torch
from tiny_runs import final_hashes, finish, losses, stop_after, store_of

from windtunnel.config import fingerprint, override
from windtunnel.errors import ConfigError, NumericsError
from windtunnel.models import build
from windtunnel.nn import linear
from windtunnel.tasks.cross_entropy import loss_sum
from windtunnel.text.batches import batch
from windtunnel.training.checkpoint import weights_sha256
from windtunnel.training.data import open_task
from windtunnel.training.evaluate import evaluate
from windtunnel.training.events import Evaluation, Step, Stopped
from windtunnel.training.loop import _advice, fit, resume
from windtunnel.training.muon import hidden_matrices
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer, optimizer_tensors, restore_optimizer
from windtunnel.training.run import load, open_run
from windtunnel.training.schedule import CURVES, ScheduleConfig, learning_rate
from windtunnel.training.step import gradients, guard, seed_all, update


def rates(steps: int = 101, **settings: object) -> list[float]:
    config = ScheduleConfig(**{"warmup": 0, **settings})
    return [learning_rate(step, steps, 2.0, config) for step in range(steps)]


@pytest.mark.parametrize("curve", CURVES)
def test_warm_up_rises_linearly_to_the_peak(curve):
    found = rates(111, curve=curve, warmup=10)
    assert found[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert found[10] == pytest.approx(2.0)
    assert max(found) <= 2.0 + 1e-12


def test_curves_in_the_middle_and_at_the_end():
    cosine = rates(curve="cosine", final_fraction=0.1)
    assert [cosine[i] for i in (0, 25, 50, 100)] == pytest.approx(
        [2.0, 2 * (0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5))), 1.1, 0.2]
    )
    linear = rates(curve="linear", final_fraction=0.5)
    assert [linear[i] for i in (0, 25, 50, 100)] == pytest.approx([2.0, 1.75, 1.5, 1.0])
    assert set(rates(curve="constant")) == {2.0}


def test_drops():
    stairs = rates(curve="step", final_fraction=0.1, drops=(0.5, 0.75))
    assert [stairs[i] for i in (0, 49, 50, 74, 75, 100)] == pytest.approx([2.0, 2.0, 0.2, 0.2, 0.02, 0.02])


def test_more_steps_than_planned_and_a_warm_up_longer_than_the_run():
    config = ScheduleConfig(warmup=10, final_fraction=0.1)
    assert learning_rate(500, 100, 1.0, config) == pytest.approx(0.1)
    assert learning_rate(4, 5, 1.0, config) == pytest.approx(0.5)
    assert learning_rate(0, 1, 1.0, ScheduleConfig(warmup=0)) == 1.0


@pytest.mark.parametrize("name", get_args(OptimizerConfig.model_fields["name"].annotation))
def test_only_matrices_are_decayed(config, name):
    model = build(config.model.replace(vocab_size=12), 0)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.5, weight_decay=0.2))
    update(model, optimizer, 0.5, None)
    hidden = hidden_matrices(model) if name == "muon" else {}
    for key, parameter in model.named_parameters():
        rate = 0.02 if parameter in hidden else 0.5
        expected = 1.0 - rate * 0.2 if parameter.dim() >= 2 else 1.0
        assert parameter.data.flatten().tolist() == pytest.approx([expected] * parameter.numel()), key
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", get_args(OptimizerConfig.model_fields["name"].annotation))
def test_optimizer_state_round_trip(config, name):
    """Three steps, through safetensors, two more: equal to five steps, bit for bit."""
    small, settings = config.model.replace(vocab_size=12), OptimizerConfig(name=name)

    def run(model, optimizer, steps) -> None:
        for step in steps:
            for parameter in model.parameters():
                seed_all(step, torch.device("cpu"))
                parameter.grad = torch.randn(parameter.shape)
            update(model, optimizer, 0.01, 1.0)

    whole = build(small, 0)
    run(whole, build_optimizer(whole, settings), range(5))
    first = build(small, 0)
    optimizer = build_optimizer(first, settings)
    assert optimizer_tensors(optimizer, first) == {}
    run(first, optimizer, range(3))
    saved = safetensors.torch.load(safetensors.torch.save(optimizer_tensors(optimizer, first)))
    adam, momentum = {"exp_avg", "exp_avg_sq", "step"}, {"momentum_buffer"}
    kinds = {"adamw": adam, "sgd": momentum, "muon": adam | momentum}
    assert {key.split("/")[0] for key in saved} == kinds[name]
    second = build(small, 1)
    second.load_state_dict(first.state_dict())
    optimizer = build_optimizer(second, settings)
    restore_optimizer(optimizer, second, saved)
    run(second, optimizer, range(3, 5))
    assert weights_sha256(dict(second.named_parameters())) == weights_sha256(dict(whole.named_parameters()))


def gradient_of(config, rows, parts: int) -> tuple[float, torch.Tensor]:
    model = build(config.model.replace(vocab_size=12, dropout=0.0), 0)
    loss = gradients(lambda some: loss_sum(model(some.ids), some.targets), rows, parts, 0, 0)
    return loss, torch.cat([p.grad.flatten() for p in model.parameters()])


def test_accumulation_is_exact_for_unequal_token_counts(config):
    rows = batch(open_task(config, store_of(config)).examples("train"), 10, 0, 0)
    counts = [part.n_targets for part in rows.split(3)]
    assert len({count / len(part.ids) for count, part in zip(counts, rows.split(3), strict=True)}) > 1
    assert sum(counts) == rows.n_targets
    loss, gradient = gradient_of(config, rows, 1)
    for parts in (3, 4, 10, 99):
        other_loss, other_gradient = gradient_of(config, rows, parts)
        assert other_loss == pytest.approx(loss, abs=1e-6)
        assert (other_gradient - gradient).abs().max() < 1e-6


def test_recomputed_blocks_give_the_same_numbers_bit_for_bit(config, reference, tmp_path):
    """With dropout and accumulation; and the fingerprints of runs from before the setting stay."""
    recomputed = override(config, ["train.recompute=true"])
    assert fingerprint(override(config, ["train.recompute=false"])) == fingerprint(config) != fingerprint(recomputed)
    assert finish(recomputed, tmp_path / "run") == reference[1]
    assert final_hashes(tmp_path / "run") == reference[2]


def test_the_seeds_are_those_of_manual_seed():
    seed_all(2**62 + 5, torch.device("cpu"))
    drawn = torch.rand(8)
    torch.manual_seed(2**62 + 5)
    assert torch.equal(drawn, torch.rand(8))


def test_clipping_scales_to_the_limit():
    layer = torch.nn.Linear(3, 2, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.full((2, 3), 10.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    assert update(layer, optimizer, 1.0, 0.5) == pytest.approx(10 * math.sqrt(6))
    assert (before - layer.weight).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert layer.weight.grad is None


def test_adamw_clips_as_it_reads_and_only_what_is_too_long(monkeypatch):
    """Against clipped gradients, with a matrix whose norm is taken by rows; the second of three gradients is short."""
    monkeypatch.setattr(linear, "LARGE", 6)
    torch.manual_seed(0)
    layer, plain = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    plain.load_state_dict(layer.state_dict())
    optimizer, its = build_optimizer(layer, OptimizerConfig()), build_optimizer(plain, OptimizerConfig())
    for size in (10.0, 0.01, 3.0):
        for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
            ours.grad = size * torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        its.step()
        assert update(layer, optimizer, 1e-3, 0.5) == pytest.approx(norm.item(), rel=1e-6)
    found, expected = optimizer_tensors(optimizer, layer), optimizer_tensors(its, plain)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-7)
    assert len(found) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_gradient_or_loss_does_not_touch_the_weights(bad):
    layer = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(layer, OptimizerConfig())
    before = weights_sha256(dict(layer.named_parameters()))
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    layer.bias.grad[1] = bad
    with pytest.raises(NumericsError, match="the gradient's norm is"):
        update(layer, optimizer, 0.1, 1.0)
    assert weights_sha256(dict(layer.named_parameters())) == before
    assert optimizer_tensors(optimizer, layer) == {}
    with pytest.raises(NumericsError, match="the loss is"):
        guard(bad, 10.0)
    with pytest.raises(NumericsError, match="rose to 11 nats, past the limit of 10"):
        guard(11.0, 10.0)
    guard(10.0, 10.0)


DIVERGING = [
    "optimizer.name=sgd",
    "optimizer.lr=300",
    "schedule.warmup=20",
    "train.clip=none",
    "train.save_every=1",
    "train.keep=1",
]


def test_divergence_stops_saves_and_says_what_to_try(config, tmp_path):
    config, events = override(config, DIVERGING), []
    with pytest.raises(NumericsError) as caught:
        events.extend(fit(config, tmp_path / "run"))
    stopped = events[-1]
    assert isinstance(stopped, Stopped)
    assert (stopped.reason, stopped.message) == ("diverged", str(caught.value))
    assert 0 < stopped.step < 30
    assert f"diverged at step {stopped.step + 1}: " in stopped.message
    assert "--set optimizer.lr=1e+02" in stopped.message
    loaded = load(tmp_path / "run")
    assert loaded.step == stopped.step == len(losses(tmp_path / "run"))
    assert loaded.warnings == ()
    with pytest.raises(NumericsError, match="diverged"):
        list(resume(tmp_path / "run"))

    # What was saved is the state after the last step that was let through, bit for bit.
    stop_after(config, tmp_path / "stopped", stopped.step)
    assert final_hashes(tmp_path / "stopped") == final_hashes(tmp_path / "run")


def test_after_an_update_that_was_far_too_long_the_advice_is_the_rate_that_fits(config, tmp_path):
    config = override(config, ["optimizer.name=adamw", "optimizer.lr=1700", "schedule.warmup=0"])
    with pytest.raises(NumericsError, match=r"times as long as the weights themselves.*far too high") as caught:
        list(fit(config, tmp_path / "run"))
    assert "warm-up" not in str(caught.value)
    assert "clip" not in str(caught.value)
    fitting = float(re.search(r"--set optimizer\.lr=(\S+)$", str(caught.value))[1])
    assert 1e-5 < fitting < 1e-2
    assert list(fit(override(config, [f"optimizer.lr={fitting}"]), tmp_path / "again"))[-1].reason == "finished"


@pytest.mark.parametrize(
    ("settings", "step", "told", "not_told"),
    [
        ([], 0, "the learning rate is not the cause", "optimizer.lr"),
        (["train.precision=bf16"], 0, "train.precision=fp32", "optimizer.lr"),
        (["train.clip=none"], 5, "clipping (--set train.clip=1)", "warm-up"),
        (["train.clip=1"], 5, "Try a lower learning rate (--set optimizer.lr=0.001)", "clip"),
        (
            ["train.steps=1000", "schedule.warmup=60"],
            5,
            "a longer warm-up (--set schedule.warmup=120)",
            "not the cause",
        ),
    ],
)
def test_the_advice_after_divergence_depends_on_what_happened(config, settings, step, told, not_told):
    config = override(config, ["optimizer.lr=0.003", "train.steps=30", *settings])
    said = _advice(NumericsError("the loss is nan"), step, config)
    assert told in said
    assert not_told not in said


def test_divergence_keeps_the_checkpoint_before_it(config, tmp_path):
    """Even with keep=1: weights past mending must not push out the last ones that were well."""
    config = override(config, [*DIVERGING, "train.save_every=2", "optimizer.lr=40"])
    with pytest.raises(NumericsError):
        list(fit(config, tmp_path / "run"))
    steps = sorted(int(path.name[5:]) for path in (tmp_path / "run").glob("step-*"))
    assert len(steps) == 2
    assert steps[0] == steps[1] - 1


def test_nan_in_the_weights_is_stopped_before_an_update(config):
    model = build(config.model.replace(vocab_size=12), 0)
    with torch.no_grad():
        next(iter(model.blocks)).attention.out.weight[0, 0] = math.nan
    rows = batch(open_task(config, store_of(config)).examples("train"), 10, 0, 0)
    loss = gradients(lambda some: loss_sum(model(some.ids), some.targets), rows, 2, 0, 0)
    with pytest.raises(NumericsError, match="the loss is nan"):
        guard(loss, 100.0)
    with pytest.raises(NumericsError, match="norm is nan"):
        update(model, build_optimizer(model, OptimizerConfig()), 0.1, None)


def test_evaluation_of_the_whole_split_by_an_independent_calculation(config, reference):
    """One document at a time, without padding, from log-softmax; bytes counted from the decoded text."""
    loaded = load(reference[0])
    store = loaded.run.store()
    split, end = store.splits["dev"], store.tokenizer.end_id
    nats, tokens, n_bytes = 0.0, 0, 0
    for first, last in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        ids = [end, *split.ids[first:last].tolist(), end]
        n_bytes += len(store.tokenizer.decode(split.ids[first:last].tolist()).encode()) + 1
        for start in range(0, len(ids) - 1, 8):
            part = ids[start : start + 9]
            with torch.no_grad():
                chances = loaded.model(torch.tensor([part[:-1]]))[0].log_softmax(-1)
            nats -= sum(chances[i, token].item() for i, token in enumerate(part[1:]))
            tokens += len(part) - 1
    found = evaluate(loaded.model, open_task(loaded.run.config, store), "dev", 30)
    assert (found.n_tokens, found.whole, found.split) == (tokens, True, "dev")
    assert found.loss == pytest.approx(nats / tokens, rel=1e-6)
    assert found.scores["bits_per_byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)
    logged = [e for e in loaded.run.events() if type(e).__name__ == "Evaluation"][-1]
    assert logged.loss == pytest.approx(found.loss, rel=1e-6)
    assert not loaded.model.training


def test_the_way_is_evaluated_in_the_runs_precision_and_the_end_in_float32(config, tmp_path):
    """At the width 16 they differ by some 1e-4 nats; `windtunnel evaluate` gives the last one again."""
    halves = override(config, ["train.precision=bf16", "train.steps=10", "train.eval_every=5", "train.save_every=5"])
    logged = {event.step: event.loss for event in fit(halves, tmp_path / "run") if isinstance(event, Evaluation)}
    for step in (5, 10):
        model = build(open_run(tmp_path / "run").config.model, 0)
        model.load_state_dict(safetensors.torch.load_file(tmp_path / "run" / f"step-{step}" / "model.safetensors"))
        fp32, bf16 = (
            evaluate(model, open_task(halves, store_of(halves)), "dev", step, precision=p).loss
            for p in ("fp32", "bf16")
        )
        assert fp32 != bf16
        assert fp32 == pytest.approx(bf16, abs=5e-3)
        assert logged[step] == (fp32 if step == 10 else bf16)


def test_a_sample_says_so_and_is_not_the_shortest_documents(config, reference):
    loaded = load(reference[0])
    task = open_task(loaded.run.config)
    whole = evaluate(loaded.model, task, "train", 30)
    part = evaluate(loaded.model, task, "train", 30, max_targets=600)
    assert whole.whole
    assert not part.whole
    assert 600 <= part.n_tokens < 615
    # The shortest documents alone, half of whose tokens are end marks, are 0.3 nats away.
    assert part.loss == pytest.approx(whole.loss, abs=0.06)
    assert evaluate(loaded.model, task, "train", 30, max_targets=600) == part
    assert evaluate(loaded.model, task, "train", 30, max_targets=10**6) == whole


def test_a_dev_split_shorter_than_the_context_is_evaluated(config, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 20)
    changed = override(config, ["text.unit=text", "model.context_length=64", "train.steps=2", "train.batch_size=2"])
    finish(changed.replace(corpus=str(tmp_path / "text.txt")), tmp_path / "run")
    evaluations = [e for e in open_run(tmp_path / "run").events() if type(e).__name__ == "Evaluation"]
    assert [e.n_tokens for e in evaluations] == [23, 23]


def test_warm_up_begins_at_the_first_update(config, tmp_path):
    rates = [e.lr for e in fit(config, tmp_path / "run") if isinstance(e, Step)]
    assert rates[:5] == pytest.approx([0.0002, 0.0004, 0.0006, 0.0008, 0.001])
    assert rates[-1] == pytest.approx(0.0001)


def test_unknown_curve_is_a_config_error(config):
    with pytest.raises(ConfigError, match=r"schedule\.curve"):
        override(config, ["schedule.curve=wave"])


@pytest.mark.parametrize(("name", "lr"), [("sgd", 1e6), ("adamw", 1.0), ("muon", 1.0)])
def test_an_absurdly_long_update_does_not_touch_the_weights(config, name, lr):
    model = build(config.model, 0)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=lr))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = weights_sha256(dict(model.named_parameters()))
    with pytest.raises(NumericsError, match="times as long as the weights"):
        update(model, optimizer, lr, clip=1.0)
    assert weights_sha256(dict(model.named_parameters())) == before
    update(model, optimizer, 1e-3, clip=1.0)
    assert weights_sha256(dict(model.named_parameters())) != before
