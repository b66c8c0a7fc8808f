"""Loss as a function of logits and targets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from windtunnel.text.batches import IGNORED


def loss_sum(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy summed over all targets that are not padding, in nats, computed in float32.

    A sum, not a mean: dividing once by the number of targets in the whole batch makes accumulation over
    micro-batches with unequal numbers of tokens exact.
    """
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
