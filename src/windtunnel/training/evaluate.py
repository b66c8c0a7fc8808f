"""The metrics of a task on a split: over all of it unless a sample is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.nn.mode import evaluating
from windtunnel.tasks import Metric, Task
from windtunnel.text.batches import IGNORED, Batch
from windtunnel.training import machine
from windtunnel.training.distributed import ALONE, Ranks
from windtunnel.training.events import Evaluation

COUNTED = ("nats", "targets", "right", "exact")
"""The columns of metrics that are counted batch by batch; the task's `totals` are those of the whole split."""


def evaluate(
    model: nn.Module,
    task: Task,
    split: str,
    step: int,
    max_targets: int | None = None,
    ranks: Ranks = ALONE,
    precision: str = "fp32",
) -> Evaluation:
    """The metrics of a split, each of whose targets is predicted once.

    Args:
        max_targets: read only about this many targets, a random sample that is always the same; the result then has
            whole = False, and the task's totals (bytes) are taken to be shared equally by all targets.
        precision: bf16 runs the matrix products in bfloat16, which no loss of a whole split has been seen to change by
            more than 1e-4 nats (benchmarks/rounded_weights.py).

    Raises:
        DataError: when the split holds nothing to predict.
    """
    sums = dict.fromkeys([*COUNTED, *_counted_apart(task.metrics)], 0.0)
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad(), machine.autocast(precision):
        for batch in ranks.deal(task.examples(split).sweep(task.rows, max_targets)):
            there = batch.to(device)
            logits = model(**there.inputs)
            sums["nats"] += task.loss_sum(logits, there.targets).item()
            sums["targets"] += batch.n_targets
            for name, hit in _hits(task.metrics, logits, there).items():
                sums[name] += int(hit.sum())
    sums = dict(zip(sums, ranks.sum(*sums.values()), strict=True))
    totals, n_read = task.totals(split), sums["targets"]
    columns = {name: total * n_read / totals["targets"] for name, total in totals.items()}
    scores = {metric.name: metric.score(columns | sums) for metric in task.metrics}
    return Evaluation(step, split, scores, int(n_read), whole=n_read == totals["targets"])


def unit_sums(model: nn.Module, task: Task, split: str) -> dict[str, np.ndarray]:
    """The counted columns of the task's metrics, each summed over the targets of every unit of a split: (U,) float64.

    Their sums over all units are those of `evaluate`, but for rounding.
    """
    n, device = task.n_units(split), next(model.parameters()).device
    names = [*(name for name in COUNTED if _needs(task.metrics, name)), *_counted_apart(task.metrics)]
    sums = {name: np.zeros(n) for name in names}
    with evaluating(model), torch.no_grad():
        for batch in task.examples(split).sweep(task.rows):
            assert batch.units is not None
            there = batch.to(device)
            logits, counted = model(**there.inputs), there.targets != IGNORED
            units = batch.units.expand_as(batch.targets)[counted.cpu()].numpy()
            each = {"nats": task.losses(logits, there.targets), "targets": counted}
            each |= _hits(task.metrics, logits, there)
            for name in names:
                sums[name] += np.bincount(units, each[name][counted].double().cpu().numpy(), minlength=n)
    return sums


def _counted_apart(metrics: Sequence[Metric]) -> list[str]:
    """The columns that are counted of each label or up to a rank."""
    return [name for metric in metrics for name in metric.columns if "/" in name]


def _needs(metrics: Sequence[Metric], column: str) -> bool:
    return any(column in metric.columns for metric in metrics)


def _hits(metrics: Sequence[Metric], logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The columns `right`, `exact` and `top/K`, (B, T') bool, where a metric needs one: finding them takes time.

    right: whether the largest logit of a target is its own; exact: True at the first target of each row all of whose
    targets are right; and the columns of each label, see `macro_f1`. All are False where the target is IGNORED.
    """
    counted, found = batch.targets != IGNORED, _among_first(metrics, logits, batch)
    if not any(_needs(metrics, column) for column in ("right", "exact")):
        return found
    said = logits.argmax(-1).view_as(batch.targets)
    right = (said == batch.targets) & counted
    first = counted & (counted.cumsum(1) == 1)
    found |= {"right": right, "exact": first & (right | ~counted).all(1, keepdim=True)}
    of = {"right": (right, said), "said": (counted, said), "is": (counted, batch.targets)}
    for name in _counted_apart(metrics):
        count, _, label = name.partition("/")
        if count in of:
            among, labels = of[count]
            found[name] = among & (labels == int(label))
    return found


def _among_first(metrics: Sequence[Metric], logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The columns `top/K`: whether a target's logit is among the K largest. One as large as its own counts against it,
    so that logits which are all alike find nothing."""
    wanted = [name for name in _counted_apart(metrics) if name.startswith("top/")]
    if not wanted:
        return {}
    own = logits.gather(-1, batch.targets.clamp(min=0)[..., None])
    rank = (logits >= own).sum(-1)  # 0 where the logit is not a number
    counted = (batch.targets != IGNORED) & (rank > 0)
    return {name: counted & (rank <= int(name.removeprefix("top/"))) for name in wanted}
