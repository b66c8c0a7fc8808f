"""How much each position of a target looks at each position of its source: scores, and the weights that they make.

S is the source's length, T the target's, E the width of the source's vectors.
"""

from __future__ import annotations

from torch import Tensor, nn

from windtunnel.nn.linear import Linear


class Additive(nn.Module):
    """score = v . tanh(W h + U m)  (Bahdanau et al. 2015, arXiv 1409.0473, section 3.1 and appendix A.1.2)."""

    def __init__(self, d_model: int, d_memory: int) -> None:
        super().__init__()
        self.query = Linear(d_model, d_model, bias=False)
        self.key = Linear(d_memory, d_model)
        self.score = Linear(d_model, 1, bias=False)

    def keys(self, memory_BSE: Tensor) -> Tensor:
        """What is computed once for a source, (B, S, D)."""
        return self.key(memory_BSE)

    def forward(self, h_BTD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, T, S)."""
        scores_BTS1: Tensor = self.score((self.query(h_BTD)[:, :, None] + keys_BSD[:, None]).tanh())
        return scores_BTS1.squeeze(-1)


class Dot(nn.Module):
    """score = h . m, or h . (U m) where their widths differ (Luong et al. 2015, arXiv 1508.04025: dot and general)."""

    def __init__(self, d_model: int, d_memory: int) -> None:
        super().__init__()
        self.key = nn.Identity() if d_model == d_memory else Linear(d_memory, d_model, bias=False)

    def keys(self, memory_BSE: Tensor) -> Tensor:
        """What is computed once for a source, (B, S, D)."""
        return self.key(memory_BSE)

    def forward(self, h_BTD: Tensor, keys_BSD: Tensor) -> Tensor:
        """Scores (B, T, S)."""
        return h_BTD @ keys_BSD.mT


ALIGNMENTS: dict[str, type[Additive | Dot]] = {"additive": Additive, "dot": Dot}


def align(scores_BTS: Tensor, kept_BS: Tensor | None) -> Tensor:
    """Weights (B, T, S): they sum to 1 over the source, and its padding has none.

    Args:
        kept_BS: (B, S) bool, False where a source is padding; None is no padding.
    """
    if kept_BS is not None:
        scores_BTS = scores_BTS.masked_fill(~kept_BS[:, None], float("-inf"))
    return scores_BTS.softmax(dim=-1)
