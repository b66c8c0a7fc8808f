"""The products of training on a CPU against `torch.nn.functional.linear`; a table looked up and multiplied with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.nn import linear as linear_module
from windtunnel.nn.embedding import lookup
from windtunnel.nn.linear import _Linear, leaves_a_core_idle, linear, product, two_cores_with_tiles
from windtunnel.training import machine
from windtunnel.training.compiling import compile_for_training

SHAPES = [(512, 24, 512), (24, 4100, 7), (1024, 600, 24)]
"""Tokens, outputs, inputs: product in parts backward; a gradient in pieces; product in parts forward."""


def with_gradients(function: object, *inputs: Tensor) -> list[Tensor]:
    """The result and the gradient of each input, for a gradient that differs from place to place."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.fixture(autouse=True)
def two_cores_and_small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "two_cores_with_tiles", lambda: True)
    monkeypatch.setattr(linear_module, "LARGE", 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_in_double_precision_the_parts_and_their_gradients_are_those_of_the_whole(
    shape: tuple[int, int, int], biased: bool
) -> None:
    n_tokens, n_outputs, n_inputs = shape
    assert leaves_a_core_idle(n_tokens, n_outputs) or leaves_a_core_idle(n_tokens, n_inputs) or n_outputs > 4096
    torch.manual_seed(0)
    inputs = [torch.randn(size, dtype=torch.float64) for size in ((n_tokens, n_inputs), (n_outputs, n_inputs))]
    inputs += [torch.randn(n_outputs, dtype=torch.float64)] if biased else []
    other_way = n_outputs > 4096 and not biased
    found = with_gradients(lambda x, w, b=None: _Linear.apply(x, w, b, other_way), *inputs)
    torch.testing.assert_close(found, with_gradients(F.linear, *inputs))
    assert len(found) == 1 + len(inputs)


def test_in_bfloat16_it_rounds_as_torch_does_and_leaves_weights_in_float32() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(8, 128, 640), torch.randn(512, 640), torch.randn(512)]
    with machine.autocast("bf16"):
        found, plain = with_gradients(linear, *inputs), with_gradients(F.linear, *inputs)
    assert found[0].dtype == torch.bfloat16
    assert found[2].dtype == torch.float32
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=2**-6, atol=2**-8 * theirs.abs().max().item())


def test_logits_of_a_large_vocabulary_lie_token_after_token_while_training() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 16), torch.randn(5000, 16)]
    with machine.autocast("bf16"):
        found, plain = with_gradients(linear, *inputs), with_gradients(F.linear, *inputs)
        strides = [linear(inputs[0], weight).stride() for weight in (inputs[1], inputs[1][:4096])]
        with torch.no_grad():
            strides.append(linear(*inputs).stride())
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=2**-6, atol=2**-8 * theirs.abs().max().item())
    assert strides == [(3, 1, 6), (3 * 4096, 4096, 1), (3 * 5000, 5000, 1)]


def test_in_float32_or_with_small_matrices_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(4, 5, requires_grad=True), torch.randn(3, 5)

    def own(precision: str) -> bool:
        with machine.autocast(precision):
            return type(linear(x, weight).grad_fn) is type(F.linear(x, weight).grad_fn)

    assert own("fp32")
    assert not own("bf16")
    monkeypatch.setattr(linear_module, "LARGE", 16)
    assert own("bf16")


def test_no_copy_of_the_weights_waits_for_the_backward_pass() -> None:
    """What is kept of the weights is the weights themselves."""
    weight = torch.randn(64, 32, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t), machine.autocast("bf16"):
        linear(torch.randn(2, 8, 32), weight)
    assert [t.data_ptr() == weight.data_ptr() for t in kept if t.shape == (64, 32)] == [True]


def test_what_is_frozen_gets_no_gradient() -> None:
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(3, 5)
    with machine.autocast("bf16"):
        linear(x, weight).sum().backward()
        frozen = linear(x.detach(), weight.requires_grad_())
    assert x.grad is not None
    assert weight.grad is None
    frozen.sum().backward()
    assert weight.grad is not None


def test_only_nearly_square_products_on_two_cores_with_tiles_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leaves_a_core_idle(1024, 768)
    assert not any(leaves_a_core_idle(*shape) for shape in ((1024, 3072), (1024, 384), (4096, 3072), (256, 256)))
    monkeypatch.setattr(linear_module, "two_cores_with_tiles", lambda: False)
    assert not leaves_a_core_idle(1024, 768)


def test_a_tied_table_has_the_gradient_of_both_uses_and_one_of_higher_order() -> None:
    torch.manual_seed(0)
    table, ids = torch.randn(7, 4, dtype=torch.float64), torch.tensor([[1, 2, 2], [6, 0, 1]])

    def ours(table_VD: Tensor) -> Tensor:
        rows, again = lookup(ids, table_VD)
        return torch.tanh(rows) @ again.T

    def plain(table_VD: Tensor) -> Tensor:
        return torch.tanh(F.embedding(ids, table_VD)) @ table_VD.T

    torch.testing.assert_close(with_gradients(ours, table), with_gradients(plain, table))
    leaf = table.clone().requires_grad_()
    curvature = [
        torch.autograd.grad(torch.autograd.grad(f(leaf).square().sum(), leaf, create_graph=True)[0].sum(), leaf)[0]
        for f in (ours, plain)
    ]
    torch.testing.assert_close(curvature[0], curvature[1])


def test_a_table_without_its_head_has_the_gradient_of_its_rows() -> None:
    table = torch.randn(5, 3, requires_grad=True)
    lookup(torch.tensor([3, 3, 0]), table)[0].sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [2.0] * 3, [0.0] * 3]


def test_the_compiler_goes_through_the_choice_of_parts_once_something_is_compiled_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_module, "two_cores_with_tiles", two_cores_with_tiles)
    compile_for_training(linear)
    x = torch.randn(512, 8)
    compiled = torch.compile(product, fullgraph=True, backend="eager")  # fullgraph: an error where it would stop
    assert torch.equal(compiled(x, x.T), product(x, x.T))
