"""How cost grows: speed and memory of training against context, batch, vocabulary and layers, with the lines of theory.

    python -m benchmarks.growth [--quick] [--figure FILE.png]

Each point is a process of its own: uncompiled steps of a decoder of 2 layers x 128 with rotary positions, one row of
256 tokens and 256 symbols unless the point says otherwise; the median of 5 steps, and the most memory the process held
beyond what it held before the model was built. Theory of time: an overhead and a rate, fitted in each panel, for the
FLOPs (6 a weight and token, attention T x T, or T x twice the window, as it is computed in blocks). Theory of memory: a
straight line through the smallest and the largest point, since the fused attention kernel never holds T x T scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CLAIM = "a token costs more with T under full attention and the same under a window; memory grows in a straight line"
WINDOW = 64
WARMUP, STEPS = 1, 5


@dataclass(frozen=True)
class Point:
    """One shape of a model and its batch."""

    context: int = 256
    batch: int = 1
    vocabulary: int = 256
    layers: int = 2
    window: int | None = None

    def flops(self) -> float:
        """Of a training step, matrix products only; a causal kernel that skips the hidden half does fewer."""
        seen = self.context if self.window is None else min(self.context, 2 * self.window)
        a_token = self.layers * (12 * 128**2 * 2 + 4 * 128 * seen) + 2 * 128 * self.vocabulary
        return 3.0 * a_token * self.batch * self.context


PANELS: dict[str, list[Point]] = {
    "context": [Point(context=2**k) for k in range(6, 14)],
    "context, window 64": [Point(context=2**k, window=WINDOW) for k in range(6, 14)],
    "batch": [Point(batch=2**k) for k in range(7)],
    "vocabulary": [Point(vocabulary=2**k) for k in range(8, 17, 2)],
    "layers": [Point(layers=2**k) for k in range(6)],
}
QUANTITY = {"context, window 64": "context"}


def measure(point: Point) -> dict[str, float]:
    """In this process: seconds a step, and bytes that the model and its steps added."""
    import time

    import torch

    from windtunnel.models import TransformerConfig, build
    from windtunnel.tasks.cross_entropy import training_loss_sum
    from windtunnel.training import machine
    from windtunnel.training.optimizer import OptimizerConfig, build_optimizer
    from windtunnel.training.step import update

    config = TransformerConfig(
        vocab_size=point.vocabulary,
        context_length=point.context,
        n_layers=point.layers,
        n_heads=2,
        d_model=128,
        position="rope",
        window=point.window,
        dropout=0.0,
    )
    before = machine.peak_memory()
    model = build(config, seed=0).train()
    optimizer = build_optimizer(model, OptimizerConfig())
    ids = torch.randint(0, point.vocabulary, (point.batch, point.context))
    times = []
    for _ in range(WARMUP + STEPS):
        begin = time.perf_counter()
        with machine.autocast("bf16" if machine.has_fast_bf16() else "fp32"):
            logits_BTV = model(ids)
        (training_loss_sum(logits_BTV, ids) / ids.numel()).backward()
        update(model, optimizer, lr=1e-3, clip=1.0)
        times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times[WARMUP:]), "bytes": machine.peak_memory() - before}


def measured_apart(point: Point) -> dict[str, float]:
    """`measure` in a process of its own, whose peak memory no other point has raised."""
    words = [sys.executable, "-m", "benchmarks.growth", "--point", json.dumps(asdict(point))]
    found: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return found


def with_theory(name: str, points: list[Point], found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Each point with its speed, memory and what theory says of them."""
    quantity = QUANTITY.get(name, name)
    seconds = fitted([point.flops() for point in points], [one["seconds"] for one in found])
    sizes = [float(getattr(point, quantity)) for point in points]
    slope = (found[-1]["bytes"] - found[0]["bytes"]) / (sizes[-1] - sizes[0])
    return [
        {
            "panel": name,
            quantity: getattr(point, quantity),
            "tokens_a_second": point.batch * point.context / one["seconds"],
            "tokens_a_second_theory": point.batch * point.context / expected,
            "megabytes": one["bytes"] / 2**20,
            "megabytes_theory": (found[0]["bytes"] + slope * (size - sizes[0])) / 2**20,
            **one,
        }
        for point, one, size, expected in zip(points, found, sizes, seconds, strict=True)
    ]


def fitted(flops: list[float], seconds: list[float]) -> list[float]:
    """Seconds by overhead + FLOPs / rate, the two constants fitted to relative errors, neither below zero."""
    import numpy as np
    from scipy.optimize import nnls

    terms = np.stack([np.ones(len(flops)), np.array(flops)], axis=1)
    scale = terms.max(axis=0) * np.ones(2)
    constants, _ = nnls(terms / scale / np.array(seconds)[:, None], np.ones(len(flops)))
    return list(terms / scale @ constants)


def figure(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib.pyplot as plt

    from windtunnel.report.charts import DEV, STYLE, TRAIN
    from windtunnel.report.figures import save_figure

    columns = {"context": ["context", "context, window 64"], "batch": ["batch"]}
    columns |= {"vocabulary": ["vocabulary"], "layers": ["layers"]}
    with plt.rc_context(STYLE):
        drawn, axes = plt.subplots(2, len(columns), figsize=(13, 6), sharex="col", layout="constrained")
        for column, (quantity, panels) in enumerate(columns.items()):
            for name, colour in zip(panels, (TRAIN, DEV), strict=False):
                rows = [row for row in results if row["panel"] == name]
                x = [row[quantity] for row in rows]
                label = {"context": "full attention", "context, window 64": "window of 64"}.get(name, "measured")
                for axis, key in zip(axes[:, column], ("tokens_a_second", "megabytes"), strict=True):
                    axis.loglog(x, [row[key] for row in rows], "o", color=colour, base=2, label=label)
                    axis.loglog(x, [row[f"{key}_theory"] for row in rows], "-", color=colour, alpha=0.6, base=2)
            axes[1, column].set_xlabel({"batch": "rows of a batch"}.get(quantity, quantity))
            axes[1, column].set_xticks(x, [f"{value:,}" for value in x], rotation=45)
        axes[0, 0].set_ylabel("tokens a second")
        axes[1, 0].set_ylabel("memory, MiB")
        for axis in axes.flat:
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.minorticks_off()
        axes[0, 0].legend()
        drawn.suptitle("How the cost of training grows: points are measured, lines are theory")
        save_figure(drawn, path)


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table(title="training, 2 layers x 128")
    for column in ("what grows", "to", "tokens/s", "theory", "MiB", "theory"):
        shown.add_column(column, justify="left" if column == "what grows" else "right")
    for row in results:
        to = row[QUANTITY.get(row["panel"], row["panel"])]
        numbers = [row[k] for k in ("tokens_a_second", "tokens_a_second_theory", "megabytes", "megabytes_theory")]
        shown.add_row(row["panel"], f"{to:,}", *[f"{number:,.0f}" for number in numbers])
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the three smallest points of each panel")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print(json.dumps(measure(replace(Point(), **given.point))))
        return
    from benchmarks.timing import report

    results = []
    for name, points in PANELS.items():
        chosen = points[:3] if given.quick else points
        results += with_theory(name, chosen, [measured_apart(point) for point in chosen])
    Console(file=sys.stderr).print(table(results))
    if given.figure:
        figure(results, given.figure)
    print(json.dumps(report(CLAIM, results, STEPS), indent=2))


if __name__ == "__main__":
    main()
