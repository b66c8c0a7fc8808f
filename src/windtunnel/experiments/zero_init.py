"""003-2.E01: what trains when every weight is zero, what when all are one constant, and what breaks the symmetry."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, exactly, signature, within
from windtunnel.experiments.makemore import HERE, config_of
from windtunnel.inspect.doctor.activations import activations
from windtunnel.inspect.doctor.gradients import Gradient, gradient_flow
from windtunnel.inspect.doctor.short_training import beginning, train_copy
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.models import MLP, MLPConfig, build
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.report.figures import smoothed
from windtunnel.stats.intervals import Estimate, mean_interval
from windtunnel.text.batches import Batch, batch, examples
from windtunnel.training.evaluate import evaluate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, RANK_STEPS = 6000, 300
CONSTANT = 0.1
CLOSE = 0.005  # nats: what counts as "goes to the unigram entropy"
PLAIN = {"batch_norm": False, "hidden_bias": True}
PARTS = ("embedding", "hidden", "hidden_bias", "output", "output_bias")
SHORT = {"embedding.weight": "C", "layers.0.linear.weight": "W1", "layers.0.linear.bias": "b1",
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
KEEPS, BREAKS = (EQUAL, "random C", "random b2"), ("random b1", "random W2")


def filled(value: float) -> dict[str, object]:
    """Settings of an mlp whose parameters all begin with one value."""
    return {**PLAIN, "init": "constant", **{f"init_{part}": value for part in PARTS}}


def zero_init(setting: Setting) -> Generator[Progress, None, Outcome]:
    """What trains when all weights begin at zero?"""
    n_seeds, steps, more = (2, 100, 60) if setting.quick else (8, STEPS, RANK_STEPS)
    zeros: list[Subject] = []
    losses, ends, gaps = [], [], []
    for i in range(n_seeds):
        yield Progress("zero everywhere, orders of the batches", i, n_seeds)
        zeros.append(recipe_subject("zero", config_of(filled(0.0), steps).replace(seed=setting.seed + i)))
        trained, curve = train(zeros[-1], steps)
        ends.append(trained)
        losses.append(curve)
        loss = evaluate(trained, zeros[-1].store, "train", trained.config.context_length, steps, last_only=True).loss
        gaps.append(loss - entropy(zeros[0]))
    rows = first_batch(zeros[0], 4096)
    found: dict[str, MLP] = {}
    for name in VARIANTS:
        yield Progress("a constant with one part random", len(found), len(VARIANTS))
        subject = recipe_subject(name, config_of(filled(CONSTANT)).replace(seed=setting.seed))
        found[name] = train(subject, more, partly_random(subject, VARIANTS[name]))[0]
    start, gap = gradient_flow(zeros[0].model, rows), mean_interval(gaps)
    moved = [name for end in ends for name, p in end.named_parameters() if bool(p.detach().any())]
    values = {name: singular_values(model) for name, model in found.items()}
    return Outcome(
        title="All weights zero, or all the same",
        what="An mlp without batch norm was trained from zero everywhere, and from one constant everywhere but for one "
        f"part drawn at random; {HERE}.",
        settings={"steps from zero": steps, "seeds": n_seeds, "constant": CONSTANT, "steps from it": more},
        tables=(gradient_table(start, ends[0]), rank_table(found, values, more)),
        figures={
            "loss": loss_figure(losses, entropy(zeros[0])),
            "singular-values": rank_figure(values, more),
            "histograms": histogram_figure({"zero": ends[0], "constant": found[EQUAL], "random": found["all random"]},
                                           rows),
        },
        claims=(*zero_claims(start, moved, gap, bias_gradients(zeros[0])), *rank_claims(values, more)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )  # fmt: skip


def train(subject: Subject, steps: int, model: MLP | None = None) -> tuple[MLP, tuple[float, ...]]:
    """A model after so many steps of the subject's own descent, and the loss of each step."""
    source = examples(subject.store, "train", subject.config.model.context_length, last_only=True)
    done = train_copy(model or subject.model, subject.config, source, steps, beginning(subject.config, steps))
    assert isinstance(done.model, MLP)
    return done.model, done.losses


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
    source = examples(subject.store, "train", subject.config.model.context_length, last_only=True)
    targets = source.take(np.arange(len(source)), key=0).targets.flatten()
    p = targets.bincount().double() / len(targets)
    return float(torch.special.entr(p).sum())


