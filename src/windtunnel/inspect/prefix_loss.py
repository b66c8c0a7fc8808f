"""The loss of tokens read in whole windows, as training reads them, and read after what stands before them alone.

They are one for a model that cannot see what it is to predict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from windtunnel.models import Transformer
from windtunnel.text.store import TokenStore

Question = tuple[np.ndarray, int]
"""A window of ids, and the place of the one to be predicted."""


def questions(store: TokenStore, context_length: int, n: int) -> list[Question]:
    """n random windows of the dev split, (context_length + 1,) ids each, with a place in each to be predicted."""
    rng, ids = np.random.default_rng(0), store.splits["dev"].ids.astype(np.int64)
    starts = rng.integers(0, len(ids) - context_length, n)
    places = rng.integers(1, context_length + 1, n)
    return [(ids[a : a + context_length + 1], int(t)) for a, t in zip(starts, places, strict=True)]


def both_losses(model: Transformer, asked: Sequence[Question]) -> tuple[float, float]:
    """Mean loss in nats of the tokens asked for: in their whole windows, and after their prefixes."""
    windows = torch.stack([torch.from_numpy(ids) for ids, _ in asked])
    places = torch.tensor([t for _, t in asked])
    targets = windows.gather(1, places[:, None])[:, 0]
    rows = torch.arange(len(asked))
    with torch.no_grad():
        whole = torch.cat([model(part) for part in torch.split(windows[:, :-1], 64)])[rows, places - 1]
        alone = torch.cat([model(ids[None, :t])[:, -1] for ids, t in zip(windows, places.tolist(), strict=True)])
    return float(F.cross_entropy(whole, targets)), float(F.cross_entropy(alone, targets))
