"""Where training and decoding stand under the machine's roof: its matrix products and its memory, both measured.

    python -m benchmarks.roofline [--figure FILE.png]

Reads benchmarks/results/training_speed.json and decoding*.json, and measures the roofs. A point's height is the FLOP/s
reached; its place is FLOPs over the bytes that must be moved at least: for a training step weights, gradients and both
moments of AdamW in float32, read and written (28 bytes a parameter), and the residual stream and what a block keeps for
its backward pass in bfloat16 (34 numbers a token, layer and width, Korthikanti et al. 2022, arXiv 2205.05198, section
4.1, without attention's T x T); for a token of decoding the weights as they are stored.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.decoding import BYTES, read_rate
from benchmarks.decoding import CASES as DECODING
from benchmarks.timing import report
from benchmarks.training_speed import CASES, OURS, SMALL_STEPS
from windtunnel.models.cost import training_flops_per_token
from windtunnel.training import machine

CLAIM = "each shape stands near one of the two roofs of the machine: its matrix products or its memory"
BESIDE: dict[str, Any] = {
    "textcoords": "offset points", "zorder": 3, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}  # fmt: skip
"""How a label stands beside its point: on white, so that no line runs through it."""
RESULTS = Path(__file__).parent / "results"


def points() -> list[dict[str, Any]]:
    """What was measured: training steps at their best setting, and decoding of one sequence."""
    found = []
    for result in json.loads((RESULTS / "training_speed.json").read_text(encoding="utf-8"))["results"]:
        case = next(case for case in CASES.values() if str(case) == result["case"])
        if case.n_steps < SMALL_STEPS:  # another way to compile the same shape
            continue
        ways = [times["median"] for name, times in result["milliseconds"].items() if name.startswith(OURS)]
        n_tokens = case.batch_size * case.context_length
        flops = training_flops_per_token(case.config, case.context_length) * n_tokens
        moved = 28 * case.config.model.n_parameters() + 34 * n_tokens * case.n_layers * case.d_model
        found.append({"what": f"train {case.n_layers} x {case.d_model}", "intensity": flops / moved,
                      "flops_per_second": flops / min(ways) * 1e3})  # fmt: skip
    decoding = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("decoding*.json"))]
    for result in (result for document in decoding for result in document["results"]):
        n = DECODING[result["shape"]].config.model.n_parameters()
        for kind, size in BYTES.items():
            if kind in result["tokens_per_second"]:
                reached = 2 * n * result["tokens_per_second"][kind]
                found.append({"what": f"decode {result['shape']}, {kind}", "intensity": 2 / size,
                              "flops_per_second": reached})  # fmt: skip
    return found


def with_roofs(found: list[dict[str, Any]], roofs: dict[str, float]) -> list[dict[str, Any]]:
    """Each point with the height of the roof above it, and its share of that."""
    for point in found:
        peak = roofs["bf16" if point["what"].startswith("train") else "fp32"]
        point["roof"] = min(peak, point["intensity"] * roofs["memory"])
        point["share_of_roof"] = point["flops_per_second"] / point["roof"]
    return found


def figure(found: list[dict[str, Any]], roofs: dict[str, float], path: Path) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    from windtunnel.report.charts import DEV, QUIET, STYLE, TRAIN
    from windtunnel.report.figures import save_figure

    with plt.rc_context(STYLE):
        drawn, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
        x = np.geomspace(0.2, 2000, 200)
        for kind, style in (("bf16", "-"), ("fp32", "--")):
            y = np.minimum(roofs[kind], x * roofs["memory"])
            axis.loglog(x, y, style, color=QUIET, label=f"roof: {kind} products and memory")
        for point in found:
            colour = TRAIN if point["what"].startswith("train") else DEV
            axis.plot(point["intensity"], point["flops_per_second"], "o", color=colour)
        lowest: dict[float, float] = {}  # no label of a column stands below it
        for point in sorted(found, key=lambda point: point["flops_per_second"]):
            what, x_point, y_point = point["what"], point["intensity"], point["flops_per_second"]
            if what.startswith("train"):
                side = -1 if x_point < 300 else 1  # the largest stands at the right
                ha = "right" if side < 0 else "left"
                axis.annotate(what, (x_point, y_point), (7 * side, -3), **BESIDE, ha=ha, va="bottom")
            else:
                y_label = max(y_point, lowest.get(x_point, 0.0))
                lowest[x_point] = 1.12 * y_label
                shape = what.split(",")[0].removeprefix("decode ")
                axis.annotate(shape, (x_point, y_label), (6, 0), **BESIDE, va="center", fontsize=7)
        under = 0.75 * min(point["flops_per_second"] for point in found)
        for kind, size in BYTES.items():
            axis.text(2 / size, under, kind, ha="center", va="top")
        axis.plot([], [], "o", color=TRAIN, label="training")
        axis.plot([], [], "o", color=DEV, label="decoding, by the form of the weights")
        axis.set_xlabel("FLOPs a byte that must be moved")
        axis.set_ylabel("FLOP/s")
        axis.set_title("Where training and decoding stand under the machine's roofs")
        axis.legend(loc="lower right")
        save_figure(drawn, path)


def table(found: list[dict[str, Any]]) -> Table:
    shown = Table("what", "FLOPs a byte", "GFLOP/s", "share of the roof above")
    for point in found:
        numbers = (f"{point['intensity']:.1f}", f"{point['flops_per_second'] / 1e9:.1f}")
        shown.add_row(point["what"], *numbers, f"{point['share_of_roof']:.0%}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    threads = torch.get_num_threads()
    roofs = {kind: machine.peak_flops(kind, threads) for kind in ("fp32", "bf16")} | {"memory": read_rate()}
    found = with_roofs(points(), roofs)
    Console(file=sys.stderr).print(table(found))
    if given.figure:
        figure(found, roofs, given.figure)
    print(json.dumps({**report(CLAIM, found, 1), "roofs": roofs}, indent=2))


if __name__ == "__main__":
    main()
