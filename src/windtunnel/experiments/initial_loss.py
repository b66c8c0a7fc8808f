"""003-1.E02: the loss before training against that of a blind guess, and what a small last layer leaves saturated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, Table, draw, table
from windtunnel.experiments.makemore import GENERATOR, HERE, LADDER, config_of, examples_of
from windtunnel.inspect.doctor.checks_of_layers import INITIAL_EXCESS
from windtunnel.inspect.doctor.initial_loss import culprit
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.models import MLP, build
from windtunnel.nn.norms import BatchNorm
from windtunnel.report.charts import dots, histograms
from windtunnel.stats.intervals import mean_interval
from windtunnel.text.batches import Batch, batch

ROW, E20 = Row("003-1.E02"), Row("E20")
BLIND = math.log(27)
SATURATED = 0.99
NAIVE, TINY, UNIFORM = "naive", "output fix", "no output weights"
INITS: Mapping[str, Mapping[str, Any]] = {**LADDER, UNIFORM: {**LADDER[TINY], "init_output": 0.0}}
PUBLISHED = {NAIVE: 27.8817, TINY: 3.3322, UNIFORM: 3.2958}
SAME = 5e-5
"""Half of the last digit that was printed."""


@dataclass(frozen=True)
class Start:
    """A model before training: loss (S,) and share of saturated hidden values (S,) of S seeds on the same examples.

    batches: the losses of many batches of 32 under the weights of the published script's generator.
    hidden: the hidden values of the first seed. cause: of the doctor's check, "" where it finds nothing.
    """

    losses: list[float]
    saturated: list[float]
    batches: np.ndarray
    hidden: np.ndarray
    cause: str


def initial_loss(at: Setting) -> Findings:
    """The loss before training.

    The lecture's initialisations began on the same examples of train, several seeds each; measured on `names`. The
    losses of single batches of 32 are under the weights of the published script, which no corpus changes.
    """
    seeds, size = at.seeds(32, quick=8), at.size(16_384, quick=4096)
    yield Given({"seeds": len(seeds), "examples": size, "generator": GENERATOR, "ln V": BLIND})
    subject = recipe_subject("", config_of({}))
    rows = batch(examples_of(subject), size, at.seed, 0)
    found: dict[str, Start] = {}
    for name, settings in INITS.items():
        yield Progress("initialisations", len(found), len(INITS))
        found[name] = begin(settings, rows, seeds)
    yield from claims(found)
    yield start_table(found)
    yield loss_figure(found)
    yield hidden_figure(found)


def begin(settings: Mapping[str, Any], rows: Batch, seeds: range) -> Start:
    """Measure one initialisation; batch norm normalises by the examples at hand, as in training."""
    config = config_of(settings).model
    looked = [look(build(config, seed), rows) for seed in seeds]
    nats = look(build(config, 0, torch.Generator().manual_seed(GENERATOR)), rows)[0]
    first = Batch({"ids": rows.ids[:32]}, rows.targets[:32])
    excess = looked[0][0].mean() - BLIND
    cause = culprit(build(config, seeds[0]), first)[0] if excess > INITIAL_EXCESS else ""
    losses = [float(own.mean()) for own, _ in looked]
    saturated = [float((np.abs(hidden) > SATURATED).mean()) for _, hidden in looked]
    return Start(losses, saturated, nats.reshape(-1, 32).mean(1), looked[0][1], cause)


def look(model: Any, rows: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each example in nats (N,) and the hidden values (N, d_hidden)."""
    assert isinstance(model, MLP)
    kept = []
    handle = model.layers[0].register_forward_hook(lambda module, given, put_out: kept.append(put_out))
    for module in model.eval().modules():
        if isinstance(module, BatchNorm):
            module.train()
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(model(rows.ids)[:, 0], rows.targets[:, 0], reduction="none")
    handle.remove()
    return nats.double().numpy(), kept[0].flatten(0, 1).numpy()


