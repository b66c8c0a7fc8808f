"""What tasks have in common whose targets are tokens: the loss is the cross-entropy over the vocabulary."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from windtunnel.models import ModelConfig
from windtunnel.tasks.cross_entropy import loss_sum, losses, training_loss_sum
from windtunnel.text.store import TokenStore

EVALUATION_TOKENS = 8192
"""Tokens that an evaluation reads at once."""


@dataclass(frozen=True)
class TokenTask:
    """A corpus as tokens, and the model that predicts some of them."""

    store: TokenStore
    model: ModelConfig

    @property
    def blind(self) -> float:
        """Nats a token of a guess that knows nothing: ln vocab_size."""
        return math.log(self.model.vocab_size)

    @property
    def rows(self) -> int:
        """How many rows an evaluation reads at once."""
        return max(1, EVALUATION_TOKENS // self.model.context_length)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Nats (B, T') of each target, 0 where it is IGNORED."""
        return losses(logits, targets)

    def loss_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of `losses`."""
        return loss_sum(logits, targets)

    def training_loss_sum(self, logits: Tensor, targets: Tensor, once: bool = False) -> Tensor:
        """`loss_sum`; with `once` its gradient can be computed only once, and takes less memory."""
        return (training_loss_sum if once else loss_sum)(logits, targets)
