"""Claim: the page paints 500 runs in under a second, and a curve of 100,000 steps moves at 30 frames a second.

    python -m benchmarks.page [--runs 500] [--steps 100000]

Serves a folder of runs, and opens the page in Chromium without a graphics card: first when no run has been read, then
when all have. A curve is asked for before and after its log has been read, and is then dragged for two seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from tests.serve.browser import Browser, Tab
from tests.serve.served import make_run, running

from benchmarks.timing import report
from windtunnel.serve.index import identity
from windtunnel.text.tokenizers import characters_tokenizer
from windtunnel.training.events import Evaluation, Step, Stopped, to_line

CLAIM = "500 runs are painted in under a second, and a curve of 100,000 steps moves at 30 frames a second"
SEEDS, STEPS_OF_MANY = 5, 1000
MOVE = """(async () => {
  const over = document.querySelector(".u-over"), box = over.getBoundingClientRect();
  const send = (type, x, to) => to.dispatchEvent(new MouseEvent(type, {
    bubbles: true, clientX: box.x + x, clientY: box.y + 50, shiftKey: true, button: 0, buttons: 1 }));
  send("mousedown", 300, over);
  let n = 0;
  for (const begin = performance.now(); performance.now() - begin < 2000; n++) {
    await new Promise(requestAnimationFrame);
    send("mousemove", 300 - (n % 200), window);
  }
  send("mouseup", 100, window);
  return n / 2;
})()"""


def make_folder(root: Path, n_runs: int, n_steps: int) -> None:
    """Runs of 1,000 steps in groups of 5 seeds, and one long one."""
    letters = characters_tokenizer("abcdefghijklmnopqrstuvwxyz", end=True)
    for seed in range(SEEDS):
        write_log(make_run(root / f"group-0/seed-{seed}", letters, seed=seed, made=None).folder, STEPS_OF_MANY)
    for group in range(1, n_runs // SEEDS):
        shutil.copytree(root / "group-0", root / f"group-{group}")
    write_log(make_run(root / "long", letters, made=None).folder, n_steps)


def write_log(folder: Path, n_steps: int) -> None:
    """The events of a training."""
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, n_steps + 1):
            file.write(to_line(Step(step, 2 + 1 / step + 0.01 * (step * 7919 % 101), 1e-3, 0.5, 100, 0.01)))
        file.write(to_line(Evaluation(n_steps, "dev", {"loss": 2.0}, 1000, True)))
        file.write(to_line(Stopped(n_steps, "finished")))


def seconds(act: Callable[[], object]) -> float:
    """How long something takes."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def opened(tab: Tab, url: str, n_runs: int) -> dict[str, float]:
    """Seconds until the page paints first, shows a row, and shows all."""
    tab.go(url)
    begin = time.perf_counter()
    tab.wait("document.querySelector('.runs tbody tr')")
    row = time.perf_counter() - begin
    tab.wait(f"[...document.querySelectorAll('.controls .quiet')].some((one) => one.textContent === '{n_runs} runs')")
    paint = tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return {"first_paint": paint / 1e3, "first_row": row, "all_rows": time.perf_counter() - begin}


def measure(n_runs: int, n_steps: int) -> dict[str, Any]:
    """All of it, once."""
    browser = Browser()
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), n_runs, n_steps)
        with running(Path(folder)) as server:
            tab = browser.tab()
            many = n_runs // SEEDS * SEEDS + 1
            cold, warm = opened(tab, server.url, many), opened(tab, server.url, many)
            curve = f"{server.url}/page/curves?runs={identity('long')}&width=1200"
            ask = lambda: httpx.get(curve, timeout=60).raise_for_status()  # noqa: E731
            unread, read = seconds(ask), seconds(ask)
            tab.go(f"{server.url}/#/runs?s={identity('long')}")
            tab.wait("document.querySelector('.u-over')")
            frames = tab.run(MOVE)
    browser.close()
    times = {f"{name}_{when}": found[name] for when, found in (("unread", cold), ("read", warm)) for name in found}
    row = {**times, "curve_unread": unread, "curve_read": read, "frames_per_second": frames}
    holds = max(cold["first_paint"], warm["first_paint"], warm["all_rows"]) < 1 and frames >= 30
    return {**report(CLAIM, [row], 1), "runs": many, "steps": n_steps, "holds": holds}


def main() -> None:
    """A table on stderr, JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=100_000)
    asked = parser.parse_args()
    found = measure(asked.runs, asked.steps)
    table = Table("measure", "seconds, or frames a second")
    for name, value in found["results"][0].items():
        table.add_row(name.replace("_", " "), f"{value:.3g}")
    Console(stderr=True).print(table)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
