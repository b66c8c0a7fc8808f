"""The one thread that owns the models and computes: everybody's texts advance in turn.

In each turn it begins what waits, calls one function, and lets every batch of texts make one step. So a long text holds
up no other, and what nobody waits for any longer is dropped between two steps.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from windtunnel.serve.shelf import LAST, Names, Shelf, half_of_memory
from windtunnel.serve.writing import Text, Writing, written
from windtunnel.training.run import TrainedModel

T = TypeVar("T")
PLACES = 64
"""Requests that may be served or wait; one more is told to come again."""
ROWS = 16
"""Texts of one request that are written at a time."""
BATCH = 32
"""Texts that share a pass."""
ENDED = object()


class Busy(Exception):
    """All places are taken."""


@dataclass(frozen=True)
class Call:
    """A function of a model, and where its result goes."""

    model: str
    function: Callable[[TrainedModel], Any]
    result: Future[Any]


@dataclass(frozen=True)
class Batch:
    """Texts that are written together; each step of `work` is one of theirs.

    texts: those that are not done.
    """

    texts: list[Text]
    work: Iterator[object]


class Worker:
    """Loads models by name from a folder, and computes for all requests in turn.

    Args:
        memory: bytes that models and what is kept of unfinished texts may take; by default half of the machine's.
        places: how many requests may be served or wait.
    """

    def __init__(self, root: Path, memory: int | None = None, places: int = PLACES) -> None:
        memory = half_of_memory() if memory is None else memory
        self.names = Names(root)
        self.shelf = Shelf(self.names, memory)
        self.memory, self.places = memory, places
        self.changed = threading.Condition()
        self.calls: deque[Call] = deque()
        self.writings: list[Writing] = []
        self.batches: list[Batch] = []
        self.is_closing = False
        self.thread = threading.Thread(target=self._work, name="windtunnel-worker", daemon=True)
        self.thread.start()

    async def run(self, function: Callable[[TrainedModel], T], model: str = LAST) -> T:
        """The result of a function of a loaded model, computed in the worker's thread; its error is raised here.

        Args:
            model: a name of the folder: a run, the folder of several seeds, or `last`.

        Raises:
            Busy: when all places are taken.
            UnknownModel: for a name that the folder has not.
        """
        result: Future[T] = Future()
        self._enter(lambda: self.calls.append(Call(model, function, result)))
        return await asyncio.wrap_future(result)

    def submit(self, writing: Writing) -> None:
        """Have texts written; their pieces go to `writing.put`.

        Raises:
            Busy: when all places are taken.
        """
        self._enter(lambda: self.writings.append(writing))

    @property
    def n_taken(self) -> int:
        """Places taken."""
        return len(self.calls) + len(self.writings)

    def close(self) -> None:
        """Finish what was begun, and let the models go."""
        with self.changed:
            self.is_closing = True
            self.changed.notify()
        self.thread.join()

    def _enter(self, add: Callable[[], None]) -> None:
        with self.changed:
            if self.is_closing or self.n_taken >= self.places:
                raise Busy
            add()
            self.changed.notify()

    def _work(self) -> None:
        while self._wait():
            if self.calls:
                self._call(self.calls[0])
                self.calls.popleft()
            for writing in list(self.writings):
                if writing.cancelled or (writing.is_prepared and not (writing.waiting or writing.n_active)):
                    self._end(writing, None)
            self.batches.extend(self._begun())
            self.batches = [batch for batch in self.batches if self._step(batch)]

    def _wait(self) -> bool:
        """Whether there is something to do, once there is; False when there will not be."""
        with self.changed:
            self.changed.wait_for(lambda: self.n_taken or self.batches or self.is_closing)
            return bool(self.n_taken or self.batches)

    def _call(self, call: Call) -> None:
        if not call.result.set_running_or_notify_cancel():
            return
        try:
            call.result.set_result(call.function(self.shelf.get(call.model)))
        except Exception as problem:  # noqa: BLE001 - it is raised where the result is waited for
            call.result.set_exception(problem)

    def _begun(self) -> Iterator[Batch]:
        """Batches of the texts whose turn it is, as far as there is memory for their keys and values."""
        alike: dict[tuple[int, int, bool], list[Text]] = {}
        n_bytes = sum(text.n_bytes for batch in self.batches for text in batch.texts)
        for writing in list(self.writings):
            self._prepare(writing)
            while writing.waiting and writing.n_active < ROWS:
                n_bytes += writing.waiting[0].n_bytes
                if n_bytes > self.memory // 4 and (self.batches or alike):
                    break
                text = writing.waiting.popleft()
                writing.n_active += 1
                alike.setdefault(text.key, []).append(text)
        for texts in alike.values():
            for begin in range(0, len(texts), BATCH):
                some = texts[begin : begin + BATCH]
                yield Batch(some, written(some[0].trained, tuple(some)))

    def _prepare(self, writing: Writing) -> None:
        if not writing.is_prepared:
            try:
                writing.prepare(self.shelf.get(writing.model))
            except Exception as problem:  # noqa: BLE001 - it is raised where the pieces are waited for
                self._end(writing, problem)

    def _step(self, batch: Batch) -> bool:
        """Whether the batch goes on after a step."""
        try:
            goes_on = next(batch.work, ENDED) is not ENDED
        except Exception as problem:  # noqa: BLE001 - it is raised where the pieces are waited for
            for text in batch.texts:
                self._end(text.writing, problem)
            return False
        for text in [text for text in batch.texts if text.is_done]:
            batch.texts.remove(text)
            text.writing.n_active -= 1
        return goes_on and bool(batch.texts)

    def _end(self, writing: Writing, problem: Exception | None) -> None:
        """Nothing more comes of it; its place is free."""
        if writing in self.writings:
            with self.changed:
                self.writings.remove(writing)
            writing.waiting.clear()
            writing.cancelled = True
            writing.put(problem)
