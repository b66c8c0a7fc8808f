"""002-5.1: gradient descent on all examples, on one, or on a mini-batch: noise, memory, time to a loss, and a stream.

The source's scenarios: a large data set and little GPU memory (its answer: mini-batches), and data that streams in
(its answer: stochastic descent, one example at a time). Plain SGD, no momentum; each
rate is the best of four that were tried once with another seed (1: .01 to .3; 16: .1 to 3; 1,024: .3 to 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from windtunnel.comparison.comparison import Comparison
from windtunnel.experiments.frame import Claim, Findings, Given, Progress, Row, Setting, Steps, draw, interval, table
from windtunnel.experiments.speed import exponent
from windtunnel.experiments.training import folders_of, small_names, trained
from windtunnel.inspect.cost import activation_bytes
from windtunnel.inspect.doctor.batch_gradients import apart, gradient_of, gradient_variance
from windtunnel.inspect.doctor.subject import Subject, recipe_subject
from windtunnel.models import ModelConfig, TransformerConfig
from windtunnel.report.charts import lines
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import Estimate, mean_interval, paired_ratio
from windtunnel.training.data import train_examples
from windtunnel.training.events import Evaluation, Step
from windtunnel.training.recipes import small
from windtunnel.training.run import open_run
from windtunnel.training.run_config import RunConfig

ROW = Row("002-5.1")
MINI, ONE, FULL = "mini-batch", "stochastic", "full batch"
STREAM, BUFFER, STORED = "stream, one at a time", "stream, batches of 32", "stored, again and again"
RATES = {1: 0.03, 32: 0.3, 1024: 0.3}
TARGETS = (2.5, 2.4)
"""Dev losses, nats per token."""
GPU = 16 * 2**30


@dataclass(frozen=True)
class Reached:
    """When the dev loss was first seen at or below a target; of a run that never came there, all that it spent.

    censored: it never came there, so that the truth lies above every number here.
    """

    steps: int
    examples: int
    seconds: float
    censored: bool


def descent(at: Setting) -> Findings:
    """Full batch, one example, or a mini-batch.

    A small transformer learned from names by gradient descent on all of them, on one and on a few at a time; and from
    names that come once, against a few that are kept. Gradients, memory and time were measured.
    """
    n, seeds, base = at.size(1024, quick=64), at.seeds(5), plain_sgd(at)
    arms = arms_of(base, n, at.size(1.0, quick=0.005))
    steps = {name: arm.config.train.steps for name, arm in arms.items()}
    yield Given({"names": n, "seeds": len(seeds), "rates": RATES, "steps": steps})
    yield Progress("gradients of batches")
    subject = recipe_subject("names", base.replace(train=base.train.replace(n_examples=n)))
    accumulated = yield from noise(subject, n, at.size((1, 4, 16, 64, 256), quick=(1, 2, 4, 8)), at.seed)
    sized = yield from trained(at, "batch sizes", [arms[name] for name in (MINI, ONE, FULL)], seeds, "sizes")
    yield from memory(subject, sized, accumulated, at.quick)
    yield from times(sized)
    streamed = yield from trained(at, "a stream", [arms[name] for name in (STREAM, BUFFER, STORED)], seeds, "stream")
    yield from stream(streamed)


def plain_sgd(at: Setting) -> RunConfig:
    """Nothing but w -= lr * gradient: no momentum, decay, clipping or schedule."""
    base = small_names(at)
    return base.replace(
        optimizer=base.optimizer.replace(name="sgd", momentum=0.0, weight_decay=0.0),
        schedule=base.schedule.replace(curve="constant", warmup=0),
        train=base.train.replace(clip=None),
    )


def arms_of(base: RunConfig, n: int, share: float) -> dict[str, Arm]:
    """The arms by name. Each has about as long as the others, or, of a stream, the same 4,096 examples.

    Args:
        n: names that the first three learn from.
        share: of the steps; below 1 for a quick run.
    """
    largest = max(RATES)
    plan = {  # batch size, names, steps, of which 60 or so end in an evaluation
        MINI: (32, n, 640),
        ONE: (1, n, 4096),
        FULL: (largest, n, 160),
        STREAM: (1, 4 * n, 4096),
        BUFFER: (32, 4 * n, 128),
        STORED: (1, n // 8, 4096),
    }
    arms = {}
    for name, (size, names, steps) in plan.items():
        steps = max(2, round(share * steps))
        every, lr = {"n_examples": names, "steps": steps, "eval_every": max(1, steps // 64)}, RATES[size]
        train = base.train.replace(batch_size=min(size, n), **every)
        arms[name] = Arm(name, base.replace(train=train, optimizer=base.optimizer.replace(lr=lr)))
    return arms


def noise(subject: Subject, n: int, sizes: Sequence[int], seed: int) -> Steps[float]:
    """The noise of the gradient against the batch size.

    Returns:
        How far the gradient of all n names changes when it is computed by parts of 32.
    """
    source, epochs = train_examples(subject.config, subject.task), range(seed, seed + 5)
    variances = gradient_variance(subject.model, source, sizes, epochs)
    whole, other = (gradient_of(subject.model, source, n, 1, epoch) for epoch in epochs[:2])
    parts = gradient_of(subject.model, source, n, n // 32, seed)
    ends = f"{variances[:, 0].mean():.3g} at B = {sizes[0]}, {variances[:, -1].mean():.3g} at B = {sizes[-1]}"
    yield ROW.within("the variance of a batch's gradient falls like 1/B", slopes(sizes, variances), -1.1, -0.9,
                     shown=f"slope in log-log {{}}; {ends}")  # fmt: skip
    yield ROW.equal("a full batch has none: in any order the same gradient", apart(whole, other), 1e-5)
    line = variances[:, 0].mean() * sizes[0] / np.array(sizes)
    curves = {"each epoch's batches, thin; their mean": (sizes, variances), "1/B from the first on": (sizes, line)}
    labels: dict[str, Any] = {"xlabel": "B, examples in a batch", "ylabel": "variance of the gradient"}
    yield draw("noise", lines(curves, ticks=sizes, log="xy", **labels))
    return apart(whole, parts)


def memory(subject: Subject, sized: Comparison, accumulated: float, quick: bool) -> Findings:
    """The first scenario's memory: what a batch takes, what fits a GPU, and whether memory alone decides."""
    n_names = len(subject.task.examples("train"))
    taken = activation_memory(subject.config.model, (1, 32, 1024, n_names))
    whole = max(taken)
    each = {size: bytes / size for size, bytes in taken.items()}
    peaks = {arm.name: arm.peak_memory for arm in sized.arms}
    said = ", ".join(f"{name} {peak / 2**20:.0f} MiB" for name, peak in peaks.items() if peak)
    shown = f"{each[whole] / 1024:.1f} KiB a name" + (f"; whole processes added {said}" if said else "")
    gaps = [abs(x / each[whole] - 1) for x in each.values()]
    yield ROW.equal("activations grow in proportion to the batch", gaps, 0.02, "memory limits", shown)
    yield on_a_gpu(whole, quick)
    yield ROW.shows(
        "so memory alone rules the full batch out", accumulated > 1e-4,
        f"in micro-batches of 32 its gradient is the same but for {accumulated:.1e} and all {whole:,} names take "
        f"{taken[32] / 2**20:.1f} MiB instead of {taken[whole] / 2**20:,.0f}: it costs time, not memory",
        apart=accumulated, bytes=taken,
    )  # fmt: skip
    measured = {size: peaks[name] for size, name in ((1, ONE), (32, MINI), (1024, FULL))}
    known = {size: f"{peak / 2**20:,.0f}" for size, peak in measured.items() if peak}
    rows = ((size, f"{bytes / 2**20:,.2f}", known.get(size)) for size, bytes in taken.items())
    heads = ("names in a batch", "activations at the full context", "measured: process")
    yield table("Memory, MiB", heads, rows)


