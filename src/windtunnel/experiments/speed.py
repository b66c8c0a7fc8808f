"""How long something takes and how much memory it holds, for experiments: rivals take turns, bytes are counted."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from windtunnel.experiments.frame import Drawing, Given, Setting, Steps, draw
from windtunnel.models import Transformer, TransformerConfig, build
from windtunnel.report.charts import lines
from windtunnel.report.outcome import Progress
from windtunnel.report.table import Table, table
from windtunnel.training.objective import loss_sum

DECODED = 8
"""Tokens that `decoding` writes a call."""


def take_turns(rivals: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call; each turn calls every rival once, so that what else the machine does falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(repeats + 1):
        for name, call in rivals.items():
            begin = time.perf_counter()
            call()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def training(model: Transformer, length: int) -> Callable[[], object]:
    """Forward and backward over one sequence of this many tokens."""
    ids_BT = torch.zeros(1, length, dtype=torch.int64)
    return lambda: torch.autograd.grad(loss_sum(model(ids_BT), ids_BT), list(model.parameters()))


def decoding(model: Transformer, length: int) -> Callable[[], object]:
    """`DECODED` tokens one by one, each after about `length` others: how they were read does not change the time."""

    def write() -> None:
        cache = model.new_cache(1, length + DECODED)
        cache.length = length
        with torch.no_grad():
            for _ in range(DECODED):
                model(torch.zeros(1, 1, dtype=torch.int64), cache)

    return write


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made by the call held at once; what a kernel keeps to itself is not seen."""
    with PeakMemory() as held:
        call()
    return held.most


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that an operation makes until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.known.update(_storages((args, kwargs)))  # what was there before does not count
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _free(self, n: int) -> None:
        self.now -= n


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size with which the values grow: the slope of a line through their logarithms."""
    slope, _ = np.polyfit([math.log(x) for x in sizes], [math.log(y) for y in values], 1)
    return float(slope)


Seconds = Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]]
"""Of `training` and `decoding`, at each length of the context, of each model: the seconds of every turn."""
LENGTHS = {"training": (128, 512, 2048), "decoding": (128, 1024, 8192)}


def at_lengths(at: Setting, variants: Mapping[str, Mapping[str, Any]]) -> Steps[Seconds]:
    """Time variants of a model of 2 layers x 256 with rotary positions and random weights, in turns at each length.

    Yields progress, a table and a figure of tokens a second.
    """
    shape = {"vocab_size": 257, "n_layers": 2, "n_heads": 8, "d_model": 256, "position": "rope", "dropout": 0.0}
    models = {name: build(TransformerConfig(**{**shape, **own}), 0).eval() for name, own in variants.items()}
    seconds: dict[str, dict[int, dict[str, list[float]]]] = {"training": {}, "decoding": {}}
    for what, way in (("training", training), ("decoding", decoding)):
        lengths = at.size(LENGTHS[what], quick=(32, 64))
        for i, length in enumerate(lengths):
            yield Progress(f"timing {what}", i, len(lengths))
            calls = {name: way(model, length) for name, model in models.items()}
            seconds[what][length] = take_turns(calls, at.size(7, quick=2))
    yield Given({"timed": "2 layers x 256, 8 heads, rotary positions, random weights"})
    yield rates_table(seconds)
    yield rates_figure(seconds)
    return seconds


def rates(seconds: Seconds, what: str) -> dict[str, dict[int, float]]:
    """Median tokens a second of each model at each length."""
    found: dict[str, dict[int, float]] = {}
    for length, models in seconds[what].items():
        n_tokens = length if what == "training" else DECODED
        for name, turns in models.items():
            found.setdefault(name, {})[length] = n_tokens / median(turns)
    return found


def rates_table(seconds: Seconds) -> Table:
    """Tokens a second: the model in the rows, what it does and its context in the columns."""
    heads = [f"{what} at {length:,}" for what in seconds for length in seconds[what]]
    found = [rates(seconds, what) for what in seconds]
    rows = ((name, *(f"{rate:,.0f}" for own in found for rate in own[name].values())) for name in found[0])
    return table("Tokens a second by length of the context, 2 layers x 256, one sequence", ("model", *heads), rows)


def rates_figure(seconds: Seconds) -> Drawing:
    """Left training, right decoding: tokens a second against the length of the context."""
    panels = []
    for what in seconds:
        curves = {name: ([*own], [*own.values()]) for name, own in rates(seconds, what).items()}
        axes: dict[str, Any] = {"xlabel": "length of the context, tokens", "ylabel": "tokens a second"}
        panels.append(lines(curves, ticks=[*seconds[what]], log="x", title=what, ylim=(0, None), **axes))
    return draw("speed", *panels)
