"""003-2.E02: batch norm folded into the weights of a trained mlp of three hidden layers, and the bias before it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, Table, draw, table
from windtunnel.experiments.makemore import config_of, descended, examples_of
from windtunnel.inspect.doctor.activations import activations, with_batch_statistics
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.inspect.fold import Agreement, agreement, fold
from windtunnel.inspect.speed import take_turns
from windtunnel.models import MLP, build
from windtunnel.nn.norms import BatchNorm
from windtunnel.report.charts import dots, histograms
from windtunnel.stats.intervals import mean_interval
from windtunnel.text.batches import batch

ROW, E22, E24 = Row("003-2.E02"), Row("E22"), Row("E24")
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


def fold_batch_norm(at: Setting) -> Findings:
    """Batch norm folded into the weights.

    Mlps with three hidden layers were trained, several seeds, and each compared with its folded self on every
    prediction of the dev split; measured on `names`.
    """
    seeds, steps = at.seeds(8), at.size(STEPS, quick=60)
    settings = at.size(SETTINGS, quick={**SETTINGS, "d_hidden": 48})
    trained: list[MLP] = []
    found: dict[str, list[Kept]] = {"untrained": [], "trained": []}
    biases: list[Gradient] = []
    for i, seed in enumerate(seeds):
        yield Progress("trained and folded", i, len(seeds))
        subject = recipe_subject("", config_of(settings, steps).replace(seed=seed))
        source, done = examples_of(subject), descended(subject, steps)[0]
        trained.append(done)
        found["trained"].append(compare(done, subject))
        rows = batch(source, 2048, seed, 0)
        found["untrained"].append(compare(with_batch_statistics(subject.model.eval(), rows.inputs), subject))
        useless = build(config_of({"hidden_bias": True}).model, seed)
        flow = gradient_flow(useless, batch(source, 32, seed, 0))
        biases.append(next(g for g in flow if g.name == "layers.0.linear.bias"))
    gains = torch.cat([norm.weight.detach() for norm in norms(trained[0])])
    yield Given({"steps": steps, "seeds": len(seeds), **settings, "threads": torch.get_num_threads()})
    yield Given({"gains of seed 0": f"{gains.min():.3f} to {gains.max():.3f}"})
    yield from same_function(found, gains)
    times = passes(trained[0], subject, at.size(31, quick=3))
    yield speed(times)
    yield kept_table(found["trained"], times)
    yield difference_figure(found)
    yield layer_figure(trained[0], subject)
    yield useless_bias(biases)
    heads = ("model", "the doctor's word", "gradient, float32", "float64")
    words = ((f"seed {i}", g.state, f"{g.rms:.1e}", f"{g.rms_64:.1e}") for i, g in enumerate(biases))
    yield table("The bias before batch norm", heads, words)


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
    exact = agreement(double, fold(double), subject.task)
    blind = agreement(model, forgetful(model), subject.task)
    return Kept(agreement(model, folded, subject.task), exact, blind, *sizes)


def passes(model: MLP, subject: Subject, repeats: int) -> dict[str, list[float]]:
    """Seconds of a pass over the first 8,192 examples of train, of the model and of its folded self, in turns."""
    ids = batch(examples_of(subject), 8192, 0, 0).ids
    before, after = model.eval(), fold(model).eval()
    with torch.no_grad():
        return take_turns({"before": lambda: before(ids), "after": lambda: after(ids)}, repeats)


def same_function(found: Mapping[str, Sequence[Kept]], gains: torch.Tensor) -> Findings:
    """The same function, in both precisions and in every choice; and what an untrained model would have shown."""
    kept = found["trained"]
    single, double = [k.single.largest for k in kept], [k.double.largest for k in kept]
    printed = "4.8e-7 to 1.7e-6, untrained, 1 layer"
    yield ROW.equal("trained: the same logits in float32", single, SINGLE, printed)
    yield ROW.equal("trained: the same logits in float64", double, DOUBLE, "3.6e-15")
    same, n = sum(k.single.same for k in kept), sum(k.single.n for k in kept)
    shown = f"{same:,} of {n:,} predictions of {len(kept)} models"
    yield ROW.shows("the most probable token is the same everywhere", same == n, shown, same=same, n=n)
    blind, seen = max(k.forgetful.largest for k in found["untrained"]), min(k.forgetful.largest for k in kept)
    shown = f"one that forgets gain and shift differs by {blind:.1e} there, and by {seen:.2g} or more after training "
    shown += f"(gains {float(gains.min()):.2f} to {float(gains.max()):.2f})"
    statement = "a comparison with gain 1 and shift 0 proves the folding"
    yield E24.shows(statement, blind > SINGLE, shown, "4.8e-7", untrained=blind, trained=seen)


def speed(times: Mapping[str, Sequence[float]]) -> Claim:
    """Whether the folded model is faster, turn by turn; the machine decides."""
    ratio = mean_interval([before / after for before, after in zip(times["before"], times["after"], strict=True)])
    return ROW.within("the folded model is faster", ratio, low=1, shown="times as fast: {}")


def useless_bias(biases: Sequence[Gradient]) -> Claim:
    """E22: the doctor's check finds the bias that batch norm makes useless."""
    found, most = sum(g.state == "cancels" for g in biases), max(g.rms for g in biases)
    shown = f"root mean square of its gradient at most {most:.1e} in float32, {max(g.rms_64 for g in biases):.1e} in "
    shown += f"float64; the doctor says `gradient that cancels` in {found} of {len(biases)} models"
    statement = "the gradient of a bias before batch norm is rounding, and the doctor finds it"
    return E22.shows(statement, found == len(biases), shown, "9e-9", rms=most, found=found)


