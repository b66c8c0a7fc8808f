"""003-2.E02: batch norm folded into the weights of a trained mlp of three hidden layers, and the bias before it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature, within
from windtunnel.experiments.makemore import HERE, config_of
from windtunnel.inspect.doctor.activations import activations, settled
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.short_training import beginning, train_copy
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.inspect.fold import Agreement, agreement, fold
from windtunnel.models import MLP, build
from windtunnel.nn.norms import BatchNorm
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.batches import batch, examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, LAYERS = 8000, 3
SETTINGS = {"n_layers": LAYERS}
SINGLE, DOUBLE = 1e-4, 1e-12
"""Rounding of logits near 10 through four layers: some hundred units in the last place of float32 and float64."""


@dataclass(frozen=True)
class Kept:
    """One model and its folded self on the whole dev split, in float32 and in float64."""

    single: Agreement
    double: Agreement
    forgetful: Agreement
    """Against a folding that leaves gain and shift out."""
    n_before: int
    n_after: int


def fold_batch_norm(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Is a trained mlp the same function once its batch norm is folded away?"""
    n_seeds, steps, repeats = (2, 60, 3) if setting.quick else (8, STEPS, 31)
    settings = {**SETTINGS, "d_hidden": 48} if setting.quick else SETTINGS
    trained: list[MLP] = []
    found: dict[str, list[Kept]] = {"untrained": [], "trained": []}
    biases: list[Gradient] = []
    for i in range(n_seeds):
        yield Progress("trained and folded", i, n_seeds)
        subject = recipe_subject("", config_of(settings, steps).replace(seed=setting.seed + i))
        source = examples(subject.store, "train", 3, last_only=True)
        done = train_copy(subject.model, subject.config, source, steps, beginning(subject.config, steps)).model
        assert isinstance(done, MLP)
        trained.append(done)
        found["trained"].append(compare(done, subject))
        some = batch(source, 2048, setting.seed + i, 0)
        found["untrained"].append(compare(settled(subject.model.eval(), some.ids), subject))
        useless = build(config_of({"hidden_bias": True}).model, setting.seed + i)
        flow = gradient_flow(useless, batch(source, 32, setting.seed + i, 0))
        biases.append(next(g for g in flow if g.name == "layers.0.linear.bias"))
    times = alternating(trained[0], fold(trained[0]), subject, repeats)
    gains = torch.cat([norm.weight.detach() for norm in norms(trained[0])])
    return Outcome(
        title="Batch norm folded into the weights",
        what=f"Mlps with {LAYERS} hidden layers were trained {steps:,} steps, {n_seeds} seeds, and each compared with "
        f"its folded self on every prediction of the dev split; {HERE}.",
        settings={"steps": steps, "seeds": n_seeds, **settings, "gains of seed 0": f"{gains.min():.3f} to "
                  f"{gains.max():.3f}", "threads": torch.get_num_threads()},
        tables=(kept_table(found["trained"], times), bias_table(biases)),
        figures={"activations": layer_figure(trained[0], subject), "differences": difference_figure(found)},
        claims=(*fold_claims(found, gains), speed_claim(times), bias_claim(biases)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )  # fmt: skip


def norms(model: MLP) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


def forgetful(model: MLP) -> MLP:
    """The model folded by one who forgets gain and shift."""
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for norm in norms(plain):
            norm.weight.fill_(1)
            norm.bias.fill_(0)
    return fold(plain)


def compare(model: torch.nn.Module, subject: Subject) -> Kept:
    """A model against its folded self on the dev split."""
    assert isinstance(model, MLP)
    folded, double = fold(model), copy.deepcopy(model).double()
    sizes = [sum(p.numel() for p in one.parameters()) for one in (model, folded)]
    exact = agreement(double, fold(double), subject.store)
    return Kept(
        agreement(model, folded, subject.store), exact, agreement(model, forgetful(model), subject.store), *sizes
    )


def alternating(one: MLP, other: MLP, subject: Subject, repeats: int) -> list[tuple[float, float]]:
    """Seconds of a pass of each over the first 8,192 examples of train, by turns, in pairs."""
    ids = batch(examples(subject.store, "train", 3, last_only=True), 8192, 0, 0).ids
    one.eval(), other.eval()

    def seconds(model: Callable[[torch.Tensor], torch.Tensor]) -> float:
        begin = time.perf_counter()
        model(ids)
        return time.perf_counter() - begin

    with torch.no_grad():
        seconds(one), seconds(other)
        return [(seconds(one), seconds(other)) for _ in range(repeats)]


def fold_claims(found: dict[str, list[Kept]], gains: torch.Tensor) -> tuple[Claim, ...]:
    """The same function, in both precisions and in every choice; and what an untrained model would have shown."""
    kept = found["trained"]
    same, n = sum(k.single.same for k in kept), sum(k.single.n for k in kept)
    blind = max(k.forgetful.largest for k in found["untrained"])
    seen = min(k.forgetful.largest for k in kept)
    return (
        equal("003-2.E02", "trained: the same logits in float32", "4.8e-7 to 1.7e-6, untrained, 1 layer",
              [k.single.largest for k in kept], SINGLE),
        equal("003-2.E02", "trained: the same logits in float64", "3.6e-15", [k.double.largest for k in kept], DOUBLE),
        Claim("003-2.E02", "the most probable token is the same everywhere", "",
              f"{same:,} of {n:,} predictions of {len(kept)} models", exactly(same == n), {"same": same, "n": n}),
        Claim("E24", "a comparison with gain 1 and shift 0 proves the folding", "4.8e-7",
              f"one that forgets gain and shift differs by {blind:.1e} there, and by {seen:.2g} or more after training "
              f"(gains {float(gains.min()):.2f} to {float(gains.max()):.2f})",
              exactly(blind > SINGLE), {"untrained": blind, "trained": seen}),
    )  # fmt: skip


def speed_claim(times: Sequence[tuple[float, float]]) -> Claim:
    """Whether the folded model is faster; the machine decides."""
    ratio = speed_up(times)
    return Claim("003-2.E02", "the folded model is faster", "", f"times as fast: {ratio}",
                 within(ratio, 1, float("inf")), {"ratio": ratio})  # fmt: skip


def speed_up(times: Sequence[tuple[float, float]]) -> Estimate:
    """Before over after, pair by pair."""
    return mean_interval([before / after for before, after in times])


def bias_claim(biases: Sequence[Gradient]) -> Claim:
    """E22: the doctor's check finds the bias that batch norm makes useless."""
    found = sum(g.state == "cancels" for g in biases)
    most = max(g.rms for g in biases)
    return Claim(
        "E22", "the gradient of a bias before batch norm is rounding, and the doctor finds it", "9e-9",
        f"root mean square of its gradient at most {most:.1e} in float32, {max(g.rms_64 for g in biases):.1e} in "
        f"float64; the doctor says `gradient that cancels` in {found} of {len(biases)} models",
        exactly(found == len(biases)), {"rms": most, "found": found},
    )  # fmt: skip


def kept_table(kept: Sequence[Kept], times: Sequence[tuple[float, float]]) -> Table:
    before, after = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    rows = [
        (f"seed {i}", f"{k.n_before:,}", f"{k.n_after:,}", f"{k.single.largest:.1e}", f"{k.double.largest:.1e}",
         f"{k.single.same:,} of {k.single.n:,}", f"{before:.1f} and {after:.1f} ms" if i == 0 else "")
        for i, k in enumerate(kept)
    ]  # fmt: skip
    heads = ("model", "parameters", "folded", "float32", "float64", "same choice", "8,192 examples, medians")
    return Table("Before and after: largest difference of a logit", heads, tuple(rows))


def bias_table(biases: Sequence[Gradient]) -> Table:
    rows = tuple((f"seed {i}", g.state, f"{g.rms:.1e}", f"{g.rms_64:.1e}") for i, g in enumerate(biases))
    heads = ("model", "the doctor's word", "gradient, float32", "float64")
    return Table("The bias before batch norm", heads, rows)


def difference_figure(found: dict[str, list[Kept]]) -> Figure:
    """Largest difference of a logit, of the right folding and of one without gain and shift."""
    with drawing(7.5, 3.2) as figure:
        axes = figure.subplots()
        rows = []
        for name, kept in found.items():
            rows.append((f"{name}, float64", [k.double.largest for k in kept], TRAIN))
            rows.append((f"{name}, float32", [k.single.largest for k in kept], TRAIN))
            rows.append((f"{name}, gain and shift forgotten", [k.forgetful.largest for k in kept], DEV))
        for row, (_, values, colour) in enumerate(rows):
            axes.plot([max(value, 1e-17) for value in values], [row] * len(values), "o", color=colour, alpha=0.6)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        for limit in (SINGLE, DOUBLE):
            axes.axvline(limit, color=QUIET, linestyle="--", linewidth=1)
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5), xlabel="largest difference of a logit; one dot a model")
    return figure


def layer_figure(model: MLP, subject: Subject) -> Figure:
    """What every hidden layer puts out before its tanh, with batch norm and folded: one curve on the other."""
    ids = batch(examples(subject.store, "dev", 3, last_only=True), 4096, 0, 0).ids
    before = [a for a in activations(model, ids) if a.place.endswith(".norm")]
    after = [a for a in activations(fold(model), ids) if a.place.endswith(".linear")]
    with drawing(9.0, 2.8) as figure:
        panels = figure.subplots(1, len(before), squeeze=False)[0]
        for i, (axes, one, other) in enumerate(zip(panels, before, after, strict=True), start=1):
            axes.stairs(one.counts, one.edges, fill=True, color=TRAIN, alpha=0.4, label="linear, then batch norm")
            axes.stairs(other.counts, other.edges, color=DEV, label="folded: linear")
            axes.set(title=f"layer {i}", xlabel="before tanh", yticks=[])
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
