"""003-2.E01: what trains when every weight is zero, what when all are one constant, and what breaks the symmetry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, Table, draw, table
from windtunnel.experiments.makemore import HERE, config_of, descended, examples_of
from windtunnel.inspect.doctor.activations import activations
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.models import MLP, MLPConfig, build
from windtunnel.report.charts import Panel, histograms, lines
from windtunnel.report.figures import smoothed
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.batches import Batch, batch
from windtunnel.training.evaluate import evaluate

ROW, E23 = Row("003-2.E01"), Row("E23")
STEPS, RANK_STEPS = 6000, 300
CONSTANT = 0.1
CLOSE = 0.005  # nats: what counts as "goes to the unigram entropy"
PLAIN = {"batch_norm": False, "hidden_bias": True}
PARTS = ("embedding", "hidden", "hidden_bias", "output", "output_bias")
W1 = "layers.0.linear.weight"
SHORT = {"embedding.weight": "C", W1: "W1", "layers.0.linear.bias": "b1",
         "output.weight": "W2", "output.bias": "b2"}  # fmt: skip
EQUAL = "every weight .1"
VARIANTS: Mapping[str, tuple[str, ...]] = {
    EQUAL: (),
    "random C": ("embedding.weight",),
    "random b2": ("output.bias",),
    "random b1": ("layers.0.linear.bias",),
    "random W2": ("output.weight",),
    "all random": tuple(SHORT),
}
"""Which parameters are drawn at random where all others begin with one constant."""
ROUNDING = 200 * torch.finfo(torch.float32).eps
"""Of singular values of W1, relative to the largest, as numpy counts ranks."""
KEEPS, BREAKS = (EQUAL, "random C", "random b2"), ("random b1", "random W2")


def filled(value: float) -> dict[str, object]:
    """Settings of an mlp whose parameters all begin with one value."""
    return {**PLAIN, "init": "constant", **{f"init_{part}": value for part in PARTS}}


def zero_init(at: Setting) -> Findings:
    """All weights zero, or all the same.

    An mlp without batch norm was trained from zero everywhere, and from one constant everywhere but for one part drawn
    at random; measured on `names`.
    """
    steps, seeds, more = at.size(STEPS, quick=100), at.seeds(8), at.size(RANK_STEPS, quick=60)
    yield Given({"steps from zero": steps, "seeds": len(seeds), "constant": CONSTANT, "steps from it": more})
    zeros = [recipe_subject("zero", config_of(filled(0.0), steps).replace(seed=seed)) for seed in seeds]
    first, runs = zeros[0], []
    for i, zero in enumerate(zeros):
        yield Progress("zero everywhere, orders of the batches", i, len(zeros))
        runs.append(descended(zero, steps))
    ends = [end for end, _ in runs]
    floor = entropy(first)
    gaps = [evaluate(end, first.task, "train", steps).loss - floor for end in ends]
    rows = first_batch(first, 4096)
    moved = [name for end in ends for name, p in end.named_parameters() if p.detach().any()]
    start = gradient_flow(first.model, rows)
    yield from from_zero(start, moved, mean_interval(gaps), bias_gradients(first))
    yield gradient_table(start, ends[0])
    yield loss_figure([losses for _, losses in runs], floor)
    found: dict[str, MLP] = {}
    for name, parts in VARIANTS.items():
        yield Progress("a constant with one part random", len(found), len(VARIANTS))
        subject = recipe_subject(name, config_of(filled(CONSTANT)).replace(seed=at.seed))
        found[name] = descended(subject, more, partly_random(subject, parts))[0]
    values = {name: singular_values(model) for name, model in found.items()}
    yield from ranks(values, more)
    yield from beginnings(found, values, more)
    shown = {"zero": ends[0], "constant": found[EQUAL], "random": found["all random"]}
    panels = [draws(name, model, rows) for draws in (hidden_panel, gradient_panel) for name, model in shown.items()]
    yield draw("histograms", *panels)


def partly_random(subject: Subject, names: tuple[str, ...]) -> MLP:
    """The subject's model with these parameters from an ordinary initialisation, biases from N(0, 1)."""
    drawn = build(MLPConfig(**PLAIN, init_hidden_bias=1.0, init_output_bias=1.0), subject.config.seed)
    model = subject.model
    assert isinstance(model, MLP)
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).copy_(drawn.get_parameter(name))
    return model


def entropy(subject: Subject) -> float:
    """Of the targets of train by their frequencies, in nats."""
    source = examples_of(subject)
    targets = source.take(np.arange(len(source)), key=0).targets.flatten()
    p = targets.bincount().double() / len(targets)
    return float(torch.special.entr(p).sum())


def first_batch(subject: Subject, size: int) -> Batch:
    """The first examples of the subject's own order."""
    return batch(examples_of(subject), size, subject.config.seed, 0)


def bias_gradients(subject: Subject, n: int = 2000) -> np.ndarray:
    """The largest gradient of the output bias from zero, of many batches of 32: the counts of the targets say it."""
    targets = first_batch(subject, 32 * n).targets.reshape(n, 32)
    counts = torch.nn.functional.one_hot(targets, subject.config.model.vocab_size).sum(1)
    return (counts / 32 - 1 / counts.shape[1]).abs().amax(1).numpy()


def singular_values(model: MLP) -> Tensor:
    """Of the first hidden layer's weights, relative to the largest; all 0 where the weights are."""
    values = torch.linalg.svdvals(model.get_parameter(W1).detach().double())
    return values / values[0] if values[0] > 0 else values


def rank(values: Tensor) -> int:
    """The numerical rank: singular values beyond the rounding of float32."""
    return int((values > ROUNDING).sum())


