"""The sizes of a study lie on one dial, and the run of a size ends where its budget does."""

import itertools
from dataclasses import replace

import pytest

from windtunnel.errors import ConfigError
from windtunnel.models import TransformerConfig, build
from windtunnel.runs.arms import resolve_grid
from windtunnel.runs.budget import spent
from windtunnel.scaling.design import Design, RateRule, guess, make_design, resized
from windtunnel.scaling.study import open_base
from windtunnel.training.recipes import recipe
from windtunnel.training.run_config import Start


@pytest.fixture(scope="module")
def design(base):
    return make_design(base, 5000, fewest_steps=20)


def test_the_head_keeps_its_width_and_the_depth_follows_the_root_of_the_width():
    model = TransformerConfig(n_layers=4, n_heads=4, d_model=128, d_ff=400, vocab_size=100, position="rope")
    for n, layers in ((1, 1), (2, 1), (4, 2), (8, 3), (16, 4), (64, 8)):
        size = resized(model, 8 * n, 8)
        assert (size.d_model, size.n_heads, size.head_width, size.n_layers) == (8 * n, n, 8, layers)
        assert size.d_ff == max(1, round(400 * n / 16 / 8)) * 8
    assert resized(model, 128, 32) == model


@pytest.mark.parametrize("heads", [1, 3, 4, 6])
def test_key_and_value_heads_keep_their_share(heads):
    model = TransformerConfig(n_heads=4, n_kv_heads=2, d_model=32, vocab_size=9)
    size = resized(model, 8 * heads, 8)
    assert size.n_heads % size.n_kv_heads == 0
    assert size.n_kv_heads == {1: 1, 3: 1, 4: 2, 6: 3}[heads]


def test_a_translators_encoder_grows_with_it():
    model = recipe("translate", "pig-latin").model.replace(vocab_size=30)
    size = resized(model, 128, 16)
    assert (size.d_model, size.d_ff, size.n_heads, size.n_layers, size.encoder.n_layers) == (128, 256, 8, 3, 4)
    assert resized(model, 64, 16) == model
    wide = model.replace(encoder={"d_model": 32, "n_heads": 2, "d_ff": 64})
    encoder = resized(wide, 32, 16).encoder
    assert (encoder.d_model, encoder.n_heads, encoder.d_ff, encoder.n_layers) == (16, 1, 32, None)


def test_parameters_are_those_of_the_model(design):
    for n in (1, 2, 5):
        size = design.size(n)
        model = build(resized(design.base.config.model, size.width, design.head), 0)
        embedding = model.embedding.weight.numel()
        assert size.all_parameters == sum(p.numel() for p in model.parameters())
        assert size.parameters == size.all_parameters - embedding


def test_sizes_are_a_factor_of_two_apart_and_none_comes_twice(design):
    sizes = design.around(100_000)
    assert len(sizes) == 5
    assert sizes[2] == design.nearest(100_000)
    assert all(1.4 < b.parameters / a.parameters < 2.9 for a, b in itertools.pairwise(sizes))
    low = design.around(1)
    assert low[0] == design.size(1)
    assert len(set(low)) == 5
    assert design.smaller(low[0]) is None
    assert design.smaller(low[1]) == low[0]


@pytest.mark.parametrize("budget", [1e9, 3.3e9])
def test_every_schedule_ends_at_its_budget(design, budget):
    for size in design.around(guess(budget)):
        (arm,) = resolve_grid([design.arm(size, budget)])
        cost = spent(arm)
        assert cost.flops == pytest.approx(budget, rel=0.5 / 20)
        assert (cost.tokens, cost.flops) == pytest.approx(design.spent(size, budget))
        assert arm.config.train.steps >= 20
        assert arm.config.schedule.warmup == min(100, arm.config.train.steps // 10)


def test_small_budgets_have_small_batches_and_500_steps(base):
    design = make_design(base, 5000)
    batches = []
    for budget in (3e9, 1e10, 3e10, 1e11):
        sizes = design.around(guess(budget))
        arms = [design.arm(size, budget).config.train for size in sizes]
        assert all(train.steps >= 500 for train in arms)
        assert len({train.batch_size for train in arms}) == 1
        batches.append(arms[0].batch_size)
    assert batches == sorted(batches)
    assert batches[0] < batches[-1] == base.config.train.batch_size
    with pytest.raises(ConfigError, match=r"fewer than 500 steps of one example.*give more --minutes"):
        design.arm(design.size(20), 1e7)


def test_the_rate_follows_width_batch_and_tokens(design):
    rule = RateRule(lr=1e-2, matrix_lr=2e-2, width=64, batch=16, tokens=1e6)
    assert rule.at(64, 16, 1e6) == 1e-2
    assert rule.at(256, 16, 1e6) == pytest.approx(5e-3)
    assert rule.at(64, 4, 1e6) == pytest.approx(5e-3)
    assert rule.at(64, 16, 1e7) == pytest.approx(1e-2 * 10**-0.32)
    ruled, size = Design(design.base, design.head, rule, 20), design.size(4)
    config = ruled.arm(size, 1e10, factor=2).config
    at = config.train.batch_size, ruled.tokens(size, 1e10)
    assert config.optimizer.lr == pytest.approx(2 * rule.at(size.width, *at), rel=1e-3)
    assert config.optimizer.matrix_lr == pytest.approx(2 * 2e-2 * rule.factor(*at), rel=1e-3)


def test_the_reference_of_the_rate_is_the_config(base):
    rule = make_design(base, 5000).rule
    assert rule.at(16, 8, 100 * 8 * 8) == base.config.optimizer.lr


def test_a_family_without_a_dial_is_refused(config, base):
    with pytest.raises(ConfigError, match=r"the family mlp has no dial .* transformer or translator"):
        make_design(open_base(recipe("mlp", config.corpus)), 5000)
    started = replace(base, config=base.config.replace(start=Start(run="somewhere")))
    with pytest.raises(ConfigError, match="begins every size with random weights"):
        make_design(started, 5000)
