"""Claim: eight seeds of makemore's perceptron train in the time that makemore's own script needs for one of them.

    python -m benchmarks.stacked_seeds [--repeats N] [--steps N] [--no-compile]

Milliseconds a step of the script as published (one seed), of our loop with one run alone, and of our loop with eight
seeds stacked and with four, the half of them that each of two cores gets; all on one thread, taking turns in one
process. Ours include drawing the batches and writing the log. CPU time is given beside wall time, for a shared machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from benchmarks.timing import alternate, as_dict, ratio, report, timing
from windtunnel.config import override
from windtunnel.runs.seeds import create_seeds
from windtunnel.training.data import open_task, train_examples
from windtunnel.training.events import Event, Step
from windtunnel.training.loop import resume
from windtunnel.training.machine import has_compiler
from windtunnel.training.recipes import makemore
from windtunnel.training.stack import resume_stacked

CLAIM = "eight seeds on two cores, four stacked on each, take no more wall time than makemore's script for one seed"
SCRIPT = "script, one seed"
LONG = 200_000


def script(steps: int) -> Callable[[], None]:
    """The training loop of makemore, part 3, as published; each call goes on for so many steps."""
    config = makemore("names")
    source = train_examples(config, open_task(config))
    rows = source.take(torch.arange(len(source)).numpy(), key=0)
    xs, ys = rows.ids.contiguous(), rows.targets[:, 0].contiguous()
    g = torch.Generator().manual_seed(2147483647)
    table, w1 = torch.randn((27, 10), generator=g), torch.randn((30, 200), generator=g) * (5 / 3) / 30**0.5
    b1, w2 = torch.randn(200, generator=g) * 0.01, torch.randn((200, 27), generator=g) * 0.01
    b2, gain, shift = torch.randn(27, generator=g) * 0, torch.ones(1, 200), torch.zeros(1, 200)
    running = [torch.zeros(1, 200), torch.ones(1, 200)]
    parameters = [table, w1, w2, b1, b2, gain, shift]
    for p in parameters:
        p.requires_grad = True

    def run() -> None:
        losses = []
        for _ in range(steps):
            ix = torch.randint(0, xs.shape[0], (32,), generator=g)
            embedded = table[xs[ix]]
            before = embedded.view(embedded.shape[0], -1) @ w1 + b1
            mean, std = before.mean(0, keepdim=True), before.std(0, keepdim=True)
            normal = gain * (before - mean) / std + shift
            with torch.no_grad():
                running[0] = 0.999 * running[0] + 0.001 * mean
                running[1] = 0.999 * running[1] + 0.001 * std
            loss = F.cross_entropy(torch.tanh(normal) @ w2 + b2, ys[ix])
            for p in parameters:
                p.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            for p in parameters:
                assert p.grad is not None
                p.data += -0.1 * p.grad
            losses.append(loss.log10().item())

    return run


def steps_of(events: Iterator[tuple[int, Event]], last: int, steps: int) -> Callable[[], None]:
    """Each call goes on until run number `last` has taken so many more steps."""
    goal = 0

    def run() -> None:
        nonlocal goal
        goal += steps
        for place, event in events:
            if place == last and isinstance(event, Step) and event.step >= goal:
                return
        raise RuntimeError("the runs have ended; take fewer repeats")

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2000, help="steps a turn, a multiple of 100")
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    compiled = has_compiler() and not given.no_compile
    config = override(
        makemore("names"),
        [f"train.steps={LONG}", f"train.eval_every={LONG}", f"train.save_every={LONG}", "train.threads=1"],
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:

        def ours(what: str, seeds: int, compile: bool) -> Callable[[], None]:
            settled = override(config, [f"train.compile={str(compile).lower()}"])
            folders = create_seeds(settled, range(seeds), Path(name) / what)
            together = resume_stacked(folders) if seeds > 1 else ((0, event) for event in resume(folders[0]))
            return steps_of(held.enter_context(closing(together)), seeds - 1, given.steps)

        rivals = {SCRIPT: script(given.steps), "alone, one seed": ours("alone", 1, False)}
        rivals |= {f"stacked, {n} seeds": ours(f"stack-{n}", n, compiled) for n in (4, 8)}
        first = {what: first_seconds(run) for what, run in rivals.items()}
        cpu: dict[str, list[float]] = {what: [] for what in rivals}
        timed = {what: on_cpu(run, cpu[what]) for what, run in rivals.items()}
        seconds = {what: [s / given.steps for s in taken] for what, taken in alternate(timed, given.repeats).items()}
    cpu = {what: [s / given.steps for s in taken[-given.repeats :]] for what, taken in cpu.items()}
    ratios = {what: (ratio(seconds, what, SCRIPT), ratio(cpu, what, SCRIPT)) for what in rivals}
    shown = Table("", "ms a step", "time / script's [95 %]", "CPU time / script's", "first turn, s")
    for what, (wall, busy) in ratios.items():
        interval = f"{wall.estimate:.2f} [{wall.low:.2f}, {wall.high:.2f}]"
        shown.add_row(what, f"{timing(seconds[what]).median * 1e3:.3f}", interval, f"{busy.estimate:.2f}",
                      f"{first[what]:.1f}")  # fmt: skip
    Console(file=sys.stderr).print(shown)
    result = as_dict(seconds, *(wall for wall, _ in ratios.values()))
    result |= {"cpu_ratios": [asdict(busy) for _, busy in ratios.values()], "first_turn_seconds": first}
    document = report(CLAIM, [{"compiled": compiled, "steps": given.steps, **result}], given.repeats)
    script_long = timing(seconds[SCRIPT]).median * LONG
    ours_long = timing(seconds["stacked, 4 seeds"]).median * LONG + first["stacked, 4 seeds"]
    document["long_run_seconds"] = {SCRIPT: script_long, "stacked, 4 seeds, with the first turn": ours_long}
    document["holds"] = ours_long <= script_long
    print(json.dumps(document, indent=2))


def first_seconds(run: Callable[[], None]) -> float:
    """Seconds of the first call, in which a stack is traced and compiled."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def on_cpu(run: Callable[[], None], taken: list[float]) -> Callable[[], None]:
    """The same call, noting the CPU seconds that it took."""

    def timed() -> None:
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)

    return timed


if __name__ == "__main__":
    main()
