"""With what this machine trains fastest: precisions and threads, measured once on a machine and kept in the cache.

A way is a precision on so many threads. Each takes training steps of one transformer layer at a few widths, in turns,
and its best time counts, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveFloat

from windtunnel.errors import ArtifactError, SaveError
from windtunnel.models import TransformerConfig, build
from windtunnel.models.cost import training_flops
from windtunnel.text.corpora.cache import cache_folder
from windtunnel.training import machine
from windtunnel.training.disk import check, read_manifest, saving, write_folder
from windtunnel.training.machine import Precision
from windtunnel.training.run_config import RunConfig

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
BF16_WIDTH = 128
WIDTHS = (64, 128, 512)
"""A model is told by the widest of these that is no wider than it; a narrower one is not worth a measurement."""
CONTEXT, VALUES = 64, 2**16
"""A step has as many windows of CONTEXT tokens as make VALUES numbers of each vector of a token."""
SECONDS, MOST_SECONDS = 1.0, 1.5
"""Rounds begin for SECONDS, and no step begins after MOST_SECONDS; what was not taken twice by then was not measured:
the first step warms up."""
CLEAR = 1.1
"""Another way than the rule's is taken when the rule's takes more than this many times as long."""
OWN_CORES = 0.9
"""A way that had less than this part of its cores' time shared them, and its time says little of the machine."""


@dataclass(frozen=True)
class Way:
    """A precision on so many threads."""

    precision: Precision
    threads: int

    def __str__(self) -> str:
        return f"{self.precision} on {self.threads} thread{'s' * (self.threads > 1)}"


class Best(BaseModel):
    """The best step of one way at one width."""

    model_config = ConfigDict(extra="forbid")
    seconds: PositiveFloat
    share: float
    """Which part of its cores' time the way had in all its steps; 1 where nobody else was computing."""


class Kept(BaseModel):
    """What is kept of a machine: {width: {way: its best step}}."""

    best: dict[int, dict[str, Best]]


def decide(config: RunConfig, side_by_side: int = 1) -> Way:
    """Precision and threads of a run whose model is decided: what its settings say, else what is fastest here.

    The rule, from which only a clear difference departs: bfloat16 from a width of 128 on where the device multiplies
    it, since below the casts cost more than it saves, and a thread a core. Runs side by side have one thread each.
    """
    train, width = config.train, config.model.widest
    usual: Precision = "bf16" if machine.has_fast_bf16() and width >= BF16_WIDTH else "fp32"
    rule = Way(
        usual if train.precision == "auto" else train.precision,
        train.threads or (1 if side_by_side > 1 else machine.cores()),
    )
    precisions: tuple[Precision, ...] = PRECISIONS if train.precision == "auto" else (rule.precision,)
    threads = thread_counts() if train.threads is None and side_by_side == 1 else [rule.threads]
    ways = [Way(precision, n) for n in threads for precision in precisions]
    return fastest(width, rule, ways) if len(ways) > 1 else rule


def fastest(model_width: int, rule: Way, ways: Sequence[Way]) -> Way:
    """The rule's way, or one of the others that is clearly faster on this machine.

    None is believed to be where the rule's way had to share its cores, as threads then wait for each other.
    """
    best = measured(model_width)
    usual = best.get(str(rule))
    if usual is None or usual.share < OWN_CORES:
        return rule
    found = min((way for way in ways if str(way) in best), key=lambda way: best[str(way)].seconds)
    return found if usual.seconds > CLEAR * best[str(found)].seconds else rule


def flops_per_second(model_width: int, way: Way) -> float | None:
    """Matrix-multiply FLOP/s of training steps that had their cores; None where there is no such measurement."""
    best = measured(model_width).get(str(way))
    if best is None or best.share < OWN_CORES:
        return None
    return layer_flops(model_width) / best.seconds


def layer_flops(model_width: int) -> float:
    """Matrix-multiply FLOPs of the step that is timed for a model's width."""
    width = _measured_width(model_width)
    return float(training_flops(_config(width), CONTEXT) * _windows(width))


def left_to_measuring(asked: RunConfig, resolved: RunConfig, side_by_side: int = 1) -> set[str]:
    """The paths of the settings of a run that another measurement may decide differently."""
    if not _is_measured(resolved.model.widest):
        return set()
    open_ones = {
        "train.precision": asked.train.precision == "auto",
        "train.threads": asked.train.threads is None and side_by_side == 1,
        "train.compile": asked.train.compile == "auto",
    }
    return {path for path, is_open in open_ones.items() if is_open}


def said(config: RunConfig) -> str:
    """One line: precision and threads of a resolved run, and what was measured; empty where nothing was."""
    width, train = _measured_width(config.model.widest), config.train
    best = known(width)
    if not best or train.precision == "auto" or train.threads is None:
        return ""
    way = Way(train.precision, train.threads)
    times = ", ".join(f"{name} {one.seconds * 1e3:.3g} ms" for name, one in sorted(best.items()))
    usual = best.get(str(way))
    shared = usual is not None and usual.share < OWN_CORES
    cure = "; others computed then, so the rule stands: windtunnel cache clear speed has it measured again"
    return f"{way}; a training step of one layer of width {width}, measured here once: {times}{cure if shared else ''}"


