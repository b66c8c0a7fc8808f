"""The loss of a model that sees what it is to predict, and the one it has when asked with only the tokens before."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Progress, Table
from windtunnel.models import Transformer, as_transformer
from windtunnel.report.charts import drawing
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.store import TokenStore
from windtunnel.training.run import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Question = tuple[np.ndarray, int]
"""A window of ids, and the place of the one to be predicted."""
Honest = Mapping[str, Sequence[tuple[float, float]]]
"""Of each arm, for each seed: the loss that training prints, and that of the same tokens after their prefixes alone."""


def honest_losses(found: Comparison, arms: Collection[str], n: int) -> Generator[Progress, None, Honest]:
    """The loss on the same n dev tokens: in whole windows, as training reads them, and from their prefixes alone."""
    runs = [(arm.name, run) for arm in found.arms if arm.name in arms for run in arm.seeds if run.reason == "finished"]
    asked: list[Question] = []
    losses: dict[str, list[tuple[float, float]]] = {}
    for i, (name, run) in enumerate(runs):
        yield Progress("asked from prefixes", i, len(runs))
        trained = load(Path(run.folder))
        asked = asked or questions(trained.run.store(), trained.model.config.context_length, n)
        losses.setdefault(name, []).append(both_losses(as_transformer(trained.model, "a prefix"), asked))
    yield Progress("asked from prefixes", len(runs), len(runs))
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


def _both(own: Sequence[tuple[float, float]]) -> tuple[Estimate, Estimate]:
    return mean_interval([whole for whole, _ in own]), mean_interval([alone for _, alone in own])


def honest_table(honest: Honest) -> Table:
    """The loss of the same tokens both ways."""
    rows = tuple(
        (name, *(f"{e.estimate:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in _both(own))) for name, own in honest.items()
    )
    heads = ("arm", "read in whole windows, as training prints it", "read from the tokens before it alone")
    return Table("Loss of the same held-out tokens, nats a token, 95 % t intervals over the seeds", heads, rows)


def honest_figure(honest: Honest) -> Figure:
    """The same two losses side by side."""
    with drawing(6.8, 3.4) as figure:
        axes = figure.subplots()
        looks = (("#d55e00", "o", "in whole windows, as training prints it"), ("#0072b2", "D", "from the prefix alone"))
        for which, (colour, marker, label) in enumerate(looks):
            for row, own in enumerate(honest.values()):
                e = _both(own)[which]
                axes.errorbar(e.estimate, row + 0.12 * (2 * which - 1), xerr=e.high - e.estimate, fmt=marker,
                              color=colour, capsize=4, label=label if row == 0 else None)  # fmt: skip
        axes.set_yticks(range(len(honest)), list(honest))
        axes.set(
            ylim=(len(honest) - 0.5, -0.5), xlim=(0, None), xlabel="loss of the same held-out tokens, nats a token"
        )
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
