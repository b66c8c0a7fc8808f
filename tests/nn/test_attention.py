"""`attend` against `attend_reference`, and what the mask promises."""

from functools import partial

import pytest
import torch

from windtunnel.nn.attention import (
    Mask,
    attend,
    attend_in_blocks,
    attend_plain,
    attend_reference,
    attention_weights,
    distances,
    hidden_keys,
    plain_is_faster,
    score_bias,
    visible,
)
from windtunnel.nn.positions import alibi_slopes
from windtunnel.training import machine

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
    "not causal": {"causal": False, "kv_heads": 2},
    "another sequence": {"causal": False, "queries": 5},
}

PADDED = {
    "padded": {},
    "padded, window": {"window": 3},
    "padded, alibi": {"slopes": True},
    "padded, alibi and window": {"slopes": True, "window": 4},
    "padded, grouped": {"kv_heads": 2},
    "padded, grouped, alibi and window": {"kv_heads": 2, "slopes": True, "window": 5},
    "padded, six queries after a cache": {"queries": 6},
    "padded, grouped, window, after a cache": {"queries": 6, "window": 2, "kv_heads": 1},
    "padded, not causal": {"causal": False},
    "padded, another sequence": {"causal": False, "queries": 5, "kv_heads": 2},
}
PADDED = {name: {**case, "kept": True} for name, case in PADDED.items()}
CASES |= PADDED


def inputs(case, dtype=torch.float32, n_keys=9):
    """q, k, v of 4 heads and the mask of a case."""
    generator = torch.Generator().manual_seed(1)
    queries, kv_heads = case.get("queries", n_keys), case.get("kv_heads", 4)
    shapes = [(2, 4, queries, 8), (2, kv_heads, n_keys, 8), (2, kv_heads, n_keys, 8)]
    qkv = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    slopes_H = alibi_slopes(4) if case.get("slopes") else None
    kept_BS = padding(n_keys) if case.get("kept") else None
    return qkv, Mask(case.get("causal", True), case.get("window"), slopes_H, kept_BS)


def padding(n_keys):
    """Two keys of padding before one row, three after another."""
    kept_BS = torch.ones(2, n_keys, dtype=torch.bool)
    kept_BS[0, :2] = kept_BS[1, -3:] = False
    return kept_BS


