"""Paired timing: rivals take turns, so that what else the machine does falls on all of them alike.

The number to trust is the ratio: it is taken between neighbours in time, its median is reported with a 95 % interval.
Libraries with threads of their own get a process each (`Apart`), as one may slow the others down in its own.
"""

from __future__ import annotations

import json
import math
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch

T = TypeVar("T")
FEWEST = 3
"""So many turns are taken however long they last."""


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median and the quartiles over `n` calls."""

    median: float
    lower_quartile: float
    upper_quartile: float
    n: int


@dataclass(frozen=True)
class Ratio:
    """Time of `of` divided by time of `to` in the same turn: the median with an interval.

    The interval covers the median whatever the distribution's shape (order statistics); `method` says how surely, which
    is 95 % or a little more, and less below six turns.
    """

    of: str
    to: str
    estimate: float
    low: float
    high: float
    n: int
    method: str


def alternate(
    rivals: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 2,
    until: float = math.inf,
    fewest: int = FEWEST,
) -> dict[str, list[float]]:
    """Seconds of each call; each turn calls every rival once, and every other turn in reverse order.

    Args:
        until: no turn begins after this moment (`time.perf_counter`), but the `fewest` first ones.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(warmup + repeats):
        if turn >= warmup + fewest and time.perf_counter() > until:
            break
        order = list(rivals) if turn % 2 == 0 else list(rivals)[::-1]
        for name in order:
            begin = time.perf_counter()
            rivals[name]()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def sharing(cases: Sequence[T], minutes: float) -> Iterator[tuple[T, float]]:
    """Each case with the seconds that are left for it, an equal share of what is left for all."""
    end = time.perf_counter() + 60 * minutes
    for index, case in enumerate(cases):
        yield case, max(0.0, end - time.perf_counter()) / (len(cases) - index)


class Apart:
    """A module of this folder in a process of its own, which answers calls (`serve`) and is stopped between them.

    Args:
        python: that of another environment, where a rival lives in one.
        wait: whether to wait until it is ready; else the first look at its `greeting` does, so that several get ready
            at once.
    """

    def __init__(self, module: str, *words: str, python: str = sys.executable, wait: bool = True) -> None:
        self.process = subprocess.Popen(
            [python, "-m", f"benchmarks.{module}", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if wait:
            self.greeting  # noqa: B018

    @cached_property
    def greeting(self) -> Any:
        """What it says when it is ready."""
        return self._answer()

    def __call__(self, wish: str) -> Any:
        assert self.greeting is not None
        assert self.process.stdin
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{wish}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"a rival's process ended with {self.process.wait()}; its message is above")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.communicate()


def serve(greeting: object, answer: Callable[[str], object]) -> None:
    """What the process of an `Apart` does: it says that it is ready, then answers line by line, in JSON."""
    print(json.dumps(greeting), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


def timing(seconds: Sequence[float]) -> Timing:
    """The summary of one rival's calls."""
    lower, middle, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(middle, lower, upper, len(seconds))


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> Ratio:
    """The paired ratio of two rivals; below 1 the first is faster."""
    ratios = sorted(a / b for a, b in zip(seconds[of], seconds[to], strict=True))
    n = len(ratios)
    rank = _rank(n)
    coverage = 1 - 2 * sum(math.comb(n, k) for k in range(rank + 1)) / 2**n
    method = f"median of paired ratios, order-statistic interval of {coverage:.1%} coverage"
    return Ratio(of, to, statistics.median(ratios), ratios[rank], ratios[n - 1 - rank], n, method)


def _rank(n: int, confidence: float = 0.95) -> int:
    """How many values to leave out at each end so that the rest still covers the median; 0 for a few values."""
    tail, rank = 0.0, -1
    for k in range(n):
        tail += math.comb(n, k) / 2**n
        if tail > (1 - confidence) / 2:
            break
        rank = k
    return max(rank, 0)


def report(claim: str, results: Sequence[Mapping[str, Any]], repeats: int) -> dict[str, Any]:
    """The JSON of a benchmark: its claim, machine and versions, and the results."""
    from windtunnel.training import machine  # here, as the python of a rival need not have it

    return {
        "claim": claim,
        "machine": machine.description(),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "results": list(results),
    }


def fewest_turns(results: Sequence[Mapping[str, Any]]) -> int:
    """How many turns each of the results has at least, where time may have cut them short."""
    return min(timed["n"] for result in results for timed in result["milliseconds"].values())


def as_dict(seconds: Mapping[str, Sequence[float]], *ratios: Ratio) -> dict[str, Any]:
    """Timings in milliseconds and ratios, ready for JSON."""
    return {
        "milliseconds": {
            name: {key: value if key == "n" else value * 1e3 for key, value in asdict(timing(values)).items()}
            for name, values in seconds.items()
        },
        "ratios": [asdict(r) for r in ratios],
    }
