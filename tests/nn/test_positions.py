"""Positions: what each kind promises, from its paper."""

import math

import pytest
import torch

from windtunnel.errors import DataError
from windtunnel.nn.positions import POSITIONS, Learned, RopeScaling, alibi_slopes, rotate, rotation, sinusoidal

D_HEAD = 16


def exact_rotation(position, base=10000.0):
    """RoFormer equation 15 in float64."""
    angles = torch.tensor([position * base ** (-2 * i / D_HEAD) for i in range(D_HEAD // 2)], dtype=torch.float64)
    return angles.cos()[None], angles.sin()[None]


def vectors(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, 1, D_HEAD, dtype=torch.float64, generator=generator)


def test_rotation_is_the_papers_formula():
    cos, sin = rotation(torch.arange(200), D_HEAD)
    exact = [exact_rotation(position) for position in range(200)]
    assert torch.allclose(cos.double(), torch.cat([c for c, _ in exact]), atol=2e-5)
    assert torch.allclose(sin.double(), torch.cat([s for _, s in exact]), atol=2e-5)


def test_linear_scaling_is_the_rotation_of_a_nearer_position():
    slowed = rotation(torch.arange(0, 200, 4), D_HEAD, scaling=RopeScaling(kind="linear", factor=4.0))
    for found, expected in zip(slowed, rotation(torch.arange(50), D_HEAD), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_llama3_scaling_slows_the_slow_rates_only():
    """Turns within the original context: above 4 as they were, below 1 divided by the factor, between in between."""
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context_length=100)
    turns = torch.tensor([50.0, 4.0, 2.5, 1.0, 0.1])
    divisors = scaling.divisors(turns * 2 * math.pi / 100).tolist()
    assert divisors == pytest.approx([1, 1, 1 / (0.5 / 8 + 0.5), 8, 8], rel=1e-5)


@pytest.mark.parametrize("shift", [1, 17, 400])
def test_rope_scores_depend_on_the_distance_only(shift):
    q, k = vectors(1), vectors(2)

    def score(m, n):
        return (rotate(q, exact_rotation(m)) * rotate(k, exact_rotation(n))).sum().item()

    for m, n in [(0, 0), (5, 2), (9, 9), (30, 1)]:
        assert abs(score(m, n) - score(m + shift, n + shift)) < 1e-12
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


def test_rope_keeps_the_norm_and_leaves_position_zero_alone():
    q = vectors(1)
    for position in (1, 10, 1000):
        assert abs(rotate(q, exact_rotation(position)).norm() - q.norm()).item() < 1e-12
    x = torch.randn(2, 3, 4, D_HEAD)
    turned = rotate(x, rotation(torch.arange(4), D_HEAD))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.equal(turned[:, :, 1], x[:, :, 1])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_alibi_slopes_are_the_papers():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert torch.allclose(alibi_slopes(16), torch.tensor([2 ** (-0.5 * i) for i in range(1, 17)]))
    # The paper's rule for 12 heads: those of 8, then every other one of 16.
    expected = [2.0**-i for i in range(1, 9)] + [2 ** (-0.5 * i) for i in (1, 3, 5, 7)]
    assert torch.allclose(alibi_slopes(12), torch.tensor(expected))
    assert alibi_slopes(1).tolist() == [2.0**-8]


def test_sinusoidal_products_depend_on_the_distance_only():
    table = sinusoidal(torch.arange(300), 64)
    products = table @ table.T
    for distance in (0, 1, 7, 50):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[0].expand_as(along), atol=2e-3)
        assert torch.allclose(
            along[0], sum(torch.cos(distance * torch.tensor(10000.0 ** (-2 * i / 64))) for i in range(32))
        )
    assert (products[0, 0] - products[0, 7]).abs() > 1


def test_sinusoidal_table_is_the_papers():
    table = sinusoidal(torch.tensor([3]), 8)[0].tolist()
    angles = [3 / 10000 ** (2 * i / 8) for i in range(4)]
    assert table == pytest.approx([f(a) for a in angles for f in (math.sin, math.cos)], abs=1e-6)


def test_sinusoidal_takes_an_odd_width():
    assert sinusoidal(torch.arange(5), 7).shape == (5, 7)


def test_learned_positions_end_at_the_context_and_say_what_to_do():
    position = Learned(4, 8, 2, 4, 10000.0)
    assert position.embed(torch.arange(4)).shape == (4, 8)
    with pytest.raises(DataError, match=r"5 tokens .* context of 4.*model\.position=rope"):
        position.embed(torch.arange(5))


@pytest.mark.parametrize("name", POSITIONS)
def test_each_kind_acts_in_at_most_one_place(name):
    position = POSITIONS[name](16, 32, 4, 8, 10000.0)
    acts = [position.embed(torch.arange(5)), position.rotation(torch.arange(5)), position.slopes()]
    assert sum(part is not None for part in acts) == (name != "none")
