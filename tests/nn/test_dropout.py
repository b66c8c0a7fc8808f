"""Dropout by hashing positions: as often as asked, independently, and the same draws compiled or not."""

from __future__ import annotations

import pytest
import torch

from windtunnel.nn.dropout import Dropout, dropout, hashes
from windtunnel.training import machine

N = 2**20


def dropped(p: float) -> torch.Tensor:
    """Which of N ones are dropped, standardised: mean 0 and variance 1 if p is true."""
    return ((dropout(torch.ones(N), p) == 0).double() - p) / (p * (1 - p)) ** 0.5


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_elements_are_dropped_as_often_as_asked_and_independently(p: float) -> None:
    """The fraction, neighbours at several distances and the same place in two calls, each as a z value."""
    torch.manual_seed(0)
    found, before = [], dropped(p)
    for _ in range(3):
        now = dropped(p)
        found += [now.sum() / N**0.5, (now * before).sum() / N**0.5]
        found += [(now[lag:] * now[:-lag]).sum() / (N - lag) ** 0.5 for lag in (1, 2, 3, 64, 256, 384, 65536)]
        before = now
    assert max(abs(z) for z in found) < 4.5
    assert torch.tensor(found).std() > 0.5  # not suspiciously even either


def test_every_bit_of_the_hashes_is_set_half_of_the_time() -> None:
    torch.manual_seed(0)
    values = hashes(torch.Size([N]))
    ones = torch.stack([(values >> bit & 1).double().mean() for bit in range(32)])
    assert (ones - 0.5).abs().max() < 4.5 * 0.5 / N**0.5
    assert len(torch.unique(values)) == N  # one set never repeats itself


def test_what_stays_is_scaled_and_the_gradient_goes_where_the_value_went() -> None:
    x = torch.randn(7, 33, requires_grad=True)
    y = dropout(x, 0.5)
    y.sum().backward()
    assert x.grad is not None
    assert set(x.grad.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(y, x * x.grad)


def test_it_acts_in_training_only_and_draws_anew_at_every_call() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), x)
    state = torch.get_rng_state()
    dropout(x, 0.0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not machine.has_compiler(), reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_drops_the_same(dtype: torch.dtype) -> None:
    """Sizes that fill no vector, too: there C++ may treat the overflow of integers otherwise."""
    compiled = torch.compile(dropout, options={"fallback_random": True}, dynamic=False)
    for shape in ((7,), (3, 5, 31), (4, 1024)):
        made = []
        for way in (dropout, compiled):
            x = torch.linspace(1, 2, torch.Size(shape).numel(), dtype=dtype).view(shape).requires_grad_()
            torch.manual_seed(3)
            y = way(x, 0.2)
            y.sum().backward()
            made.append((y.detach(), x.grad))
        assert torch.equal(made[0][0], made[1][0])
        assert torch.equal(made[0][1], made[1][1])