def first_batch(subject: Subject, size: int) -> Batch:
    """The first examples of the subject's own order."""
    source = examples(subject.store, "train", subject.config.model.context_length, last_only=True)
    return batch(source, size, subject.config.seed, 0)


def bias_gradients(subject: Subject, n: int = 2000) -> np.ndarray:
    """The largest gradient of the output bias from zero, of many batches of 32: the counts of the targets say it."""
    targets = first_batch(subject, 32 * n).targets.reshape(n, 32)
    counts = torch.nn.functional.one_hot(targets, subject.config.model.vocab_size).sum(1)
    return (counts / 32 - 1 / counts.shape[1]).abs().amax(1).numpy()


def singular_values(model: MLP) -> Tensor:
    """Of the first hidden layer's weights, relative to the largest; all 0 where the weights are."""
    values = torch.linalg.svdvals(model.get_parameter("layers.0.linear.weight").detach().double())
    return values / values[0] if values[0] > 0 else values


def rank(values: Tensor) -> int:
    """The numerical rank: singular values beyond the rounding of float32, as numpy counts them."""
    return int((values > 200 * torch.finfo(torch.float32).eps).sum())


def zero_claims(start: tuple[Gradient, ...], moved: list[str], gap: Estimate, bias: np.ndarray) -> tuple[Claim, ...]:
    """What moves from zero, and how far it gets."""
    still = {SHORT[g.name]: g.rms for g in start if g.name != "output.bias"}
    low, high = np.quantile(bias, [0.025, 0.975])
    ever = sorted({SHORT[name] for name in moved})
    return (
        Claim(
            "003-2.E01", "the gradients of W1, b1 and W2 (and of C) are exactly 0", "0",
            f"root mean squares {', '.join(f'{name} {rms:g}' for name, rms in still.items())}",
            exactly(all(rms == 0 for rms in still.values())), still,
        ),
        Claim(
            "003-2.E01", "of a batch of 32, the largest gradient of b2 is .1817", ".1817",
            f"{HERE}: 95 % of batches give {low:.4f} to {high:.4f}; 7 of 32 targets the same: {7 / 32 - 1 / 27:.4f}",
            exactly(bool(low - 5e-5 <= 0.1817 <= high + 5e-5)), {"low": low, "high": high},
        ),
        Claim(
            "E23", "from zero, one effective neuron is what trains", "all neurons stay equal",
            f"in {gap.n} runs only {' and '.join(ever)} ever left 0: not even one neuron",
            exactly(any(name.startswith("layers") for name in moved)), {"moved": ever},
        ),
        Claim(
            "E23", f"the loss goes to the unigram entropy, within {CLOSE:g}", "2.8234 for 2.8226",
            f"train loss - entropy = {gap}", within(gap, -CLOSE, CLOSE), {"gap": gap},
        ),
    )  # fmt: skip


def rank_claims(values: Mapping[str, Tensor], steps: int) -> tuple[Claim, ...]:
    """What a constant that is not zero does, and what ends it."""
    ranks = {name: rank(own) for name, own in values.items()}

    def said(names: tuple[str, ...]) -> str:
        return ", ".join(f"{name}: rank {ranks[name]}" for name in names)

    return (
        Claim(
            "E23", f"from a constant that is not 0, W1 has rank 1 after {steps} steps: one effective neuron", "1",
            f"{said((EQUAL,))}; second singular value {float(values[EQUAL][1]):.1e} of the first",
            exactly(ranks[EQUAL] == 1), ranks,
        ),
        Claim(
            "E23", "only what tells hidden units apart breaks the symmetry: W1, b1 or W2, not C or b2", "",
            f"{said(KEEPS[1:])}; {said(BREAKS)}",
            exactly(all(ranks[name] == 1 for name in KEEPS) and all(ranks[name] > 1 for name in BREAKS)), ranks,
        ),
    )  # fmt: skip