def gradients(output, qkv):
    """The gradients of a fixed weighted sum of the output."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((output.float() * weights).sum(), qkv)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attend_equals_the_reference_in_float32(case):
    qkv, mask = inputs(case)
    fast, slow = attend(*qkv, mask), attend_reference(*qkv, mask)
    weights = attention_weights(*qkv[:2], mask)
    assert torch.allclose(fast, slow, atol=2e-6)
    blind = hidden_keys(distances(qkv[0].shape[2], 9), mask).all(-1).float()
    assert torch.allclose(weights.sum(-1), (1 - blind).expand(weights.shape[:-1]))
    for ours, theirs in zip(gradients(fast, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_plain_way_equals_the_reference_in_float64(case):
    qkv, mask = inputs(case, torch.float64)
    plain, slow = attend_plain(*qkv, mask), attend_reference(*qkv, mask)
    assert torch.allclose(plain, slow, atol=1e-12)
    for ours, theirs in zip(gradients(plain, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attend_in_bfloat16_is_within_its_rounding_of_float32(case):
    """Both ways: with gradients (plain on a CPU) and without (fused); bfloat16 keeps 8 bits, 2^-8 = 0.004."""
    qkv, mask = inputs(case, torch.bfloat16)
    exact_inputs = [part.detach().float().requires_grad_() for part in qkv]
    exact = attend_reference(*exact_inputs, mask)
    trained = attend(*qkv, mask)
    with torch.no_grad():
        read = attend(*qkv, mask)
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
    "padded": {"window": 3, "kept": True},
    "padded, grouped and alibi": {"window": 5, "kv_heads": 1, "slopes": True, "kept": True},
    "padded, one block": {"window": 20, "kept": True},
}


@pytest.mark.parametrize("n_keys", [9, 12, 13])
@pytest.mark.parametrize("smallest", [1, 4])
@pytest.mark.parametrize("case", BLOCKED.values(), ids=BLOCKED)
def test_a_window_in_blocks_equals_the_reference_in_float64(case, smallest, n_keys):
    """Also where the last block is not full, and where blocks are longer than the window."""
    qkv, mask = inputs(case, torch.float64, n_keys)
    blocks, slow = attend_in_blocks(*qkv, mask, smallest=smallest), attend_reference(*qkv, mask)
    assert torch.allclose(blocks, slow, atol=1e-12)
    for ours, theirs in zip(gradients(blocks, qkv), gradients(slow, qkv), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)


WAYS = {
    "attend": attend,
    "plain": attend_plain,
    "blocks": partial(attend_in_blocks, smallest=1),
    "reference": attend_reference,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", PADDED.values(), ids=PADDED)
def test_a_padded_row_is_what_it_is_alone(case, way):
    """Its own queries on its own keys: values and gradients; what is padding has no gradient."""
    if way == "blocks" and not (case.get("window") and "queries" not in case):
        pytest.skip("blocks are for windows of as many queries as keys")
    qkv, mask = inputs(case, torch.float64)
    n_queries, together = qkv[0].shape[2], []
    mixed = WAYS[way](*qkv, mask)
    found = torch.zeros((), dtype=torch.float64)
    alone = torch.zeros((), dtype=torch.float64)
    weights = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for row, (low, high) in enumerate([(2, 9), (0, 6)]):
        queries = slice(max(0, low - 9 + n_queries), high - 9 + n_queries)
        if not mask.causal and n_queries < 9:  # of another sequence
            queries = slice(0, n_queries)
        keys = [x[row : row + 1, :, low:high] for x in qkv[1:]]
        single = attend_reference(qkv[0][row : row + 1, :, queries], *keys, mask._replace(kept_BS=None))[0]
        together.append((mixed[row, :, queries], single))
        found = found + (mixed[row, :, queries] * weights[row, :, queries]).sum()
        alone = alone + (single * weights[row, :, queries]).sum()
    for ours, theirs in together:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(found, qkv), torch.autograd.grad(alone, qkv), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", [{"window": 3}, {"window": 3, "slopes": True, "kv_heads": 2}])
def test_a_query_that_sees_no_key_gets_zeros_and_gives_finite_gradients(case, way, dropout, dtype):
    """A whole row of padding, and the padding before a row, in training and in reading."""
    qkv, mask = inputs(case, dtype)
    kept_BS = torch.ones(2, 9, dtype=torch.bool)
    kept_BS[0], kept_BS[1, :4] = False, False
    mixed = WAYS[way](*qkv, mask._replace(kept_BS=kept_BS), dropout)
    assert mixed[0].abs().max() == 0
    assert mixed[1, :, :4].abs().max() == 0
    if not dropout:
        assert mixed[1, :, 4:].abs().amin(dim=(0, 2)).min() > 0
    for gradient in gradients(mixed, qkv):
        assert gradient.isfinite().all()
        assert gradient[0].abs().max() == 0
    with torch.no_grad():
        assert WAYS[way](*qkv, mask._replace(kept_BS=kept_BS))[0].abs().max() == 0


def test_padding_that_hides_nothing_changes_nothing():
    for case in CASES.values():
        qkv, mask = inputs({**case, "kept": False})
        everything = mask._replace(kept_BS=torch.ones(2, 9, dtype=torch.bool))
        for way in (attend, attend_plain, attend_reference):
            torch.testing.assert_close(way(*qkv, everything), way(*qkv, mask), rtol=0, atol=2e-6)


def test_compiled_with_padding_is_eager():
    if not machine.has_compiler():
        pytest.skip("there is no C++ compiler")
    qkv, mask = inputs(PADDED["padded, grouped, alibi and window"])
    compiled = torch.compile(attend, fullgraph=True)(*qkv, mask)
    torch.testing.assert_close(compiled, attend(*qkv, mask), rtol=0, atol=2e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("n_keys", "window", "scores"), [(512, 8, 32), (600, 150, 150), (511, 8, 511), (512, 129, 512)]
)
def test_a_short_window_in_a_long_text_never_makes_all_scores(monkeypatch, n_keys, window, scores):
    """From 512 tokens that hold four windows on, the bias is that of a block and of the one before it."""
    made = []
    monkeypatch.setattr("windtunnel.nn.attention.score_bias", lambda *a: made.append(a[:2]) or score_bias(*a))
    qkv, mask = inputs({"window": window}, n_keys=n_keys)
    assert torch.allclose(attend(*qkv, mask), attend_reference(*qkv, mask), atol=2e-6)
    assert max(n_queries for n_queries, _ in made) == scores


def test_dropout_in_blocks_drops_in_every_block():
    q, k, v = (torch.zeros(1, 4, 40, 8), torch.zeros(1, 4, 40, 8), torch.ones(1, 4, 40, 8))
    torch.manual_seed(0)
    mixed = attend_in_blocks(q, k, v, Mask(window=4), 0.25, smallest=4)[0, :, :, 0]
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
        qkv, mask = inputs({"queries": queries, "window": 4})
        assert torch.allclose(attend(*qkv, mask), attend_reference(*qkv, mask), atol=2e-6)
    assert [n_keys for n_keys, _ in read] == [4, 5]
    assert read[0][1] is None  # one query sees all that is left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_causal_mask_every_query_sees_every_key(dtype):
    qkv, _ = inputs({"kv_heads": 2}, dtype)
    mask, single = Mask(causal=False), [part.float() for part in qkv]
    exact, weights = attend_reference(*single, mask), attention_weights(*single[:2], mask)
    assert weights.min() > 0
    assert (attend(*qkv, mask).float() - exact).abs().max() < (2e-6 if dtype == torch.float32 else 0.03)


def test_the_plain_way_is_taken_for_training_in_bfloat16_up_to_256_keys_on_a_cpu():
    trained = torch.zeros(1, 1, 1, 8, dtype=torch.bfloat16, requires_grad=True)
    assert plain_is_faster(trained, 256)
    assert not plain_is_faster(trained, 257)
    assert not plain_is_faster(trained.detach(), 256)
    assert [n for n in (31, 32, 127, 128) if plain_is_faster(trained.float(), n)] == [32, 127]
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
    assert torch.equal(attend(*qkv, Mask(window=window)), attend(*qkv))
    bias = [score_bias(9, 9, Mask(window=w), qkv[0]) for w in (window, None)]
    assert torch.equal(*bias)
