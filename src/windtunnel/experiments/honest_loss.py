"""The loss of a model that sees what it is to predict, and the one it has when asked with only the tokens before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Drawing, Steps, draw
from windtunnel.models import Transformer, as_transformer
from windtunnel.report.charts import dots
from windtunnel.report.outcome import Progress
from windtunnel.report.table import Table, table
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.store import TokenStore
from windtunnel.training.run import load

Question = tuple[np.ndarray, int]
"""A window of ids, and the place of the one to be predicted."""
Honest = Mapping[str, Sequence[tuple[float, float]]]
"""Of each arm, for each seed: the loss that training prints, and that of the same tokens after their prefixes alone."""


def honest_losses(found: Comparison, arms: Collection[str], n: int) -> Steps[Honest]:
    """The loss on the same n dev tokens: in whole windows, as training reads them, and from their prefixes alone.

    Yields progress, a table and a figure of both.
    """
    runs = [(arm.name, run) for arm in found.arms if arm.name in arms for run in arm.seeds if run.reason == "finished"]
    asked: list[Question] = []
    losses: dict[str, list[tuple[float, float]]] = {}
    for i, (name, run) in enumerate(runs):
        yield Progress("asked from prefixes", i, len(runs))
        trained = load(Path(run.folder))
        asked = asked or questions(trained.run.store(), trained.model.config.context_length, n)
        losses.setdefault(name, []).append(both_losses(as_transformer(trained.model, "a prefix"), asked))
    ways = ("read in whole windows, as training prints it", "read from the tokens before it alone")
    means = {
        way: {name: mean_interval([both[i] for both in own]) for name, own in losses.items()}
        for i, way in enumerate(ways)
    }
    yield honest_table(means)
    yield honest_figure(means)
    return losses


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


def honest_table(means: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """The loss of the same tokens both ways."""
    arms = next(iter(means.values()))
    rows = ((arm, *(own[arm] for own in means.values())) for arm in arms)
    title = "Loss of the same held-out tokens, nats a token, 95 % t intervals over the seeds"
    return table(title, ("arm", *means), rows)


def honest_figure(means: Mapping[str, Mapping[str, Estimate]]) -> Drawing:
    """The same two losses, one below the other."""
    arms = list(next(iter(means.values())))
    xlabel = "loss of the same held-out tokens, nats a token"
    return draw("leak", dots(means, arms, xlim=(0, None), xlabel=xlabel))