def gradient_table(start: tuple[Gradient, ...], end: MLP) -> Table:
    rows = tuple(
        (SHORT[g.name], " x ".join(map(str, g.shape)), g.state, f"{g.rms:.4g}",
         f"{end.get_parameter(g.name).detach().abs().max().item():.4g}")
        for g in start
    )  # fmt: skip
    return Table("From zero", ("parameter", "shape", "gradient", "its root mean square", "largest value at last"), rows)


def rank_table(found: Mapping[str, MLP], values: Mapping[str, Tensor], steps: int) -> Table:
    def spread(model: MLP) -> float:
        return float(model.get_parameter("layers.0.linear.weight").detach().std(0).max())

    rows = tuple(
        (name, f"{rank(values[name])}", f"{float(values[name][1]):.1e}", f"{spread(model):.1e}")
        for name, model in found.items()
    )
    heads = ("beginning", "rank of W1", "second singular value / first", "largest deviation between units")
    return Table(f"From a constant, after {steps} steps", heads, rows)


def loss_figure(losses: list[tuple[float, ...]], floor: float) -> Figure:
    """The smoothed train loss of every order of the batches, between a blind guess and the token frequencies."""
    with drawing(7.0, 3.8) as figure:
        axes = figure.subplots()
        for i, own in enumerate(losses):
            name = f"train, smoothed, {len(losses)} seeds" if i == 0 else None
            axes.plot(smoothed(own, len(own) / 60), color=TRAIN, linewidth=0.9, alpha=0.6, label=name)
        axes.axhline(np.log(27), color=QUIET, linestyle=":", label=f"blind guess, ln 27 = {np.log(27):.4f}")
        axes.axhline(floor, color=DEV, linestyle="--", label=f"unigram entropy {floor:.4f}")
        axes.set(xlabel="step", ylabel="loss, nats a token", title="All weights zero: the output bias alone")
        axes.legend()
    return figure


def rank_figure(values: Mapping[str, Tensor], steps: int) -> Figure:
    """The singular values of W1 from every beginning; what float32 rounds away lies below the line."""
    with drawing(7.0, 4.2) as figure:
        axes = figure.subplots()
        markers = "os^vDx"
        for (name, own), marker in zip(values.items(), markers, strict=True):
            colour = DEV if name in KEEPS else TRAIN if name in BREAKS else QUIET
            axes.plot(range(1, 31), own.clamp(min=1e-18), marker=marker, markersize=4, color=colour, label=name)
        axes.axhline(200 * torch.finfo(torch.float32).eps, color=QUIET, linestyle="--", linewidth=1)
        axes.set(yscale="log", xlabel="singular value of W1", ylabel="of the largest", ylim=(1e-12, 3))
        axes.set_title(f"After {steps} steps; dashed: rounding of float32", loc="left")
        axes.legend(ncols=2)
    return figure


def histogram_figure(models: Mapping[str, MLP], rows: Batch) -> Figure:
    """Of three models: what the hidden units put out, and the gradient of W1 relative to its largest."""
    with drawing(9.0, 4.6) as figure:
        panels = figure.subplots(2, len(models), squeeze=False)
        for (name, model), column in zip(models.items(), panels.T, strict=True):
            hidden = next(a for a in activations(model, rows.ids) if a.place.endswith("tanh"))
            middles = (np.array(hidden.edges[1:]) + np.array(hidden.edges[:-1])) / 2
            width = middles[1] - middles[0]
            column[0].bar(middles, np.array(hidden.counts) / sum(hidden.counts), width, color=TRAIN)
            column[0].set(title=f"{name}: std {hidden.std:.2g}", xlabel="hidden activation", yticks=[])
            loss = torch.nn.functional.cross_entropy(model(rows.ids)[:, 0], rows.targets[:, 0])
            [gradient] = torch.autograd.grad(loss, [model.get_parameter("layers.0.linear.weight")])
            column[1].hist(gradient.flatten().numpy(), bins=41, color=DEV)
            column[1].set(xlabel="gradient of W1", yticks=[])
            column[1].set_title(f"largest {gradient.abs().max().item():.2g}", loc="left", fontsize=9)
            column[1].ticklabel_format(axis="x", scilimits=(-2, 2))
            column[1].locator_params(axis="x", nbins=4)
    return figure
