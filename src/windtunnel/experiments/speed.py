"""Tokens a second of variants of a model, and the power with which a cost grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from windtunnel.experiments.frame import Drawing, Given, Progress, Setting, Steps, Table, draw, table
from windtunnel.inspect.speed import DECODED, decoding, take_turns, training
from windtunnel.models import TransformerConfig, build
from windtunnel.report.charts import lines


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
