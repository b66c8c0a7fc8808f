"""Attention: `attend` is what training and decoding run, `attend_reference` is the same in the open.

All take queries (B, H, T, K), keys and values (B, G, S, K), and a `Mask`. Query head h reads key head h // (H // G)
(grouped queries, Ainslie et al. 2023, arXiv 2305.13245). Where order matters the T queries are the last T of the S
positions; without a causal mask, a window and slopes they may be of another sequence than the keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.nn.dropout import dropout as drop


class Mask(NamedTuple):
    """Which keys a query sees, and how much less of the distant ones."""

    causal: bool = True
    """False lets every query see every key; a window or slopes need True."""
    window: int | None = None
    """How many tokens, itself included, a query sees; None is all before it."""
    slopes_H: Tensor | None = None
    """ALiBi: the score of a key falls by slope x distance (Press et al. 2022, arXiv 2108.12409)."""
    kept_BS: Tensor | None = None
    """False where a key is padding, which no query sees; None is no padding. A query that sees no key gets zeros."""


CAUSAL = Mask()

Attend = Callable[[Tensor, Tensor, Tensor, Mask, float], Tensor]
"""(q (B, H, T, K), k and v (B, G, S, K), mask, dropout) -> mixed values (B, H, T, K).

Dropout is the probability of dropping an attention weight; the weights that stay are divided by 1 - dropout.
"""


def distances(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """How far back each key lies from each query, (T, S): 0 is the token itself, negative is the future."""
    queries = torch.arange(n_keys - n_queries, n_keys, device=device)
    return queries[:, None] - torch.arange(n_keys, device=device)[None, :]


def visible(distances_TS: Tensor, window: int | None, causal: bool = True) -> Tensor:
    """Which keys a query may see, (T, S) bool: no future and, with a window w, only the last w tokens.

    The window counts the token itself (Beltagy et al. 2020, arXiv 2004.05150, causal form). Without `causal` the
    future is seen, too.
    """
    seen = distances_TS >= 0 if causal else torch.ones_like(distances_TS, dtype=torch.bool)
    return seen if window is None else seen & (distances_TS < window)


PLAIN = {torch.bfloat16: range(257), torch.float32: range(32, 128)}
"""On a CPU, for how many keys training takes the plain way; see `plain_is_faster`."""

BLOCKS_FROM = 512
"""From how many tokens on a window is computed block by block, if at least four windows fit; see `attend_in_blocks`."""

SMALLEST_BLOCK = 32
"""Smaller blocks cost more in calls than they save in scores."""


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask = CAUSAL, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention by the fastest of three exact ways (Vaswani et al. 2017, equation 1)."""
    n_queries, n_keys, window = q_BHTK.shape[2], k_BGSK.shape[2], mask.window
    if window is not None and n_queries == n_keys >= max(BLOCKS_FROM, 4 * window):
        return attend_in_blocks(q_BHTK, k_BGSK, v_BGSK, mask, dropout)
    if window is not None and n_keys > n_queries + window - 1:  # decoding: what no query sees need not be read
        n_keys = n_queries + window - 1
        k_BGSK, v_BGSK = k_BGSK[:, :, -n_keys:], v_BGSK[:, :, -n_keys:]
        mask = mask if mask.kept_BS is None else mask._replace(kept_BS=mask.kept_BS[:, -n_keys:])
    if plain_is_faster(q_BHTK, n_keys, dropout):
        return attend_plain(q_BHTK, k_BGSK, v_BGSK, mask, dropout)
    # One query sees every key, and T queries on T keys are what the kernels call causal; the rest needs a bias.
    unbiased = mask.slopes_H is None and mask.kept_BS is None and (window is None or window >= n_keys)
    unbiased = unbiased and (not mask.causal or n_queries in (1, n_keys))
    mixed_BHTK = F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=None if unbiased else score_bias(n_queries, n_keys, mask, q_BHTK),
        dropout_p=dropout,
        is_causal=mask.causal and unbiased and n_queries > 1,
        enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
    )
    return zero_where_blind(mixed_BHTK, mask, n_keys)


