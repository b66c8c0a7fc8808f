"""003-1.E02: the loss before training against that of a blind guess, and what a small last layer leaves saturated."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, exactly, signature, within
from windtunnel.experiments.makemore import GENERATOR, HERE, LADDER, config_of
from windtunnel.inspect.doctor.checks_of_layers import INITIAL_EXCESS
from windtunnel.inspect.doctor.initial_loss import culprit
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.models import MLP, build
from windtunnel.nn.norms import BatchNorm
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.batches import Batch, batch, examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLIND = math.log(27)
SATURATED = 0.99
NAIVE, TINY, UNIFORM = "naive", "output fix", "no output weights"
INITS: Mapping[str, Mapping[str, Any]] = {
    NAIVE: LADDER[NAIVE],
    TINY: LADDER[TINY],
    "tanh fix": LADDER["tanh fix"],
    "Kaiming": LADDER["Kaiming"],
    "batch norm": LADDER["batch norm"],
    UNIFORM: {**LADDER[TINY], "init_output": 0.0},
}
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


def initial_loss(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Does a tuned initialisation start at the loss of a blind guess?"""
    n_seeds, size = (8, 4096) if setting.quick else (32, 16_384)
    subject = recipe_subject("", config_of({}))
    rows = batch(examples(subject.store, "train", 3, last_only=True), size, setting.seed, 0)
    found: dict[str, Start] = {}
    for name, settings in INITS.items():
        yield Progress("initialisations", len(found), len(INITS))
        found[name] = begin(settings, rows, range(setting.seed, setting.seed + n_seeds))
    return Outcome(
        title="The loss before training",
        what=f"The lecture's initialisations, {n_seeds} seeds each, on the same {size:,} examples of train; {HERE}. "
        "The losses of single batches of 32 are under the weights of the published script, which no corpus changes.",
        settings={"seeds": n_seeds, "examples": size, "generator": GENERATOR, "ln V": BLIND},
        tables=(table(found),),
        figures={"losses": loss_figure(found), "hidden": hidden_figure(found)},
        claims=claims(found),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def begin(settings: Mapping[str, Any], rows: Batch, seeds: range) -> Start:
    """Measure one initialisation; batch norm normalises by the examples at hand, as in training."""
    config = config_of(settings).model
    looked = [look(build(config, seed), rows) for seed in seeds]
    script = build(config, 0, torch.Generator().manual_seed(GENERATOR))
    nats = look(script, rows)[0]
    first = Batch(rows.ids[:32], rows.targets[:32])
    model = build(config, seeds[0])
    excess = looked[0][0].mean() - BLIND
    cause = culprit(model, first)[0] if excess > INITIAL_EXCESS else ""
    return Start(
        [float(own.mean()) for own, _ in looked],
        [float((np.abs(hidden) > SATURATED).mean()) for _, hidden in looked],
        nats.reshape(-1, 32).mean(1),
        looked[0][1],
        cause,
    )


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


def claims(found: Mapping[str, Start]) -> tuple[Claim, ...]:
    """The printed losses, whether they are that of a blind guess, and what they do not show."""
    tiny, uniform = mean_interval(found[TINY].losses), mean_interval(found[UNIFORM].losses)
    saturated = mean_interval(found[TINY].saturated)
    others = [name for name in found if name != NAIVE and found[name].cause]
    return (
        printed("003-1.E02", NAIVE, found[NAIVE]),
        printed("003-1.E02", TINY, found[TINY]),
        Claim(
            "003-1.E02", "without output weights the loss is ln 27, whatever lies below", "3.2958",
            f"{uniform}", within(uniform, BLIND - SAME, BLIND + SAME), {"loss": uniform},
        ),
        Claim(
            "003-1.E02", "the doctor finds the naive start, and names the last layer", "",
            f"cause {found[NAIVE].cause or 'none'}; of {len(found) - 1} others it finds {len(others)}",
            exactly(found[NAIVE].cause == "output.weight" and not others),
            {name: start.cause for name, start in found.items()},
        ),
        Claim(
            "E20", "W2 x .01 starts exactly at this loss (to its printed digits)", "3.2958",
            f"{tiny}, above it by {tiny.estimate - BLIND:.4f}", within(tiny, BLIND - SAME, BLIND + SAME),
            {"loss": tiny},
        ),
        Claim(
            "E20", "a tuned first loss leaves 64 % of |h| > .99 as they were (verdict within 5 points)", "64 %",
            f"share {saturated}", within(saturated, 0.59, 0.69), {"share": saturated},
        ),
    )  # fmt: skip


def printed(id: str, name: str, start: Start) -> Claim:
    """Whether a number printed of one batch is one that these weights give: among the middle 95 % of batches."""
    low, high = np.quantile(start.batches, [0.025, 0.975])
    value = PUBLISHED[name]
    return Claim(
        id, f"{name}: the first batch of 32 has the loss {value}", f"{value}",
        f"{HERE}, the script's weights: 95 % of batches {low:.4f} to {high:.4f}, mean {start.batches.mean():.4f}",
        exactly(bool(low <= value <= high)), {"low": low, "high": high, "mean": float(start.batches.mean())},
    )  # fmt: skip


def table(found: Mapping[str, Start]) -> Table:
    rows = []
    for name, start in found.items():
        loss, saturated = mean_interval(start.losses), mean_interval(start.saturated)
        rows.append((name, f"{PUBLISHED.get(name, '-')}", short(loss), f"{loss.estimate - BLIND:+.4f}",
                     short(saturated), start.cause or "-"))  # fmt: skip
    heads = ("initialisation", "printed", "loss", "above ln 27", "share of |h| > .99", "cause, by the doctor")
    return Table("Before training, means over seeds with 95 % intervals", heads, tuple(rows))


def short(e: Estimate) -> str:
    return f"{e.estimate:.4f} [{e.low:.4f}, {e.high:.4f}]"


def loss_figure(found: Mapping[str, Start]) -> Figure:
    """How far each seed begins above a blind guess; one at it has no place on a log scale and stands at the left."""
    with drawing(8.0, 3.6) as figure:
        axes = figure.subplots()
        for row, start in enumerate(found.values()):
            excess = np.maximum(np.array(start.losses) - BLIND, 1e-5)
            axes.plot(excess, [row] * len(excess), "o", color=DEV if start.cause else TRAIN, alpha=0.5)
        axes.axvline(INITIAL_EXCESS, color=QUIET, linestyle="--", label=f"the doctor speaks up from {INITIAL_EXCESS:g}")
        axes.set_yticks(range(len(found)), list(found))
        axes.set(xscale="log", xlim=(5e-6, 60), ylim=(len(found) - 0.5, -0.5))
        axes.set_xlabel(f"loss before training above ln 27 = {BLIND:.4f}, nats; one dot a seed; at the edge: not above")
        axes.legend(loc="lower right")
    return figure


def hidden_figure(found: Mapping[str, Start]) -> Figure:
    """What the hidden units put out before training, first seed."""
    with drawing(10.0, 2.8) as figure:
        shown = {name: start for name, start in found.items() if name != UNIFORM}
        panels = figure.subplots(1, len(shown), sharey=True)
        for axes, (name, start) in zip(panels, shown.items(), strict=True):
            values = start.hidden[:4096].ravel()
            axes.hist(values, bins=50, range=(-1, 1), weights=np.full(len(values), 1 / len(values)), color=TRAIN)
            axes.set_title(f"{name}\n{100 * start.saturated[0]:.0f} % beyond .99", fontsize=9)
            axes.set_xlabel("tanh")
        panels[0].set_ylabel("share")
    return figure
