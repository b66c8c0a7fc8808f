"""Shapes are torch's own, unknown sizes are the only ones that fit, and what fails says which sizes differ."""

import pytest
import torch

from windtunnel.errors import ConfigError
from windtunnel.inspect.explain_products import explain_product
from windtunnel.inspect.explain_shapes import explain_chain

CHAINS = {
    "(2,1,4,1,3) -> squeeze": (2, 4, 3),
    "(3,4) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1),
    "(2,3,1,4) -> transpose(1,2)": (2, 1, 3, 4),
    "(3,1,4,1) -> squeeze(1) -> unsqueeze(0) -> unsqueeze(-1)": (1, 3, 4, 1, 1),
    "(2,3,4) -> permute(2,0,1) -> reshape(-1,3)": (8, 3),
    "(2,3,4) -> .view(6,-1) -> flatten": (24,),
    "(2,3,4) -> flatten(end_dim=1) -> @ (4,5) -> + (5)": (6, 5),
    "(3,1) -> expand(2,3,7) -> mean(dim=(0,1)) -> sum()": (),
    "(3,4) -> sum(1, keepdim=True) -> * (3,4)": (3, 4),
    "(5,1,3,4) -> matmul(2,4,6) -> softmax(-1)": (5, 2, 3, 6),
    "(0,3) -> squeeze(0)": (0, 3),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_ends_in_the_expected_shape(chain):
    steps = explain_chain(chain)
    assert steps[-1].shape == CHAINS[chain]
    assert len(steps) == chain.count("->") + 1
    assert all(step.says for step in steps)


@pytest.mark.parametrize("call", ["squeeze(1)", "transpose(0,2)", "reshape(6,-1)", "flatten(1)", "mean(0)", "view(-1)"])
def test_shape_and_view_are_those_of_a_real_tensor(call):
    real = torch.randn(3, 1, 4)
    name, _, numbers = call.rstrip(")").partition("(")
    expected = getattr(real, name)(*map(int, numbers.split(",")))
    step = explain_chain(f"(3,1,4) -> {call}")[-1]
    assert step.shape == tuple(expected.shape)
    assert step.is_view == (expected.untyped_storage()._cdata == real.untyped_storage()._cdata)


SAID = {
    "(3,4) -> squeeze(0)": "size 3, not 1: nothing changes",
    "(2,3) -> reshape(-1,2)": "6 / 2 = 3",
    "(2,3,4) -> flatten(1)": "3 x 4 = 12",
    "(2,3) -> transpose(0,1)": "sizes 2 and 3, change places",
    "(4,6) -> + (6)": "repeated to (4,6)",
    "(2,3,4) -> @ (4)": "each row of 4 meets the vector of 4: these sizes are equal and go",
    "(2,1,3,4) -> @ (5,4,6)": "the batches (2,1) and (5) broadcast to (2,5)",
    "(2) -> reshape(1,True,-1)": "-1 becomes 2 / 1 = 2",
    "(2,0) -> softmax(0)": "there are no numbers",
}


@pytest.mark.parametrize("chain", SAID)
def test_what_changed_is_said(chain):
    assert SAID[chain] in explain_chain(chain)[-1].says


WRONG_CHAINS = {
    "(3,4) -> squeeze(2)": "no dimension 2; it can be 0 to 1",
    "(3,4) -> unsqueeze(3)": "no dimension 3; it can be 0 to 2",
    "(3,4) -> permute(0,0)": "named twice",
    "(3,4) -> permute(0)": "each of the 2 dimensions once, given 1",
    "(3,4) -> reshape(5,-1)": "12 is no multiple of 5",
    "(3,4) -> reshape(-1,-1)": "only one -1",
    "(3,4) -> view(5,2)": "5 x 2 = 10 elements, and there are 12",
    "(3,4) -> transpose(0,1) -> view(12)": "reshape copies",
    "(3,4) -> expand(3,5)": "dimension 1 has size 4",
    "(3,4) -> @ (5,6)": "(3,4) is 4 and the rows of (5,6) are 5",
    "(2,3,4) -> @ (3,4,5)": "batch dimension -1 of (2) is 2 and of (3) is 3",
    "(4,6) -> @ (6,10) -> + (10) -> @ (10,4) -> + (10)": "step 4, + (10), on (4,4): dimension -1 of (4,4) is 4",  # E18
    "() -> @ (3,4)": "single number",
    "(3,4) -> mean(0": "expected an operation",
    "(3,4) -> ": "expected an operation",
    "(3,4) -> melt(1)": "no operation 'melt'",
    "(3,4) -> squeeze(__import__('os'))": "expected an operation",
    "(3,4) -> sum('a')": "step 1",
    "(3,-4) -> squeeze": "expected a shape",
    "(0,3) -> reshape(0,-1)": "multiply to 0, so any size in place of -1 would do",
    "(2,3) -> reshape(2.0,3)": "reshape takes whole numbers, given 2.0",
    "(3,4) -> softmax(2)": "no dimension 2",
    "(3,4) -> unsqueeze(9,1)": "takes 1 positional argument but 2 were given",
    "(3) -> reshape({[]:1})": "expected an operation",
    "3,4": "expected a shape",
    "(9223372036854775807,9) -> sum": "expected a shape",
    "(999999999999999999,999) -> sum": "more elements than torch can count",
    f"(3) -> {'(' * 5000}": "expected an operation",
}


@pytest.mark.parametrize("chain", WRONG_CHAINS)
def test_a_chain_that_fails_says_why(chain):
    with pytest.raises(ConfigError) as raised:
        explain_chain(chain)
    assert WRONG_CHAINS[chain] in str(raised.value)
    assert "\n" not in str(raised.value)


SOLVED = {
    "bmm (64,128,256) (64,256,512) (64,?,9)": ([512], (64, 128, 9), "columns of tensor 2"),
    "bmm (64,128,512) (64,?,9) = (64,128,9)": ([512], (64, 128, 9), "columns of tensor 1"),
    "bmm (64,?,256) (64,?,9) = (64,128,9)": ([128, 256], (64, 128, 9), "the result's"),
    "bmm (64,128,?) (64,256,9)": ([256], (64, 128, 9), "rows of tensor 2"),
    "bmm (?,2,3) (7,3,4)": ([7], (7, 2, 4), "batch"),
    "matmul (2,1,3,4) (5,?,6)": ([4], (2, 5, 3, 6), "columns of tensor 1"),
    "matmul (?) (4,5)": ([4], (5,), "rows of tensor 2"),
    "matmul (2,3) (3,4) = (?,4)": ([2], (2, 4), "the product has 2"),
    "embedding (10,5) (5)": ([], (5, 5), ""),
    "embedding (10,?) (2,3) = (2,3,5)": ([5], (2, 3, 5), "width"),
    "linear (8,6) (10,?) (?)": ([6, 10], (8, 10), "`in`, 6"),
    "conv1d (2,3,9) (8,?,3)": ([3], (2, 8, 7), "`in`, 3"),
    "conv1d (2,3,9) (8,3,?) = (2,8,5)": ([5], (2, 8, 5), "kernel"),
    "conv1d (2,3,?) (8,3,3) = (2,8,7)": ([9], (2, 8, 7), "9 - 3 + 1 = 7"),
    "conv1d (2,3,1) (8,3,?)": ([1], (2, 8, 1), "1 - 1 + 1, which is 1 or more"),
    "matmul (2,3) (?)": ([3], (2,), "the last dimension of (2,3) is 3 and the numbers of (4) are 4"),
}


@pytest.mark.parametrize("text", [text for text in SOLVED if "linear" not in text])
def test_unknown_sizes_are_solved_with_a_reason(text):
    sizes, result, reason = SOLVED[text]
    found = explain_product(text)
    assert [unknown.size for unknown in found.solved] == sizes
    assert found.result == result
    assert not sizes or reason in found.solved[0].reason


def test_a_bias_of_one_broadcasts_so_it_stays_open():
    assert explain_product("linear (8,6) (10,?)").solved[0].size == 6
    with pytest.raises(ConfigError, match="not determined"):
        explain_product("linear (8,6) (10,?) (?)")


def test_a_chain_shows_what_lies_between():
    shapes = [step.shape for step in explain_product("bmm (64,128,256) (64,256,512) (64,?,9)").steps]
    assert shapes == [(64, 128, 256), (64, 128, 512), (64, 128, 9)]


WRONG_PRODUCTS = {
    "bmm (64,128,?) (64,?,9)": "2 unknown sizes are not determined: 64 and 64, as well as 128 and 128 would",
    "bmm (64,?,5) (64,5,9)": "the ? is not determined",
    "matmul (2,?,3,4) (5,4,6)": "1, as well as 5 would fit",
    "bmm (64,128,5) (32,?,9)": "is 64 and of (32,",
    "bmm (64,128,5) (64,?,9) = (64,128,8)": "the product has shape (64,128,9), not (64,128,8)",
    "bmm (64,128,5) (64,6,9)": "(64,128,5) is 5 and the rows of (64,6,9) are 6",
    "bmm (2,3) (3,4)": "three dimensions",
    "bmm (?,?,?) (?,2,2)": "4 unknown sizes; at most 3",
    "bmm (2,3,4)": "given 1 shape",
    "linear (8,6) (10,7)": "`in` is 6 in one tensor and 7 in another",
    "conv1d (2,3,9) (8,3,30)": "ernel size",
    "conv1d (2,3,?) (8,3,3)": "any size from 3 would fit",
    "conv1d (2,3,9) (8,3,3) (1)": "`out` is 8 in one tensor and 1 in another",
    "conv1d (2,3,9) (8,3,0)": "`out` and `kernel` are 1 or more",
    "conv1d (2,3,9) (8,3,3) (1,8)": "the bias is (1,8); expected one number for each `out`: (8)",
    "embedding (0,5) (3)": "has no rows",
    "linear (2,4,6) (1,6) (5)": "`out` is 1 in one tensor and 5 in another",
    "linear (3,6) (10,6) (2,1)": "the bias is (2,1); expected one number for each `out`: (10)",
    "bmm (?,?,?) " + " ".join(f"({n},{n + 1},{n + 2})" for n in range(2, 62, 3)): "too many to try",
    "bmm (1,2,3) banana": "expected a shape",
    "brew (1,2) (3,4)": "expected a chain",
    "": "expected a chain",
}


@pytest.mark.parametrize("text", WRONG_PRODUCTS)
def test_a_product_that_fails_says_why(text):
    with pytest.raises(ConfigError) as raised:
        explain_product(text)
    assert WRONG_PRODUCTS[text] in str(raised.value)
    assert "\n" not in str(raised.value)
