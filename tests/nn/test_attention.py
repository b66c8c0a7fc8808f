"""`attend` against `attend_reference`, and what the mask promises."""

import pytest
import torch

from windtunnel.nn.attention import (
    attend,
    attend_in_blocks,
    attend_plain,
    attend_reference,
    distances,
    plain_is_faster,
    score_bias,
    visible,
)
from windtunnel.nn.positions import alibi_slopes

CASES = {
    "full": {},
    "window": {"window": 3},
    "window of one": {"window": 1},
    "alibi": {"slopes": True},
    "alibi and window": {"slopes": True, "window": 4},
    "grouped": {"kv_heads": 2},
    "one key head": {"kv_heads": 1},
    "grouped, alibi and window": {"kv_heads": 2, "slopes": True, "window": 5},
    "three queries after a cache": {"queries": 3},
    "one query after a cache": {"queries": 1, "window": 4},
    "grouped after a cache": {"queries": 2, "kv_heads": 2, "slopes": True},
}


def inputs(case, dtype=torch.float32, n_keys=9):
    """q, k, v of 4 heads and the named arguments of a case."""
    generator = torch.Generator().manual_seed(1)
    queries, kv_heads = case.get("queries", n_keys), case.get("kv_heads", 4)
    shapes = [(2, 4, queries, 8), (2, kv_heads, n_keys, 8), (2, kv_heads, n_keys, 8)]
    qkv = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return qkv, {"window": case.get("window"), "slopes_H": alibi_slopes(4) if case.get("slopes") else None}


