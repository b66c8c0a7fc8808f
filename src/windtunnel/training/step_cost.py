"""What a step of a run costs, by formula, for what its corpus gives it to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from windtunnel.models.cost import training_flops
from windtunnel.tasks import Task
from windtunnel.text.mixture import Mixture
from windtunnel.text.store import TokenStore
from windtunnel.training.run_config import RunConfig


def step_cost(config: RunConfig, store: TokenStore, task: Task) -> tuple[float, float]:
    """Tokens predicted in a step, on average, and its FLOPs: those of an example of average length, padding apart."""
    model, size = config.model, config.train.batch_size
    if store.parts and isinstance(mixed := task.examples("train"), Mixture):
        length = max(1, round(mixed.targets_each))
        return size * mixed.targets_each, size * mixed.targets_each / length * training_flops(model, length)
    if model.reads == "context" or store.corpus.unit != "line":
        length = model.targets_per_example
        return size * length, size * training_flops(model, length)
    n_examples = len(task.examples("train"))
    each = {name: total / n_examples for name, total in task.totals("train").items()}
    read = each.get("ids", each["targets"])  # of a pair a stream reads more than it predicts
    whole, source = max(1, round(read)), round(each["source"]) if "source" in each else None
    return size * each["targets"], size * read / whole * training_flops(model, whole, source)


def changed_cost(cost: tuple[float, float], found: Mapping[str, Any] | None) -> tuple[float, float]:
    """`step_cost` of a run that is changed in Python, by the ratios that a `Trial` found; NaN is not known."""
    if found is None:
        return cost
    tokens, flops = (math.nan if found[name] is None else found[name] for name in ("tokens", "flops"))
    return cost[0] * tokens, cost[1] * flops
