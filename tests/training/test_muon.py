"""Muon against torch's, and what its steps are."""

from __future__ import annotations

import math

import pytest
import torch

from windtunnel.config import fingerprint, override
from windtunnel.errors import ArtifactError, ConfigError, NumericsError
from windtunnel.models import MLPConfig, build
from windtunnel.training.distributed import Sharded
from windtunnel.training.muon import LARGEST, Muon, hidden_matrices, orthogonal
from windtunnel.training.optimizer import OptimizerConfig, build_optimizer, optimizer_tensors, restore_optimizer
from windtunnel.training.recipes import recipe
from windtunnel.training.step import update

MUON = OptimizerConfig(name="muon", lr=1e-3, matrix_lr=0.05, weight_decay=0.1)


def matrices() -> list[torch.Tensor]:
    """Two of each shape."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(24, 8), (8, 24), (8, 8), (24, 8), (8, 24), (8, 8)]
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


def test_the_matrices_move_as_with_torchs_muon():
    ours, theirs = matrices(), matrices()
    mine = Muon(
        [(p, [len(p)]) for p in ours],
        [{"params": [torch.nn.Parameter(torch.zeros(1))]}],
        lr=0.1,
        matrix_lr=0.2,
        weight_decay=0.1,
    )
    oracle = torch.optim.Muon(theirs, lr=0.2, weight_decay=0.1)
    draw = torch.Generator().manual_seed(1)
    for step in range(5):
        before = [p.detach().clone() for p in ours]
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
            b.data.copy_(a.data)
        mine.step()
        oracle.step()
        for a, b, old in zip(ours, theirs, before, strict=True):
            # Products in bfloat16, rounded in another order: two digits.
            assert (a - b).norm() < 0.03 * (b - old).norm(), step


def test_no_singular_value_is_far_from_one():
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(4, 32, 96, generator=draw)
    found = orthogonal(given, torch.float32)
    u, _, vh = torch.linalg.svd(given, full_matrices=False)
    inside = torch.linalg.svdvals(found)
    assert inside.min() > 0.65
    assert inside.max() < LARGEST
    assert ((u.mT @ found @ vh.mT).diagonal(dim1=1, dim2=2) / inside.mean()).std() < 0.2  # the same directions
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ vh).flatten(), dim=0) > 0.98
    in_bf16 = orthogonal(given, torch.bfloat16).float()
    assert (in_bf16 - found).norm() < 0.03 * found.norm()


def test_any_singular_value_comes_out_below_the_largest():
    """Matrices of Frobenius norm 1 with the singular values s and sqrt(1 - s^2)."""
    values = torch.linspace(0.01, 1, 10_000, dtype=torch.float64)
    found = orthogonal(torch.diag_embed(torch.stack([values, (1 - values**2).sqrt()], dim=1)), torch.float64)
    assert 1.1 < float(found.max()) < LARGEST


def test_only_what_lies_inside_the_blocks_is_moved_so(config):
    model = build(config.model.replace(vocab_size=12, tie_embeddings=False), 0)
    names = {name for name, p in model.named_parameters() if p in hidden_matrices(model)}
    inside = ("attention.qkv", "attention.out", "feed_forward.widen", "feed_forward.narrow")
    assert names == {f"blocks.{layer}.{part}.weight" for layer in (0, 1) for part in inside}
    assert len(hidden_matrices(MLPConfig(vocab_size=12, n_layers=3).create())) == 3

    adam, muon = build(model.config, 0), model
    for chosen, settings in ((adam, MUON.replace(name="adamw")), (muon, MUON)):
        for p in chosen.parameters():
            p.grad = torch.ones_like(p)
        update(chosen, build_optimizer(chosen, settings), 1e-3, None)
    same = {name for name, p in muon.named_parameters() if torch.equal(p, adam.get_parameter(name))}
    assert same == {name for name, _ in muon.named_parameters()} - names


def test_the_schedule_scales_both_rates(config):
    """At a third of the rate everything moves a third as far."""
    small, moved = config.model.replace(vocab_size=12), {}
    for rate in (3e-4, 1e-4):
        model, start = build(small, 0), build(small, 0)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        update(model, build_optimizer(model, MUON.replace(weight_decay=0.0)), rate, None)
        moved[rate] = {name: (p - start.get_parameter(name)).norm().item() for name, p in model.named_parameters()}
    assert moved[1e-4] == pytest.approx({name: length / 3 for name, length in moved[3e-4].items()}, rel=1e-3)
    name = "blocks.0.attention.out.weight"  # 16 x 16, orthogonal: sqrt(16) times the rate
    assert 0.7 < moved[3e-4][name] / (4 * 0.05 * 0.3) < LARGEST


def test_the_longest_update_bounds_a_real_one_and_is_refused(config):
    model, start = build(config.model.replace(vocab_size=12), 0), build(config.model.replace(vocab_size=12), 0)
    optimizer = build_optimizer(model, MUON.replace(weight_decay=0.0))
    assert isinstance(optimizer, Muon)

    def give() -> None:
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))

    give()
    update(model, optimizer, 1e-3, None)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    length = math.sqrt(sum((a - b).square().sum().item() for a, b in pairs))
    assert 0.6 * optimizer.longest_update(1e-3) < length < optimizer.longest_update(1e-3)
    give()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NumericsError, match="times as long as the weights"):  # for AdamW the rate is a small one
        update(model, build_optimizer(model, MUON.replace(matrix_lr=5.0)), 1e-3, None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_lost_average_is_told(config):
    model = build(config.model.replace(vocab_size=12), 0)
    optimizer = build_optimizer(model, MUON)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    update(model, optimizer, 1e-3, None)
    saved = {key: value.clone() for key, value in optimizer_tensors(optimizer, model).items()}
    assert {key.split("/")[0] for key in saved} == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    for lost in ("momentum_buffer/blocks.0.attention.out.weight", "exp_avg/embedding.weight"):
        with pytest.raises(ArtifactError, match=f"lacks {lost}"):
            restore_optimizer(build_optimizer(model, MUON), model, {k: v for k, v in saved.items() if k != lost})


def test_shards_of_matrices_are_refused(config):
    with pytest.raises(ConfigError, match="muon needs whole matrices"):
        Sharded.check(object.__new__(Sharded), override(config, ["optimizer.name=muon"]))


def test_the_recipe_is_no_larger_than_nanogpts():
    model = recipe("quick", "names").model.replace(vocab_size=65)
    assert model.context_length == 64
    assert sum(p.numel() for p in model.create().parameters()) == 799_872 <= 800_000


def test_runs_from_before_keep_their_fingerprint():
    assert fingerprint(OptimizerConfig()) == fingerprint(OptimizerConfig(matrix_lr=0.02))
    assert fingerprint(OptimizerConfig()) != fingerprint(OptimizerConfig(matrix_lr=0.04))
