"""002-5.1: gradient descent on all examples, on one, or on a mini-batch: noise, memory, time to a loss, and a stream.

The source's scenarios: a large data set and little GPU memory (its answer: mini-batches), and data that streams in
(its answer: stochastic descent, one example at a time). Plain SGD, no momentum; each
rate is the best of four that were tried once with another seed (1: .01 to .3; 16: .1 to 3; 1,024: .3 to 10).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.experiments.descent_figures import curve_figure, noise_figure
from windtunnel.experiments.descent_measures import (
    Reached,
    activation_memory,
    apart,
    dev_curves,
    gradient_of,
    gradient_variance,
    reached,
    slopes,
    summary,
    times_longer,
)
from windtunnel.experiments.frame import (
    Claim,
    Outcome,
    Progress,
    Setting,
    Table,
    equal,
    exactly,
    signature,
    within,
)

if TYPE_CHECKING:
    from windtunnel.comparison.comparison import Comparison
    from windtunnel.inspect.doctor.subject import Subject
    from windtunnel.runs.arms import Arm
    from windtunnel.training.run_config import RunConfig

MINI, ONE, FULL = "mini-batch", "stochastic", "full batch"
STREAM, BUFFER, STORED = "stream, one at a time", "stream, batches of 32", "stored, again and again"
RATES = {1: 0.03, 32: 0.3, 1024: 0.3}
TARGETS = (2.5, 2.4)
"""Dev losses, nats a token."""
GPU = 16 * 2**30


def descent(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Full batch, one example or a mini-batch: what does each cost?"""
    from windtunnel.experiments.training_before import compared
    from windtunnel.report.comparison_figure import comparison_figure

    sizes = (1, 2, 4, 8) if setting.quick else (1, 4, 16, 64, 256)
    n, n_seeds = (64, 2) if setting.quick else (1024, 5)
    seeds = range(setting.seed, setting.seed + n_seeds)
    base = plain_sgd(setting)
    arms = arms_of(base, n, 0.005 if setting.quick else 1.0)
    yield Progress("gradients of batches", 0, 1)
    subject = subject_of(base, n, setting.seed)
    variances, accumulated = noise(subject, n, sizes, setting)
    yield Progress("gradients of batches", 1, 1)
    sized = yield from compared("batch sizes", [arms[name] for name in (MINI, ONE, FULL)], seeds, setting)
    streamed = yield from compared("a stream", [arms[name] for name in (STREAM, BUFFER, STORED)], seeds, setting)
    memory = activation_memory(subject.config.model, (1, 32, 1024, len_of(subject)))
    curves = {arm.name: dev_curves([Path(run.folder) for run in arm.seeds]) for arm in sized.arms}
    times = {t: {a.name: [reached(Path(r.folder), t) for r in a.seeds] for a in sized.arms} for t in TARGETS}
    return Outcome(
        title="Full batch, one example, or a mini-batch",
        what=f"A small transformer learned from {n:,} names by gradient descent on all of them, on one and on a few at "
        "a time; and from names that come once, against a few that are kept. Gradients, memory and time were measured.",
        settings={"names": n, "seeds": n_seeds, "rates": RATES, "steps": {a: arms[a].config.train.steps for a in arms}},
        tables=(time_table(times), memory_table(memory, sized)),
        figures={
            "noise": noise_figure(sizes, variances),
            "curves": curve_figure(curves, TARGETS),
            "stream": comparison_figure(streamed),
        },
        claims=(
            *noise_claims(sizes, variances, accumulated),
            *memory_claims(memory, sized, accumulated, setting.quick),
            *time_claims(times[TARGETS[-1]]),
            *stream_claims(streamed),
        ),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


def plain_sgd(setting: Setting) -> RunConfig:
    """Nothing but w -= lr * gradient: no momentum, decay, clipping or schedule."""
    from windtunnel.experiments.training_before import small_names

    base = small_names(setting)
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
    from windtunnel.runs.arms import Arm

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
        train = base.train.replace(
            batch_size=min(size, n), n_examples=names, steps=steps, eval_every=max(1, steps // 64)
        )
        arms[name] = Arm(name, base.replace(train=train, optimizer=base.optimizer.replace(lr=RATES[size])))
    return arms


def subject_of(base: RunConfig, n: int, seed: int) -> Subject:
    """The model as it begins, its config resolved."""
    from windtunnel.inspect.doctor.subject import recipe_subject

    return recipe_subject("names", base.replace(seed=seed, train=base.train.replace(n_examples=n)))


def len_of(subject: Subject) -> int:
    """All names that there are to train on."""
    from windtunnel.text.batches import examples

    return len(examples(subject.store, "train", subject.config.model.context_length))


def noise(subject: Subject, n: int, sizes: tuple[int, ...], setting: Setting) -> tuple[np.ndarray, tuple[float, float]]:
    """Variances (epochs, sizes); and how far the full batch's gradient changes by another order, and by parts of 32."""
    from windtunnel.training.draws import train_examples

    config = subject.config
    source = train_examples(config.replace(train=config.train.replace(n_examples=n)), subject.store)
    epochs = range(setting.seed, setting.seed + 5)
    variances = gradient_variance(subject.model, source, sizes, epochs)
    whole, other = (gradient_of(subject.model, source, n, 1, seed) for seed in epochs[:2])
    parts = gradient_of(subject.model, source, n, n // 32, epochs[0])
    return variances, (apart(whole, other), apart(whole, parts))


def noise_claims(sizes: tuple[int, ...], variances: np.ndarray, accumulated: tuple[float, float]) -> list[Claim]:
    """The noise of the gradient against the batch size."""
    slope = slopes(sizes, variances)
    ends = f"{variances[:, 0].mean():.3g} at B = {sizes[0]}, {variances[:, -1].mean():.3g} at B = {sizes[-1]}"
    return [
        Claim(
            "002-5.1", "the variance of a batch's gradient falls like 1/B", "", f"slope in log-log {slope}; {ends}",
            within(slope, -1.1, -0.9), {"slope": slope, "variances": variances.mean(axis=0).tolist()},
        ),
        equal("002-5.1", "a full batch has none: in any order the same gradient", "", [accumulated[0]], 1e-5),
    ]  # fmt: skip


def memory_claims(
    memory: Mapping[int, int], sized: Comparison, accumulated: tuple[float, float], quick: bool
) -> list[Claim]:
    """The first scenario's memory: what a batch takes, what fits a GPU, and whether memory alone decides."""
    from windtunnel.models import TransformerConfig
    from windtunnel.training.recipes import small

    each = {size: bytes / size for size, bytes in memory.items()}
    model = small("names").model if quick else TransformerConfig()
    two = activation_memory(model, (1, 2))
    fits = GPU // (two[2] - two[1])
    peaks = {arm.name: arm.peak_memory for arm in sized.arms}
    measured = ", ".join(f"{name} {peak / 2**20:.0f} MiB" for name, peak in peaks.items() if peak)
    whole, mini = max(memory), 32
    return [
        equal(
            "002-5.1", "activations grow in proportion to the batch", "memory limits",
            [abs(x / each[whole] - 1) for x in each.values()], 0.02,
            shown=f"{each[whole] / 1024:.1f} KiB a name" + (f"; whole processes added {measured}" if measured else ""),
        ),
        Claim(
            "002-5.1", f"on a GPU with 16 GiB a batch of {whole:,} does not fit, a mini-batch does", "mini-batch",
            f"{'recipe small' if quick else 'GPT-2 small'}: {(two[2] - two[1]) / 2**30:.3f} GiB of activations an "
            f"example at the full context, so at most {fits:,} fit",
            exactly(1 < fits < whole), {"fits": fits, "bytes": two[2] - two[1]},
        ),
        Claim(
            "002-5.1", "so memory alone rules the full batch out", "",
            f"in micro-batches of {mini} its gradient is the same but for {accumulated[1]:.1e} and all "
            f"{whole:,} names take {memory[mini] / 2**20:.1f} MiB instead of {memory[whole] / 2**20:,.0f}: "
            "it costs time, not memory",
            exactly(accumulated[1] > 1e-4), {"apart": accumulated[1], "bytes": dict(memory)},
        ),
    ]  # fmt: skip


def time_claims(times: Mapping[str, list[Reached]]) -> list[Claim]:
    """Whether the mini-batch comes to the loss sooner; a censored run counts as what it spent, a lower bound."""
    claims = []
    for name in (FULL, ONE):
        longer, own = times_longer(times[name], times[MINI]), times[name]
        censored = [one for one in own if one.censored]
        said = "the mini-batch itself did not come there with every seed" if longer is None else f"{longer} times"
        if censored:
            steps = max(one.steps for one in censored)
            said = f"{len(censored)} of {len(own)} never came there in {steps:,} steps; at least: {said}"
        claims.append(Claim(
            "002-5.1", f"the mini-batch reaches {TARGETS[-1]} nats in less time than {name}", "mini-batch",
            f"time of {name}: {said}", "undecided" if longer is None else within(longer, 1, np.inf),
            {"times_as_long": said, "censored": len(censored)},
        ))  # fmt: skip
    return claims


def stream_claims(streamed: Comparison) -> list[Claim]:
    """The second scenario: every example once, against a few again and again, and against small batches of it."""
    from windtunnel.experiments.training_before import is_judged

    told = (
        (
            STORED,
            "each example once is better than an eighth of them kept, for the same number of updates",
            "streaming",
        ),
        (BUFFER, "one at a time is better than batches of 32 of the same stream", "SGD"),
    )
    judged = {j.arm: j for j in streamed.judgements}
    return [
        Claim("002-5.1", says, source, judged[arm].sentence, is_judged(judged[arm], "worse"),
              {"difference": judged[arm].verdict.difference, "word": judged[arm].verdict.word})
        for arm, says, source in told
    ]  # fmt: skip


def time_table(times: Mapping[float, Mapping[str, list[Reached]]]) -> Table:
    """Steps, names and seconds to each target, over the seeds."""
    rows = [
        (
            f"{target:g}", name, f"{sum(not one.censored for one in found)} of {len(found)}",
            summary(found, lambda one: one.steps, ",.0f"), summary(found, lambda one: one.examples, ",.0f"),
            summary(found, lambda one: one.seconds, ".2f"),
        )
        for target, arms in times.items()
        for name, found in arms.items()
    ]  # fmt: skip
    title = "To a dev loss, over the seeds; seconds of training as the runs shared the machine"
    return Table(title, ("nats", "descent", "reached", "steps", "names", "seconds"), tuple(rows))


def memory_table(memory: Mapping[int, int], sized: Comparison) -> Table:
    """Activations by the formula, and what the processes really took."""
    peaks = {1: ONE, 32: MINI, 1024: FULL}
    measured = {arm.name: arm.peak_memory for arm in sized.arms}
    rows = []
    for size, bytes in memory.items():
        peak = measured.get(peaks.get(size, ""))
        rows.append((f"{size:,}", f"{bytes / 2**20:,.2f}", f"{peak / 2**20:,.0f}" if peak else "-"))
    return Table(
        "Memory, MiB", ("names in a batch", "activations at the full context", "measured: process"), tuple(rows)
    )