def on_a_gpu(n: int, quick: bool) -> Claim:
    """Whether a batch of n examples of GPT-2 small fits; of the recipe `small` in a quick run."""
    two = activation_memory(small("names").model if quick else TransformerConfig(), (1, 2))
    example = two[2] - two[1]
    fits = GPU // example
    shown = f"{'recipe small' if quick else 'GPT-2 small'}: {example / 2**30:.3f} GiB of activations an example at "
    shown += f"the full context, so at most {fits:,} fit"
    statement = f"on a GPU with 16 GiB a batch of {n:,} does not fit, a mini-batch does"
    return ROW.shows(statement, 1 < fits < n, shown, "mini-batch", fits=fits, bytes=example)


def times(sized: Comparison) -> Findings:
    """Steps, names and seconds to each target; a censored run counts as what it spent, a lower bound."""
    folders = {arm.name: folders_of(sized, arm.name) for arm in sized.arms}
    found = {t: {name: [reached(f, t) for f in own] for name, own in folders.items()} for t in TARGETS}
    for name in (FULL, ONE):
        yield sooner(name, found[TARGETS[-1]][name], found[TARGETS[-1]][MINI])
    units = (("steps", ",.0f"), ("examples", ",.0f"), ("seconds", ".2f"))
    rows = [
        (f"{target:g}", name, f"{sum(not one.censored for one in own)} of {len(own)}",
         *(summary(own, unit, form) for unit, form in units))
        for target, arms in found.items() for name, own in arms.items()
    ]  # fmt: skip
    title = "To a dev loss, over the seeds; seconds of training as the runs shared the machine"
    yield table(title, ("nats", "descent", "reached", "steps", "names", "seconds"), rows)
    curves = {name: list(map(dev_curve, own)) for name, own in folders.items()}
    lowest = min(min(curve["loss"]) for own in curves.values() for curve in own)
    panels = [
        lines({name: [(curve[unit], curve["loss"]) for curve in own] for name, own in curves.items()},
              {"targets": TARGETS}, log="x", xlabel=title, ylabel="dev loss, nats per token", ylim=(lowest - 0.05, 3.4))
        for unit, title in (("steps", "steps"), ("examples", "names seen"), ("seconds", "seconds of training"))
    ]  # fmt: skip
    yield draw("curves", *panels, share="y")


