"""Attention: `attend` is what training and decoding run, `attend_reference` is the same in the open.

Both take queries (B, H, T, K) and keys and values (B, G, S, K), where the T queries stand at the last T of the S
positions, and query head h reads key head h // (H // G) (grouped queries, Ainslie et al. 2023, arXiv 2305.13245).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel.nn.dropout import dropout as drop


class Attend(Protocol):
    """The contract of an attention function: (q, k, v) -> mixed values of shape (B, H, T, K)."""

    def __call__(
        self,
        q_BHTK: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        *,
        window: int | None = None,
        slopes_H: Tensor | None = None,
        dropout: float = 0.0,
        causal: bool = True,
    ) -> Tensor: ...


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


FUSED_FROM = 257
"""On a CPU in bfloat16, from how many keys on training takes the fused kernel; see `plain_is_faster`."""

BLOCKS_FROM = 512
"""From how many tokens on a window is computed block by block, if at least four windows fit; see `attend_in_blocks`."""

SMALLEST_BLOCK = 32
"""Smaller blocks cost more in calls than they save in scores."""


def attend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    window: int | None = None,
    slopes_H: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = True,
) -> Tensor:
    """Scaled dot-product attention by the fastest of three exact ways (Vaswani et al. 2017, equation 1).

    Args:
        window: how many tokens, itself included, a query sees; None is all before it.
        slopes_H: ALiBi slopes; the score of a key falls by slope x distance (Press et al. 2022, arXiv 2108.12409).
        dropout: probability of dropping an attention weight; those that stay are divided by 1 - dropout.
        causal: False lets every query see every key; a window or slopes need True.
    """
    n_queries, n_keys = q_BHTK.shape[2], k_BGSK.shape[2]
    if window is not None and n_queries == n_keys >= max(BLOCKS_FROM, 4 * window):
        return attend_in_blocks(q_BHTK, k_BGSK, v_BGSK, window=window, slopes_H=slopes_H, dropout=dropout)
    if window is not None and n_keys > n_queries + window - 1:  # decoding: what no query sees need not be read
        n_keys = n_queries + window - 1
        k_BGSK, v_BGSK = k_BGSK[:, :, -n_keys:], v_BGSK[:, :, -n_keys:]
    if plain_is_faster(q_BHTK, n_keys, dropout):
        bias = score_bias(n_queries, n_keys, window, slopes_H, q_BHTK, causal)
        return attend_plain(q_BHTK, k_BGSK, v_BGSK, bias, dropout)
    # One query sees every key, and T queries on T keys are what the kernels call causal; the rest needs a bias.
    unbiased = slopes_H is None and (window is None or window >= n_keys) and n_queries in (1, n_keys)
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=None if unbiased else score_bias(n_queries, n_keys, window, slopes_H, q_BHTK, causal),
        dropout_p=dropout,
        is_causal=causal and unbiased and n_queries > 1,
        enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
    )


def attend_in_blocks(
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    *,
    window: int,
    slopes_H: Tensor | None = None,
    dropout: float = 0.0,
    smallest: int = SMALLEST_BLOCK,
) -> Tensor:
    """`attend` with a window in time and memory that grow with T x window, not T x T.

    The tokens are cut into blocks as long as the window, or `smallest`; a block sees no further back than the block
    before it. So the blocks become rows of the batch, each with its own keys and those of the block before: queries
    that stand at the end of twice as many keys. The first block has none before it. benchmarks/attention.py measures
    from where on this wins.
    """
    length, size = q_BHTK.shape[2], max(window, smallest)
    n_blocks = -(-length // size)
    if n_blocks == 1:
        return attend(q_BHTK, k_BGTK, v_BGTK, window=window, slopes_H=slopes_H, dropout=dropout)
    begin = [x[:, :, :size] for x in (q_BHTK, k_BGTK, v_BGTK)]
    first = attend(*begin, window=window, slopes_H=slopes_H, dropout=dropout)
    q, k, v = (  # (B, blocks, heads, size, K); what fills the last block up is seen by nobody who counts
        torch.unflatten(F.pad(x, (0, 0, 0, n_blocks * size - length)), 2, (n_blocks, size)).transpose(1, 2)
        for x in (q_BHTK, k_BGTK, v_BGTK)
    )
    k, v = (torch.cat((x[:, :-1], x[:, 1:]), dim=3).flatten(0, 1) for x in (k, v))
    rest = attend(q[:, 1:].flatten(0, 1), k, v, window=window, slopes_H=slopes_H, dropout=dropout)
    rest = torch.unflatten(rest, 0, (-1, n_blocks - 1)).transpose(1, 2).flatten(2, 3)
    return torch.cat((first, rest[:, :, : length - size]), dim=2)


def plain_is_faster(q_BHTK: Tensor, n_keys: int, dropout: float = 0.0) -> bool:
    """Whether `attend_plain` trains faster than torch's kernel: on a CPU, in bfloat16 up to 256 keys, or with dropout.

    There the backward pass of the fused kernel is slow; its forward pass is not, and neither is anything of it in
    float32. Measured by benchmarks/attention.py; the rule changes the speed and, by rounding, the last bits. With
    dropout torch itself falls back to a plain way, which draws more slowly than ours (benchmarks/dropout.py).
    """
    if q_BHTK.device.type != "cpu" or not q_BHTK.requires_grad:
        return False
    return dropout > 0 or (q_BHTK.dtype == torch.bfloat16 and n_keys < FUSED_FROM)


def score_bias(
    n_queries: int, n_keys: int, window: int | None, slopes_H: Tensor | None, like: Tensor, causal: bool = True
) -> Tensor:
    """What is added to the scores: -inf on hidden keys, minus slope x distance on the others; (T, S) or (H, T, S)."""
    distances_TS = distances(n_queries, n_keys, like.device)
    hidden_TS = ~visible(distances_TS, window, causal)
    if slopes_H is None:
        return torch.zeros(n_queries, n_keys, dtype=like.dtype, device=like.device).masked_fill_(hidden_TS, -torch.inf)
    return (-slopes_H[:, None, None] * distances_TS).masked_fill(hidden_TS, -torch.inf).to(like.dtype)


def attend_plain(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention as two batched matrix products around a softmax; the scores exist in memory."""
    B, H, T, K = q_BHTK.shape
    S, n_groups = k_BGSK.shape[2], H // k_BGSK.shape[1]
    q_NTK = q_BHTK.reshape(B * H, T, K)
    k_NSK, v_NSK = (x_BGSK.repeat_interleave(n_groups, 1) if n_groups > 1 else x_BGSK for x_BGSK in (k_BGSK, v_BGSK))
    k_NSK, v_NSK = k_NSK.reshape(B * H, S, K), v_NSK.reshape(B * H, S, K)
    bias_NTS = bias.expand(B, H, T, S).reshape(B * H, T, S) if bias.dim() == 3 else bias.expand(B * H, T, S)
    weights_NTS = torch.baddbmm(bias_NTS, q_NTK, k_NSK.transpose(1, 2), alpha=K**-0.5).softmax(dim=-1)
    return torch.bmm(drop(weights_NTS, dropout), v_NSK).view(B, H, T, K)


def attend_reference(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    window: int | None = None,
    slopes_H: Tensor | None = None,
    causal: bool = True,
) -> tuple[Tensor, Tensor]:
    """`attend` step by step: the mixed values (B, H, T, K) and the attention weights (B, H, T, S)."""
    n_groups = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK = k_BGSK.repeat_interleave(n_groups, dim=1)
    v_BHSK = v_BGSK.repeat_interleave(n_groups, dim=1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-2, -1) / q_BHTK.shape[-1] ** 0.5
    distances_TS = distances(q_BHTK.shape[2], k_BGSK.shape[2], q_BHTK.device)
    if slopes_H is not None:
        scores_BHTS = scores_BHTS - slopes_H[:, None, None] * distances_TS
    scores_BHTS = scores_BHTS.masked_fill(~visible(distances_TS, window, causal), float("-inf"))
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    return weights_BHTS @ v_BHSK, weights_BHTS