def attend_in_blocks(
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    mask: Mask,
    dropout: float = 0.0,
    smallest: int = SMALLEST_BLOCK,
) -> Tensor:
    """`attend` with a window in time and memory that grow with T x window, not T x T.

    The tokens are cut into blocks as long as the window, or `smallest`; a block sees no further back than the block
    before it. So the blocks become rows of the batch, each with its own keys and those of the block before: queries
    that stand at the end of twice as many keys. The first block has none before it. benchmarks/attention.py measures
    from where on this wins.
    """
    assert mask.window is not None
    length, size = q_BHTK.shape[2], max(mask.window, smallest)
    n_blocks = -(-length // size)
    if n_blocks == 1:
        return attend(q_BHTK, k_BGTK, v_BGTK, mask, dropout)
    kept_BT, begin = mask.kept_BS, mask
    if kept_BT is not None:
        kept = torch.unflatten(F.pad(kept_BT, (0, n_blocks * size - length)), 1, (n_blocks, size))
        begin = mask._replace(kept_BS=kept_BT[:, :size])
        mask = mask._replace(kept_BS=torch.cat((kept[:, :-1], kept[:, 1:]), dim=2).flatten(0, 1))
    first = attend(q_BHTK[:, :, :size], k_BGTK[:, :, :size], v_BGTK[:, :, :size], begin, dropout)
    q, k, v = (  # (B, blocks, heads, size, K); what fills the last block up is seen by nobody who counts
        torch.unflatten(F.pad(x, (0, 0, 0, n_blocks * size - length)), 2, (n_blocks, size)).transpose(1, 2)
        for x in (q_BHTK, k_BGTK, v_BGTK)
    )
    k, v = (torch.cat((x[:, :-1], x[:, 1:]), dim=3).flatten(0, 1) for x in (k, v))
    rest = attend(q[:, 1:].flatten(0, 1), k, v, mask, dropout)
    rest = torch.unflatten(rest, 0, (-1, n_blocks - 1)).transpose(1, 2).flatten(2, 3)
    return torch.cat((first, rest[:, :, : length - size]), dim=2)


def plain_is_faster(q_BHTK: Tensor, n_keys: int, dropout: float = 0.0) -> bool:
    """Whether `attend_plain` trains faster than torch's kernel: on a CPU with dropout, or for the keys of PLAIN.

    There the backward pass of the fused kernel is slow; its forward pass is not. Measured by benchmarks/attention.py;
    the rule changes the speed and, by rounding, the last bits. With dropout torch itself falls back to a plain way,
    which draws more slowly than ours (benchmarks/dropout.py).
    """
    if q_BHTK.device.type != "cpu" or not q_BHTK.requires_grad:
        return False
    return dropout > 0 or n_keys in PLAIN.get(q_BHTK.dtype, ())


def hidden_keys(distances_TS: Tensor, mask: Mask) -> Tensor:
    """Which keys a query does not see, bool: (T, S), or (B, 1, T, S) with padding."""
    hidden_TS = ~visible(distances_TS, mask.window, mask.causal)
    return hidden_TS if mask.kept_BS is None else hidden_TS | ~mask.kept_BS[:, None, None, :]


def score_bias(n_queries: int, n_keys: int, mask: Mask, like: Tensor) -> Tensor:
    """What is added to the scores: -inf on hidden keys, minus slope x distance on the others.

    (T, S), (H, T, S), or with padding (B, 1 or H, T, S). Of a query that sees no key none is hidden, so that its
    softmax is finite; see `zero_where_blind`.
    """
    distances_TS = distances(n_queries, n_keys, like.device)
    hidden = hidden_keys(distances_TS, mask)
    if mask.kept_BS is not None:
        hidden = hidden & ~hidden.all(dim=-1, keepdim=True)
    if mask.slopes_H is None:
        return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
    return (-mask.slopes_H[:, None, None] * distances_TS).masked_fill(hidden, -torch.inf).to(like.dtype)


def zero_where_blind(mixed_BHTK: Tensor, mask: Mask, n_keys: int) -> Tensor:
    """The mixed values with zeros, and no gradient, for queries that see no key: only padding makes such."""
    if mask.kept_BS is None:
        return mixed_BHTK
    hidden_B1TS = hidden_keys(distances(mixed_BHTK.shape[2], n_keys, mixed_BHTK.device), mask)
    return mixed_BHTK.masked_fill(hidden_B1TS.all(dim=-1, keepdim=True), 0.0)


def attend_plain(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask, dropout: float = 0.0) -> Tensor:
    """Attention as two batched matrix products around a softmax; the scores exist in memory."""
    B, H, T, K = q_BHTK.shape
    S, n_groups = k_BGSK.shape[2], H // k_BGSK.shape[1]
    bias = score_bias(T, S, mask, q_BHTK)
    q_NTK = q_BHTK.reshape(B * H, T, K)
    k_NSK, v_NSK = (x_BGSK.repeat_interleave(n_groups, 1) if n_groups > 1 else x_BGSK for x_BGSK in (k_BGSK, v_BGSK))
    k_NSK, v_NSK = k_NSK.reshape(B * H, S, K), v_NSK.reshape(B * H, S, K)
    bias_NTS = bias.expand(B * H, T, S) if bias.dim() == 2 else bias.expand(B, H, T, S).reshape(B * H, T, S)
    weights_NTS = torch.baddbmm(bias_NTS, q_NTK, k_NSK.transpose(1, 2), alpha=K**-0.5).softmax(dim=-1)
    return zero_where_blind(torch.bmm(drop(weights_NTS, dropout), v_NSK).view(B, H, T, K), mask, S)


def attend_reference(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Mask = CAUSAL, dropout: float = 0.0
) -> Tensor:
    """`attend` step by step."""
    v_BHSK = v_BGSK.repeat_interleave(q_BHTK.shape[1] // v_BGSK.shape[1], dim=1)
    weights_BHTS = attention_weights(q_BHTK, k_BGSK, mask).to(v_BHSK.dtype)  # with slopes they are float32
    return drop(weights_BHTS, dropout) @ v_BHSK


def attention_weights(q_BHTK: Tensor, k_BGSK: Tensor, mask: Mask = CAUSAL) -> Tensor:
    """By how much each query takes each value, (B, H, T, S); rows sum to 1, those of a query that sees no key to 0."""
    k_BHSK = k_BGSK.repeat_interleave(q_BHTK.shape[1] // k_BGSK.shape[1], dim=1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-2, -1) / q_BHTK.shape[-1] ** 0.5
    distances_TS = distances(q_BHTK.shape[2], k_BGSK.shape[2], q_BHTK.device)
    if mask.slopes_H is not None:
        scores_BHTS = scores_BHTS - mask.slopes_H[:, None, None] * distances_TS
    hidden = hidden_keys(distances_TS, mask)
    if mask.kept_BS is None:
        return scores_BHTS.masked_fill(hidden, float("-inf")).softmax(dim=-1)
    blind = hidden.all(dim=-1, keepdim=True)
    return scores_BHTS.masked_fill(hidden & ~blind, float("-inf")).softmax(dim=-1).masked_fill(blind, 0.0)