def sooner(name: str, own: Sequence[Reached], mini: Sequence[Reached]) -> Claim:
    """Whether the mini-batch takes less time than this arm to the last target."""
    longer, censored = times_longer(own, mini), [one for one in own if one.censored]
    said = "the mini-batch itself did not come there with every seed" if longer is None else f"{longer} times"
    if censored:
        steps = max(one.steps for one in censored)
        said = f"{len(censored)} of {len(own)} never came there in {steps:,} steps; at least: {said}"
    statement, shown = f"the mini-batch reaches {TARGETS[-1]} nats in less time than {name}", f"time of {name}: {said}"
    if longer is None:
        return Claim(ROW.id, statement, "mini-batch", shown, "undecided", {"censored": len(censored)})
    return ROW.within(statement, longer, low=1, printed="mini-batch", shown=shown)


def stream(streamed: Comparison) -> Findings:
    """The second scenario: every example once, against a few again and again, and against small batches of it."""
    judged = {j.arm: j for j in streamed.judgements}
    statement = "each example once is better than an eighth of them kept, for the same number of updates"
    yield ROW.judged(statement, judged[STORED], ["worse"], "streaming")
    yield ROW.judged("one at a time is better than batches of 32 of the same stream", judged[BUFFER], ["worse"], "SGD")


def reached(folder: Path, target: float) -> Reached:
    """Read it from a run's log; seconds are those of the steps, without evaluations."""
    run, seconds, step = open_run(folder), 0.0, 0
    size = run.config.train.batch_size
    for event in run.events():
        if isinstance(event, Step):
            step, seconds = event.step, seconds + event.seconds
        elif isinstance(event, Evaluation) and event.split == "dev" and event.loss <= target:
            return Reached(step, step * size, seconds, False)
    return Reached(step, step * size, seconds, True)


def summary(found: Sequence[Reached], unit: str, form: str) -> str:
    """The mean with its interval where every run came there; else a median or a bound, no mean of the survivors.

    Args:
        unit: steps, examples or seconds.
    """
    values, bounds = [getattr(one, unit) for one in found], [getattr(one, unit) for one in found if one.censored]
    if not bounds:
        return interval(mean_interval(values), form)
    bound, censored = min(bounds), f"{len(bounds)} of {len(found)}"
    if len(bounds) < len(found) / 2:  # a run that never came there lies above the median, wherever it lies
        return f"median {median(values):{form}}; {censored} not within {bound:{form}}"
    return f"more than {bound:{form}} in {censored}"


def times_longer(slow: Sequence[Reached], fast: Sequence[Reached]) -> Estimate | None:
    """Seconds of one arm over those of another, paired by seed; at least so many where `slow` is censored.

    None where the faster one did not come there itself, or the pairs say nothing.
    """
    if any(one.censored for one in fast):
        return None
    try:
        return paired_ratio([one.seconds for one in fast], [one.seconds for one in slow])
    except ValueError:
        return None


def activation_memory(config: ModelConfig, sizes: Sequence[int]) -> dict[int, int]:
    """Bytes that autograd keeps for batches of these sizes at the full context, as `windtunnel cost` counts them."""
    return {size: activation_bytes(config, size, config.context_length, "fp32") for size in sizes}


def slopes(sizes: Sequence[int], variances: np.ndarray) -> Estimate:
    """d log(variance) / d log(B), a line for each epoch."""
    return mean_interval([exponent(sizes, row) for row in variances])


def dev_curve(folder: Path) -> dict[str, list[float]]:
    """Dev loss of a run against steps, examples and seconds, from the first step on."""
    run, seconds = open_run(folder), 0.0
    curve: dict[str, list[float]] = {"steps": [], "examples": [], "seconds": [], "loss": []}
    for event in run.events():
        if isinstance(event, Step):
            seconds += event.seconds
        elif isinstance(event, Evaluation) and event.split == "dev" and event.step:
            row = (event.step, event.step * run.config.train.batch_size, seconds, event.loss)
            for values, value in zip(curve.values(), row, strict=True):
                values.append(value)
    return curve