def measured(model_width: int) -> dict[str, Best]:
    """The best step of each way at a model's width, measured where it is not kept yet.

    Empty for a narrow model, on an accelerator, and where the measurement cannot be kept, since the same command is to
    decide the same each time.
    """
    if not _is_measured(model_width):
        return {}
    if (found := known(model_width)) is None:
        with suppress(SaveError):  # also where another process was faster: then its measurement counts
            keep(_measure())
        found = known(model_width)
    return found or {}


def known(model_width: int) -> dict[str, Best] | None:
    """What is kept for a model's width; None where there is no measurement of this machine, or a damaged one."""
    with suppress(ArtifactError):
        body = read_manifest(folder := _folder())
        check(Kept, body, folder)
        return Kept.model_validate(body).best.get(_measured_width(model_width), {})
    return None


def keep(best: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Keep a measurement, {width: {way: {seconds, share}}}, of this machine.

    Raises:
        SaveError: when the disk refuses, or another process has kept one meanwhile.
    """
    folder = _folder()
    with saving(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(
        folder, {}, {"kind": "speed", "best": best, **_machine()}, replace=folder.exists() and known(0) is None
    )


def thread_counts() -> list[int]:
    """The numbers of threads that are tried: one a core, half as many (two may share a core's arithmetic), and one."""
    cores = machine.cores()
    return sorted({cores, max(1, cores // 2), 1}, reverse=True)


def _machine() -> dict[str, object]:
    """What a measurement is of."""
    about = machine.description()
    return {name: about[name] for name in ("processor", "cores", "torch", "capability")}


def _folder() -> Path:
    key = json.dumps([_machine(), WIDTHS, CONTEXT, VALUES])
    return cache_folder() / "speed" / hashlib.sha256(key.encode()).hexdigest()[:16]


def _measured_width(model_width: int) -> int:
    """The width that stands for a model's; 0 is none."""
    return max((width for width in WIDTHS if width <= model_width), default=0)


def _is_measured(model_width: int) -> bool:
    return _measured_width(model_width) > 0 and machine.device().type == "cpu"


def _config(width: int) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=64, context_length=CONTEXT, n_layers=1, d_model=width, n_heads=width // 64, dropout=0.0
    )


def _windows(width: int) -> int:
    return VALUES // width // CONTEXT


def _measure() -> dict[str, dict[str, dict[str, float]]]:
    precisions = PRECISIONS if machine.has_fast_bf16() else PRECISIONS[:1]
    ways = [Way(precision, n) for n in thread_counts() for precision in precisions]
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            # By threads, as a thread that has just had work waits for more and is in the way of fewer threads.
            taken = _race({(way, width): _step(width, way) for way in ways for width in WIDTHS})
    finally:
        torch.set_num_threads(before)
    found = {key: one.best() for key, one in taken.items() if len(one.seconds) > 1}
    return {str(width): {str(way): best for (way, at), best in found.items() if at == width} for width in WIDTHS}


@dataclass
class _Taken:
    """The steps of one way at one width: seconds of each, and of processors, those of the calling thread and of all."""

    threads: int
    seconds: list[float] = field(default_factory=list)
    own: float = 0.0
    process: float = 0.0

    def take(self, step: Callable[[], None]) -> None:
        torch.set_num_threads(self.threads)
        begin, own, process = time.perf_counter(), time.thread_time(), time.process_time()
        step()
        self.seconds.append(time.perf_counter() - begin)
        self.own += time.thread_time() - own
        self.process += time.process_time() - process

    def best(self) -> dict[str, float]:
        """As `Best`: of the shares of its cores that the calling thread had and that all threads had, the smaller."""
        share = min(self.own, self.process / self.threads) / sum(self.seconds)
        return {"seconds": min(self.seconds), "share": share}


def _race(steps: dict[tuple[Way, int], Callable[[], None]]) -> dict[tuple[Way, int], _Taken]:
    """What the steps take, in turns."""
    taken = {key: _Taken(key[0].threads) for key in steps}
    begin, order = time.perf_counter(), list(steps)
    while (now := time.perf_counter() - begin) < SECONDS:
        for key in order:
            if now < MOST_SECONDS:
                taken[key].take(steps[key])
                now = time.perf_counter() - begin
        order.reverse()
    return taken


def _step(width: int, way: Way) -> Callable[[], None]:
    model = build(_config(width), 0)
    ids = torch.arange(_windows(width) * CONTEXT).view(-1, CONTEXT) % 64

    def step() -> None:
        with machine.autocast(way.precision):
            logits_BTV = model(ids)
        F.cross_entropy(logits_BTV.flatten(0, 1).float(), ids.flatten()).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return step
