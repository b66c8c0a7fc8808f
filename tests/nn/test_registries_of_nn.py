"""What every norm and every kind of position keeps: each test runs over all entries of a registry."""

import pytest
import torch

from windtunnel.models import TransformerConfig, build
from windtunnel.nn.norms import NORMS
from windtunnel.nn.positions import POSITIONS

B, T, D = 2, 5, 16
NORMALISED = {
    "layer": lambda y: torch.cat([y.mean(-1), y.std(-1, correction=0) - 1]),
    "rms": lambda y: y.square().mean(-1).sqrt() - 1,
    "none": lambda y: torch.zeros(1),
}
"""What is 0 of a token's vector after each norm."""


def x_of(seed=0):
    return 7 + 5 * torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_a_new_norm_normalises_each_token_by_itself(name, bias):
    assert NORMALISED.keys() == NORMS.keys()
    norm, x = NORMS[name](D, 1e-8, bias), x_of()
    y = norm(x)
    assert y.shape == x.shape
    assert NORMALISED[name](y).abs().max() < 1e-5
    other = x.clone()
    other[:, 1:] = x_of(1)[:, 1:]
    assert torch.equal(norm(other)[:, 0], y[:, 0])


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_does_not_see_how_long_a_vector_is(name):
    norm, x = NORMS[name](D, 1e-12, True), x_of()
    assert torch.allclose(norm(100 * x), norm(x) if name != "none" else 100 * x, atol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_scales_by_its_weight_and_passes_gradients(name):
    norm, x = NORMS[name](D, 1e-8, True), x_of().requires_grad_()
    y = norm(x)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.mul_(3)
    assert torch.allclose(norm(x), y if name == "none" else 3 * y, atol=1e-5)
    norm(x).square().mul(torch.arange(D)).sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in (x, *norm.parameters()))


def model_of(position):
    """One layer, so that without positions the last token sees those before it as a set."""
    config = TransformerConfig(
        vocab_size=11, context_length=8, n_layers=1, n_heads=2, d_model=D, position=position, dropout=0.0
    )
    model = build(config, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return model


@pytest.mark.parametrize("name", POSITIONS)
@torch.no_grad()
def test_a_position_tells_a_model_the_order_of_its_tokens(name):
    model, ids = model_of(name), torch.tensor([[1, 2, 3, 4, 5, 6]])
    swapped = ids[:, [0, 3, 2, 1, 4, 5]]
    logits, other = model(ids), model(swapped)
    assert logits.shape == (1, 6, 11)
    assert torch.isfinite(logits).all()
    moved = (logits[0, -1] - other[0, -1]).abs().max()
    assert moved < 1e-5 if name == "none" else moved > 1e-3


@pytest.mark.parametrize("name", POSITIONS)
@torch.no_grad()
def test_a_position_is_the_same_read_at_once_and_token_by_token(name):
    model, ids = model_of(name), torch.tensor([[1, 2, 3, 4, 5, 6]])
    cache = model.new_cache(1, 8)
    parts = torch.cat([model(ids[:, t : t + 1], cache=cache) for t in range(6)], dim=1)
    assert torch.allclose(parts, model(ids), atol=1e-5)


@pytest.mark.parametrize("name", POSITIONS)
def test_the_parameters_of_a_position_get_gradients(name):
    model = model_of(name)
    model(torch.tensor([[1, 2, 3]])).square().sum().backward()
    own = list(model.position.parameters())
    assert len(own) == (name == "learned")
    assert all(p.grad.abs().max() > 0 for p in own)