def from_zero(start: Sequence[Gradient], moved: Sequence[str], gap: Estimate, bias: np.ndarray) -> Findings:
    """What moves from zero, and how far it gets."""
    still = {SHORT[g.name]: g.rms for g in start if g.name != "output.bias"}
    shown = f"root mean squares {', '.join(f'{name} {rms:g}' for name, rms in still.items())}"
    holds = all(rms == 0 for rms in still.values())
    yield ROW.shows("the gradients of W1, b1 and W2 (and of C) are exactly 0", holds, shown, "0", rms=still)
    low, high = np.quantile(bias, [0.025, 0.975])
    shown = f"{HERE}: 95 % of batches give {low:.4f} to {high:.4f}; 7 of 32 targets the same: {7 / 32 - 1 / 27:.4f}"
    holds = bool(low - 5e-5 <= 0.1817 <= high + 5e-5)
    yield ROW.shows("of a batch of 32, the largest gradient of b2 is .1817", holds, shown, ".1817", low=low, high=high)
    ever = sorted({SHORT[name] for name in moved})
    shown = f"in {gap.n} runs only {' and '.join(ever)} ever left 0: not even one neuron"
    holds = any(name.startswith("layers") for name in moved)
    statement, printed = "from zero, one effective neuron is what trains", "all neurons stay equal"
    yield E23.shows(statement, holds, shown, printed, moved=ever)
    statement = f"the loss goes to the unigram entropy, within {CLOSE:g}"
    yield E23.within(statement, gap, -CLOSE, CLOSE, "2.8234 for 2.8226", "train loss - entropy = {}")


def ranks(values: Mapping[str, Tensor], steps: int) -> Findings:
    """What a constant that is not zero does, and what ends it."""
    found = {name: rank(own) for name, own in values.items()}
    said = {name: f"{name}: rank {n}" for name, n in found.items()}
    statement = f"from a constant that is not 0, W1 has rank 1 after {steps} steps: one effective neuron"
    shown = f"{said[EQUAL]}; second singular value {float(values[EQUAL][1]):.1e} of the first"
    yield E23.shows(statement, found[EQUAL] == 1, shown, "1", ranks=found)
    statement = "only what tells hidden units apart breaks the symmetry: W1, b1 or W2, not C or b2"
    shown = "; ".join(", ".join(said[name] for name in names) for names in (KEEPS[1:], BREAKS))
    holds = all(found[name] == 1 for name in KEEPS) and all(found[name] > 1 for name in BREAKS)
    yield E23.shows(statement, holds, shown, ranks=found)


def gradient_table(start: Sequence[Gradient], end: MLP) -> Table:
    """Of every parameter its gradient at zero, and what became of it."""
    largest = {name: p.detach().abs().max().item() for name, p in end.named_parameters()}
    shape = {g.name: " x ".join(map(str, g.shape)) for g in start}
    rows = ((SHORT[g.name], shape[g.name], g.state, f"{g.rms:.4g}", f"{largest[g.name]:.4g}") for g in start)
    return table("From zero", ("parameter", "shape", "gradient", "its root mean square", "largest value at last"), rows)


def beginnings(found: Mapping[str, MLP], values: Mapping[str, Tensor], steps: int) -> Findings:
    """Of every beginning how far apart the hidden units are, and the singular values of W1."""
    spread = {name: model.get_parameter(W1).detach().std(0).max().item() for name, model in found.items()}
    rows = ((name, rank(own), f"{float(own[1]):.1e}", f"{spread[name]:.1e}") for name, own in values.items())
    heads = ("beginning", "rank of W1", "second singular value / first", "largest deviation between units")
    yield table(f"From a constant, after {steps} steps", heads, rows)
    panel = lines(
        {name: (range(1, 31), own.clamp(min=1e-18)) for name, own in values.items()},
        {"rounding of float32": ROUNDING}, log="y", ylim=(1e-12, 3), title=f"After {steps} steps",
        xlabel="singular value of W1", ylabel="of the largest",
    )  # fmt: skip
    yield draw("singular-values", panel)


def loss_figure(losses: Sequence[Sequence[float]], floor: float) -> Drawing:
    """The smoothed train loss of every order of the batches, between a blind guess and the token frequencies."""
    curves = [smoothed(own, len(own) / 60) for own in losses]
    blind = math.log(27)
    panel = lines(
        {f"train, smoothed, {len(losses)} seeds": (range(len(curves[0])), curves)},
        {f"blind guess, ln 27 = {blind:.4f}": blind, f"unigram entropy {floor:.4f}": floor},
        title="All weights zero: the output bias alone", xlabel="step", ylabel="loss, nats per token",
    )  # fmt: skip
    return draw("loss", panel)


def hidden_panel(name: str, model: MLP, rows: Batch) -> Panel:
    """What the hidden units put out."""
    hidden = next(a for a in activations(model, rows.inputs) if a.place.endswith("tanh"))
    values = {"": (hidden.counts, hidden.edges)}
    return histograms(values, title=f"{name}: std {hidden.std:.2g}", xlabel="hidden activation")


def gradient_panel(name: str, model: MLP, rows: Batch) -> Panel:
    """The gradient of W1."""
    loss = torch.nn.functional.cross_entropy(model(rows.ids)[:, 0], rows.targets[:, 0])
    [gradient] = torch.autograd.grad(loss, [model.get_parameter(W1)])
    title = f"{name}: largest {gradient.abs().max().item():.2g}"
    return histograms({"": gradient.flatten().numpy()}, title=title, xlabel="gradient of W1")