def claims(found: Mapping[str, Start]) -> Findings:
    """The printed losses, whether they are that of a blind guess, and what they do not show."""
    for name in (NAIVE, TINY):
        yield printed(name, found[name])
    tiny, uniform = mean_interval(found[TINY].losses), mean_interval(found[UNIFORM].losses)
    at_blind = BLIND - SAME, BLIND + SAME
    yield ROW.within("without output weights the loss is ln 27, whatever lies below", uniform, *at_blind, "3.2958")
    others = [name for name in found if name != NAIVE and found[name].cause]
    shown = f"cause {found[NAIVE].cause or 'none'}; of {len(found) - 1} others it finds {len(others)}"
    holds, causes = found[NAIVE].cause == "output.weight" and not others, {n: start.cause for n, start in found.items()}
    yield ROW.shows("the doctor finds the naive start, and names the last layer", holds, shown, causes=causes)
    shown = f"{{}}, above it by {tiny.estimate - BLIND:.4f}"
    yield E20.within("W2 x .01 starts exactly at this loss (to its printed digits)", tiny, *at_blind, "3.2958", shown)
    statement = "a tuned first loss leaves 64 % of |h| > .99 as they were (verdict within 5 points)"
    yield E20.within(statement, mean_interval(found[TINY].saturated), 0.59, 0.69, "64 %", "share {}")


def printed(name: str, start: Start) -> Claim:
    """Whether a number printed of one batch is one that these weights give: among the middle 95 % of batches."""
    low, high = np.quantile(start.batches, [0.025, 0.975])
    value, mean = PUBLISHED[name], float(start.batches.mean())
    statement = f"{name}: the first batch of 32 has the loss {value}"
    shown = f"{HERE}, the script's weights: 95 % of batches {low:.4f} to {high:.4f}, mean {mean:.4f}"
    return ROW.shows(statement, bool(low <= value <= high), shown, f"{value}", low=low, high=high, mean=mean)


def start_table(found: Mapping[str, Start]) -> Table:
    """Of every initialisation its loss and what it saturates."""
    means = {name: mean_interval(start.losses) for name, start in found.items()}
    rows = (
        (name, f"{PUBLISHED.get(name, '-')}", means[name], f"{means[name].estimate - BLIND:+.4f}",
         mean_interval(start.saturated), start.cause or None)
        for name, start in found.items()
    )  # fmt: skip
    heads = ("initialisation", "printed", "loss", "above ln 27", "share of |h| > .99", "cause, by the doctor")
    return table("Before training, means over seeds with 95 % intervals", heads, rows)


def loss_figure(found: Mapping[str, Start]) -> Drawing:
    """How far each seed begins above a blind guess; one at it has no place on a log scale and stands at the left."""
    excess = {name: np.maximum(np.array(start.losses) - BLIND, 1e-5) for name, start in found.items()}
    groups = {
        "the doctor finds nothing": {name: excess[name] for name, start in found.items() if not start.cause},
        "the doctor finds a cause": {name: excess[name] for name, start in found.items() if start.cause},
    }
    panel = dots(
        groups, list(found), down={f"it speaks up from {INITIAL_EXCESS:g}": INITIAL_EXCESS}, log="x", xlim=(5e-6, 60),
        xlabel=f"loss before training above ln 27 = {BLIND:.4f}, nats; one dot a seed; at the edge: not above",
    )  # fmt: skip
    return draw("losses", panel, size=(8.0, 4.0))


def hidden_figure(found: Mapping[str, Start]) -> Drawing:
    """What the hidden units put out before training, first seed."""
    panels = [
        histograms({"": start.hidden[:4096]}, title=f"{name}: {100 * start.saturated[0]:.0f} % beyond .99",
                   xlabel="tanh", xlim=(-1, 1))
        for name, start in found.items() if name != UNIFORM
    ]  # fmt: skip
    return draw("hidden", *panels, share="y")
