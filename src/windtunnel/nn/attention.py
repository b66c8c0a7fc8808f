"""Causal attention: `attend` is what training and decoding run, `attend_reference` is the same in the open.

Both take queries (B, H, T, K) and keys and values (B, G, S, K), where the T queries stand at the last T of the S
positions, and query head h reads key head h // (H // G) (grouped queries, Ainslie et al. 2023, arXiv 2305.13245).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


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
    ) -> Tensor: ...


def distances(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """How far back each key lies from each query, (T, S): 0 is the token itself, negative is the future."""
    queries = torch.arange(n_keys - n_queries, n_keys, device=device)
    return queries[:, None] - torch.arange(n_keys, device=device)[None, :]


def visible(distances_TS: Tensor, window: int | None) -> Tensor:
    """Which keys a query may see, (T, S) bool: no future and, with a window w, only the last w tokens.

    The window counts the token itself (Beltagy et al. 2020, arXiv 2004.05150, causal form).
    """
    seen = distances_TS >= 0
    return seen if window is None else seen & (distances_TS < window)


def attend(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    window: int | None = None,
    slopes_H: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention through torch's fused kernels (Vaswani et al. 2017, equation 1).

    Args:
        window: how many tokens, itself included, a query sees; None is all before it.
        slopes_H: ALiBi slopes; the score of a key falls by slope x distance (Press et al. 2022, arXiv 2108.12409).
        dropout: probability of dropping an attention weight.
    """
    n_queries, n_keys = q_BHTK.shape[2], k_BGSK.shape[2]
    grouped = q_BHTK.shape[1] != k_BGSK.shape[1]
    mask = None
    is_causal = n_queries > 1
    if slopes_H is not None or (window is not None and window < n_keys) or (is_causal and n_queries != n_keys):
        distances_TS = distances(n_queries, n_keys, q_BHTK.device)
        mask = visible(distances_TS, window)
        if slopes_H is not None:
            bias_HTS = -slopes_H[:, None, None] * distances_TS
            mask = bias_HTS.masked_fill(~mask, float("-inf")).to(q_BHTK.dtype)
        is_causal = False
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, enable_gqa=grouped
    )


def attend_reference(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    *,
    window: int | None = None,
    slopes_H: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`attend` step by step: the mixed values (B, H, T, K) and the attention weights (B, H, T, S)."""
    n_groups = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK = k_BGSK.repeat_interleave(n_groups, dim=1)
    v_BHSK = v_BGSK.repeat_interleave(n_groups, dim=1)
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-2, -1) / q_BHTK.shape[-1] ** 0.5
    distances_TS = distances(q_BHTK.shape[2], k_BGSK.shape[2], q_BHTK.device)
    if slopes_H is not None:
        scores_BHTS = scores_BHTS - slopes_H[:, None, None] * distances_TS
    scores_BHTS = scores_BHTS.masked_fill(~visible(distances_TS, window), float("-inf"))
    weights_BHTS = scores_BHTS.softmax(dim=-1)
    return weights_BHTS @ v_BHSK, weights_BHTS