def kept_table(kept: Sequence[Kept], times: Mapping[str, Sequence[float]]) -> Table:
    """Every model before and after."""
    before, after = (1e3 * median(times[name]) for name in ("before", "after"))
    rows = (
        (f"seed {i}", k.n_before, k.n_after, f"{k.single.largest:.1e}", f"{k.double.largest:.1e}",
         f"{k.single.same:,} of {k.single.n:,}", "" if i else f"{before:.1f} and {after:.1f} ms")
        for i, k in enumerate(kept)
    )  # fmt: skip
    heads = ("model", "parameters", "folded", "float32", "float64", "same choice", "8,192 examples, medians")
    return table("Before and after: largest difference of a logit", heads, rows)


def difference_figure(found: Mapping[str, Sequence[Kept]]) -> Drawing:
    """Largest difference of a logit, of the right folding and of one without gain and shift."""

    def largest(kept: Sequence[Kept], part: str) -> list[float]:
        return [max(getattr(k, part).largest, 1e-17) for k in kept]

    right = {f"{name}, {bits}": largest(kept, part) for name, kept in found.items()
             for bits, part in (("float64", "double"), ("float32", "single"))}  # fmt: skip
    wrong = {f"{name}, both forgotten": largest(kept, "forgetful") for name, kept in found.items()}
    panel = dots(
        {"folded": right, "gain and shift forgotten": wrong}, [*right, *wrong], log="x",
        down={"rounding, float64": DOUBLE, "rounding, float32": SINGLE},
        xlabel="largest difference of a logit, one dot a model",
    )  # fmt: skip
    return draw("differences", panel)


def layer_figure(model: MLP, subject: Subject) -> Drawing:
    """What every hidden layer puts out before its tanh, with batch norm and folded: one curve on the other."""
    ids = batch(examples_of(subject, "dev"), 4096, 0, 0).ids
    before = [a for a in activations(model, {"ids": ids}) if a.place.endswith(".norm")]
    after = [a for a in activations(fold(model), {"ids": ids}) if a.place.endswith(".linear")]
    names = ("linear, then batch norm", "folded: linear")
    panels = [
        histograms({name: (a.counts, a.edges) for name, a in zip(names, both, strict=True)}, title=f"layer {i}",
                   xlabel="before tanh")
        for i, both in enumerate(zip(before, after, strict=True), start=1)
    ]  # fmt: skip
    return draw("activations", *panels)