def gradients(output, qkv):
    """The gradients of a fixed weighted sum of the output."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((output.float() * weights).sum(), qkv)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attend_equals_the_reference_in_float32(case):
    qkv, how = inputs(case)
    fast, (slow, weights) = attend(*qkv, **how), attend_reference(*qkv, **how)
    assert torch.allclose(fast, slow, atol=2e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]))
    for ours, theirs in zip(gradients(fast, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_plain_way_equals_the_reference_in_float64(case):
    qkv, how = inputs(case, torch.float64)
    bias = score_bias(qkv[0].shape[2], 9, how["window"], how["slopes_H"], qkv[0])
    plain, (slow, _) = attend_plain(*qkv, bias), attend_reference(*qkv, **how)
    assert torch.allclose(plain, slow, atol=1e-12)
    for ours, theirs in zip(gradients(plain, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attend_in_bfloat16_is_within_its_rounding_of_float32(case):
    """Both ways: with gradients (plain on a CPU) and without (fused); bfloat16 keeps 8 bits, 2^-8 = 0.004."""
    qkv, how = inputs(case, torch.bfloat16)
    exact_inputs = [part.detach().float().requires_grad_() for part in qkv]
    exact, _ = attend_reference(*exact_inputs, **how)
    trained = attend(*qkv, **how)
    with torch.no_grad():
        read = attend(*qkv, **how)
    assert (trained.float() - exact).abs().max() < 0.03
    assert (read.float() - exact).abs().max() < 0.03
    for ours, theirs in zip(gradients(trained, qkv), gradients(exact, exact_inputs), strict=True):
        assert (ours.float() - theirs).abs().max() <= 0.03 * theirs.abs().max()


BLOCKED = {
    "several blocks": {"window": 3},
    "a window of one": {"window": 1},
    "alibi": {"window": 4, "slopes": True},
    "grouped": {"window": 3, "kv_heads": 2},
    "grouped and alibi": {"window": 5, "kv_heads": 1, "slopes": True},
    "one block": {"window": 20},
}


@pytest.mark.parametrize("n_keys", [9, 12, 13])
@pytest.mark.parametrize("smallest", [1, 4])
@pytest.mark.parametrize("case", BLOCKED.values(), ids=BLOCKED)
def test_a_window_in_blocks_equals_the_reference_in_float64(case, smallest, n_keys):
    """Also where the last block is not full, and where blocks are longer than the window."""
    qkv, how = inputs(case, torch.float64, n_keys)
    blocks, (slow, _) = attend_in_blocks(*qkv, **how, smallest=smallest), attend_reference(*qkv, **how)
    assert torch.allclose(blocks, slow, atol=1e-12)
    for ours, theirs in zip(gradients(blocks, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize(
    ("n_keys", "window", "scores"), [(512, 8, 32), (600, 150, 150), (511, 8, 511), (512, 129, 512)]
)
def test_a_short_window_in_a_long_text_never_makes_all_scores(monkeypatch, n_keys, window, scores):
    """From 512 tokens that hold four windows on, the bias is that of a block and of the one before it."""
    made = []
    monkeypatch.setattr("windtunnel.nn.attention.score_bias", lambda *a: made.append(a[:2]) or score_bias(*a))
    qkv, how = inputs({"window": window}, n_keys=n_keys)
    assert torch.allclose(attend(*qkv, **how), attend_reference(*qkv, **how)[0], atol=2e-6)
    assert max(n_queries for n_queries, _ in made) == scores


def test_dropout_in_blocks_drops_in_every_block():
    q, k, v = (torch.zeros(1, 4, 40, 8), torch.zeros(1, 4, 40, 8), torch.ones(1, 4, 40, 8))
    torch.manual_seed(0)
    mixed = attend_in_blocks(q, k, v, window=4, dropout=0.25, smallest=4)[0, :, :, 0]
    assert abs(mixed.mean().item() - 1) < 0.1
    assert all(block.std() > 0.1 for block in mixed.split(4, dim=1))


def test_decoding_with_a_window_reads_no_more_keys_than_it_sees(monkeypatch):
    read = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention",
        lambda q, k, v, **how: read.append((k.shape[2], how["attn_mask"])) or fused(q, k, v, **how),
    )
    for queries in (1, 2):
        qkv, how = inputs({"queries": queries, "window": 4})
        assert torch.allclose(attend(*qkv, **how), attend_reference(*qkv, **how)[0], atol=2e-6)
    assert [n_keys for n_keys, _ in read] == [4, 5]
    assert read[0][1] is None  # one query sees all that is left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_causal_mask_every_query_sees_every_key(dtype):
    qkv, _ = inputs({"kv_heads": 2}, dtype)
    exact, weights = attend_reference(*(part.float() for part in qkv), causal=False)
    assert weights.min() > 0
    assert (attend(*qkv, causal=False).float() - exact).abs().max() < (2e-6 if dtype == torch.float32 else 0.03)


def test_the_plain_way_is_taken_for_training_in_bfloat16_up_to_256_keys_on_a_cpu():
    trained = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16, requires_grad=True)
    assert plain_is_faster(trained, 256)
    assert not plain_is_faster(trained, 257)
    assert not plain_is_faster(trained.detach(), 256)
    assert not plain_is_faster(trained.float(), 256)
    assert plain_is_faster(trained.float(), 1000, dropout=0.1)  # torch's kernel has none, and falls back to slower ways
    assert not plain_is_faster(torch.zeros(1, dtype=torch.bfloat16, device="meta", requires_grad=True), 256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_weights_and_scales_what_stays(dtype):
    """With values of one, an output is the sum of the weights that stayed: a mean of 1, and a spread."""
    q, k = (torch.zeros(8, 4, 64, 8, dtype=dtype, requires_grad=True) for _ in range(2))
    v = torch.ones(8, 4, 64, 8, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    mixed = attend(q, k, v, dropout=0.25).float()[..., 0]
    first_token = mixed[..., 0]  # sees itself only, so its one weight is 0 or 1 / (1 - 0.25)
    assert set(first_token.flatten().mul(3).round().tolist()) == {0.0, 4.0}
    assert abs(mixed.mean().item() - 1) < 0.02
    assert mixed.std() > 0.05
    torch.manual_seed(0)
    assert torch.equal(attend(q, k, v, dropout=0.25).float()[..., 0], mixed)


def test_a_window_counts_the_token_itself():
    seen = visible(distances(4, 4), 2)
    assert seen.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_queries_equal_full_attention_with_repeated_keys_and_values(kv_heads):
    (q, k, v), _ = inputs({"kv_heads": kv_heads})
    repeated = [part.repeat_interleave(4 // kv_heads, dim=1) for part in (k, v)]
    assert torch.equal(attend(q, k, v), attend(q, *repeated))


@pytest.mark.parametrize("window", [9, 10, 1000])
def test_a_window_of_all_tokens_or_more_is_full_attention(window):
    qkv, _ = inputs({})
    assert torch.equal(attend(*qkv, window=window), attend(*qkv))
    bias = [score_bias(9, 9, w, None, qkv[0]) for w in (window, None)]
    assert torch.equal(*bias)
