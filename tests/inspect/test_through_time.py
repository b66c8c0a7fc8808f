"""Gradients through time, against products by hand and against autograd over the whole way."""

from __future__ import annotations

import pytest
import torch

from windtunnel.errors import ConfigError
from windtunnel.inspect.through_time import step_jacobians, through_time
from windtunnel.models import MLPConfig, RNNConfig, build
from windtunnel.nn.recurrent import CELLS

IDS = [1, 4, 0, 2, 2, 3]


def model_of(**changes):
    return build(RNNConfig(**{"vocab_size": 5, "d_model": 6, "n_layers": 1, "cell": "elman", **changes}), seed=0)


def test_where_the_state_stays_zero_the_gradient_is_a_power():
    """tanh'(0) = 1 and U is half an orthogonal matrix: each step back halves the gradient."""
    model = model_of()
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.layers[0].weight_hh_l0.mul_(0.5)
    steps = torch.arange(len(IDS))
    expected = 0.5 ** (steps[:, None] - steps).double().tril(0)
    torch.testing.assert_close(through_time(model, IDS), expected.tril(0), rtol=1e-6, atol=1e-12)


def test_of_an_elman_network_it_is_the_product_of_the_steps_by_hand():
    """h = tanh(W x + U h) has the gradient diag(1 - h^2) U."""
    model = model_of().double()
    layer, h, steps = model.layers[0], torch.zeros(6).double(), []
    with torch.no_grad():
        for i in IDS:
            h = (layer.weight_ih_l0 @ (model.embedding.weight[i] * 6**0.5) + layer.weight_hh_l0 @ h).tanh()
            steps.append(torch.diag(1 - h**2) @ layer.weight_hh_l0)
    torch.testing.assert_close(step_jacobians(model, IDS), torch.stack(steps))
    found = through_time(model, IDS)
    for t in range(len(IDS)):
        for s in range(len(IDS)):
            product = torch.eye(6).double() * (s <= t)
            for step in steps[s + 1 : t + 1]:
                product = step @ product
            assert found[t, s].item() == pytest.approx(torch.linalg.svdvals(product)[0].item(), rel=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_of_every_cell_it_is_the_gradient_over_the_whole_way(cell):
    model = model_of(cell=cell, n_layers=2, tie_embeddings=False).double()
    found = through_time(model, IDS)
    x_1TD = model.embed(torch.tensor([IDS]))[0].detach()
    for s, t in [(0, 5), (1, 3), (4, 5)]:
        _, at_s = model.read(x_1TD[:, : s + 1])
        whole = torch.autograd.functional.jacobian(lambda h, s=s, t=t: model.read(x_1TD[:, s + 1 : t + 1], h)[1], at_s)
        size = at_s.numel()
        expected = torch.linalg.matrix_norm(whole.reshape(size, size), ord=2)
        assert found[t, s].item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.equal(found.diagonal(), torch.ones(len(IDS)).double())
    assert found.triu(1).abs().max() == 0


def test_it_changes_nothing_in_the_model():
    model = model_of(cell="gru").train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    through_time(model, IDS)
    assert model.training
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_what_has_no_time_is_refused():
    with pytest.raises(ConfigError, match="is of the family mlp"):
        through_time(build(MLPConfig(), 0), IDS)
    with pytest.raises(ConfigError, match="has an encoder"):
        through_time(model_of(encoder=True), IDS)
    with pytest.raises(ConfigError, match="at least one token"):
        through_time(model_of(), [])
