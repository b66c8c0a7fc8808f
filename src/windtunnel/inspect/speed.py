"""How long something takes and how much memory it holds: rivals take turns, bytes are counted."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from windtunnel.models import Transformer
from windtunnel.tasks.cross_entropy import loss_sum

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
