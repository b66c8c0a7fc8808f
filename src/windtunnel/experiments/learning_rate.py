"""002-5.2: the loss hardly falls; the rate is raised, and now it fluctuates. What was wrong, before and after?

First on L = a w²/2, where the bound 2/a can be proved; then on a small transformer, examined by the training doctor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from windtunnel.experiments.frame import Findings, Given, Progress, Row, Setting, Steps, draw, table
from windtunnel.experiments.training import AS_GOOD, small_names, trained, verdicts
from windtunnel.inspect.doctor.checks import judge
from windtunnel.inspect.doctor.curvature import largest_curvature
from windtunnel.inspect.doctor.exam import Examination, measure
from windtunnel.inspect.doctor.short_training import train_copy
from windtunnel.inspect.doctor.subject import recipe_subject
from windtunnel.report.charts import lines
from windtunnel.runs.arms import Arm
from windtunnel.stats.intervals import mean_interval, paired_difference
from windtunnel.training.run_config import RunConfig

ROW = Row("002-5.2")
CURVATURES = (0.5, 3.0, 40.0)
SHARES = (0.3, 0.95, 0.99, 1.0, 1.01, 1.05)
"""Learning rates on the quadratic as shares of the bound."""
SMALL, GOOD, LARGE = 1e-4, 5e-3, 0.1
TINY = 1e-9
"""More than nothing."""
NAMES = 128
"""Of the story: all of them are in every step."""


def learning_rate(at: Setting) -> Findings:
    """A learning rate too small, then too large.

    Gradient descent was run on quadratics around the bound 2/a. Then a small transformer learned names with a rate
    that the training doctor finds too small; it was raised too far and, beside it, to a good one; and rates and
    schedules were compared on paired seeds.
    """
    yield from quadratic()
    base, seeds = small_names(at), at.seeds(6)
    base = base.replace(train=base.train.replace(steps=at.size(600, quick=8)))
    yield Given({"rates": [SMALL, GOOD, LARGE], "steps": base.train.steps, "names of the story": NAMES})
    exams: dict[float, Examination] = {}
    for rate in at.size((SMALL, LARGE, GOOD), quick=(SMALL, LARGE)):
        yield Progress("examinations", len(exams), 3)
        exams[rate] = measure(recipe_subject(f"lr {rate:g}", at_rate(base, rate)))
    yield from examined(exams)
    slow, steps = at.size((40, 60), quick=(6, 6))
    stories = yield from told(base, seeds, slow, steps)
    yield from story(stories, slow)
    yield from cures(at, base, seeds)


def path(a: float, lr: float, steps: int, momentum: float = 0.0, start: float = 1.0) -> np.ndarray:
    """The weight (steps + 1,) under gradient descent on a w²/2, whose gradient is a w; stopped where it explodes."""
    w, velocity, found = start, 0.0, [start]
    for _ in range(steps):
        velocity = momentum * velocity + a * w
        w -= lr * velocity
        found.append(w)
        if abs(w) > 1e30:
            break
    return np.array(found)


def ends(share: float, momentum: float = 0.0) -> list[float]:
    """|w| at last for every curvature, the rate being this share of the bound 2 (1 + momentum) / a."""
    bounds = [(a, 2 * (1 + momentum) / a) for a in CURVATURES]
    return [float(abs(path(a, share * bound, 3000, momentum)[-1])) for a, bound in bounds]


def quadratic() -> Findings:
    """Below, at and above 2/a; with momentum; and the bound that the doctor computes."""
    below, at, above = ends(0.99), ends(1.0), ends(1.01)
    slow, fast = ends(0.99, momentum=0.9), ends(1.01, momentum=0.9)
    shown = f"from 1 to at most {max(below):.1e} in 3,000 steps"
    yield ROW.shows("on a w²/2 a rate 1 % below 2/a converges", max(below) < 1e-20, shown, "lr < 2/a", ends=below)
    yield ROW.equal("at 2/a it jumps between w and -w for ever", [abs(w - 1) for w in at], 1e-9)
    shown = f"from 1 to at least {min(above):.1e}"
    yield ROW.shows("1 % above 2/a it diverges", min(above) > 1e20, shown, "lr > 2/a", ends=above)
    shown = f"1 % below it ends at most at {max(slow):.1e}, 1 % above at least at {min(fast):.1e}"
    holds = max(slow) < 1e-3 and min(fast) > 1e3
    yield ROW.shows("with momentum .9 the bound is 2 (1 + .9) / a", holds, shown, below=slow, above=fast)
    gaps = [abs(curvature / a - 1) for a, curvature in zip(CURVATURES, doctors_curvatures(), strict=True)]
    yield ROW.equal("the doctor's curvature of these quadratics is a", gaps, 1e-2)
    rows = ((f"{share:g}", *(f"{w:.3g}" for w in ends(share))) for share in SHARES)
    yield table("|w| after 3,000 steps from 1", ("rate · a / 2", *(f"a = {a:g}" for a in CURVATURES)), rows)
    paths = {f"rate · a / 2 = {share:g}": (range(41), path(1.0, 2 * share, 40)) for share in SHARES}
    sizes = {name: (steps, np.abs(w)) for name, (steps, w) in paths.items()}
    signed = lines(paths, xlabel="step", ylabel="w", xlim=(0, 20), ylim=(-3, 3))
    yield draw("quadratic", signed, lines(sizes, log="y", xlabel="step", ylabel="|w|", ylim=(1e-4, 1e2)))


def doctors_curvatures() -> list[float]:
    """The largest eigenvalue that power iteration finds, the quadratic being one of ten directions."""
    found = []
    for a in CURVATURES:
        w = torch.ones(10, dtype=torch.float64, requires_grad=True)
        diagonal = torch.linspace(0.05, 1.0, 10, dtype=torch.float64) * a
        found.append(largest_curvature((diagonal * w**2).sum() / 2, [w], 200, enough=1e-5)[0])
    return found


def at_rate(base: RunConfig, rate: float, curve: str = "constant", warmup: int = 0) -> RunConfig:
    """The same training at another rate and with another schedule."""
    schedule = base.schedule.replace(curve=curve, warmup=warmup)
    return base.replace(optimizer=base.optimizer.replace(lr=rate), schedule=schedule)


def examined(exams: Mapping[float, Examination]) -> Findings:
    """What the doctor says of each rate; its range test with the rates, and its short training at each of them."""
    says = {
        SMALL: ("learning rate too small", f"before: the doctor names lr {SMALL:g} learning rate too small"),
        LARGE: ("learning rate too large", f"after: the doctor names lr {LARGE:g} learning rate too large"),
        GOOD: ("", f"and has nothing against lr {GOOD:g}"),
    }
    for rate, exam in exams.items():
        name, statement = says[rate]
        findings = [f for f in judge(exam) if f.name.startswith("learning rate")]
        named = [f.name for f in findings]
        said = "; ".join(f"{f.name}: {f.evidence}; cure: {f.cure}" for f in findings)
        shown = said or f"no finding about the rate in {exam.steps} steps"
        yield ROW.shows(statement, named == ([name] if name else []), shown, name, findings=named, lr=rate)
    tried, ylabel = next(iter(exams.values())).range, "loss, nats per token"
    left = lines(
        {"range test, smoothed": (tried.lrs, tried.smoothed)}, down={f"lr {rate:g}": rate for rate in exams}, log="x",
        xlabel="learning rate, rising in one training", ylabel=ylabel,
        ylim=(min(tried.smoothed) - 0.1, 1.3 * tried.smoothed[0]),
    )  # fmt: skip
    losses = {f"lr {rate:g}": exam.training.losses for rate, exam in exams.items()}
    curves = {name: (range(1, len(own) + 1), own) for name, own in losses.items()}
    yield draw("examinations", left, lines(curves, xlabel="step of the doctor's short training", ylabel=ylabel))


Stories = Mapping[float, Sequence[Sequence[float]]]
"""By the rate to which it was raised, of each seed the loss at every step."""


def told(base: RunConfig, seeds: Sequence[int], slow: int, steps: int) -> Steps[Stories]:
    """The losses of each seed with the rate raised after `slow` steps, to too large a one and to a good one.

    Every step sees the same names, all of them: nothing fluctuates but by the rate.
    """
    config = base.replace(train=base.train.replace(batch_size=NAMES, n_examples=NAMES, steps=slow + steps))
    found: dict[float, list[Sequence[float]]] = {LARGE: [], GOOD: []}
    for i, seed in enumerate(seeds):
        subject = recipe_subject("story", config.replace(seed=seed))
        for j, raised in enumerate(found):
            yield Progress("the rate is raised", 2 * i + j, 2 * len(seeds))
            rates = [SMALL] * slow + [raised] * steps
            done = train_copy(subject.model, subject.config, subject.task, len(rates), rates.__getitem__)
            found[raised].append(done.losses)
    return found


def story(stories: Stories, slow: int) -> Findings:
    """How slow it was, and how far the loss rose again, in nats over all steps after the raise."""
    before = [(losses[0] - losses[slow]) / slow for losses in stories[GOOD]]
    after = [(losses[slow] - losses[-1]) / (len(losses) - 1 - slow) for losses in stories[GOOD]]
    shown = f"{mean_interval(before)} nats per step, and {mean_interval(after)} when the rate is raised to {GOOD:g}"
    statement, faster = f"before: the loss falls slowly at lr {SMALL:g}", paired_difference(before, after)
    yield ROW.within(statement, faster, TINY, printed="very slow", shown=shown)
    risen = {rate: [float(np.diff(losses[slow:]).clip(min=0).sum()) for losses in own] for rate, own in stories.items()}
    yield ROW.within(
        f"after: at lr {LARGE:g} it fluctuates by overshooting, not by noise",
        paired_difference(risen[GOOD], risen[LARGE]), TINY, printed="fluctuates",
        shown=f"the same {NAMES} names in every step, yet the loss rose by {np.mean(risen[LARGE]):.2f} nats in all, at "
        f"{GOOD:g} by {np.mean(risen[GOOD]):.2f}; difference {{}}",
    )  # fmt: skip
    curves = {f"raised to {rate:g}": (range(len(own[0])), own) for rate, own in stories.items()}
    panel = lines(curves, down={"the rate is raised": slow}, xlabel="step", ylabel="loss of all names, nats per token")
    yield draw("story", panel)


def cures(at: Setting, base: RunConfig, seeds: Sequence[int]) -> Findings:
    """The arms against the good constant rate, and the large rate with a schedule against without.

    The schedule: warm-up over a tenth of the steps, then a cosine to a tenth of the rate.
    """
    cosine, schedule = ("cosine", base.train.steps // 10), "warm-up and cosine"
    arms = {"good, constant": at_rate(base, GOOD), "too small": at_rate(base, SMALL), "too large": at_rate(base, LARGE)}
    arms |= {f"good, {schedule}": at_rate(base, GOOD, *cosine), f"too large, {schedule}": at_rate(base, LARGE, *cosine)}
    found = yield from trained(at, "learning rates", [Arm(*arm) for arm in arms.items()], seeds, "comparison")
    says = {
        "too small": (f"lr {SMALL:g} ends worse than {GOOD:g}", ("worse",)),
        "too large": (f"lr {LARGE:g} ends worse than {GOOD:g}", ("worse",)),
        f"good, {schedule}": (f"at {GOOD:g} warm-up and cosine are better than a constant rate", ("better",)),
        f"too large, {schedule}": (f"a schedule makes {LARGE:g} as good as {GOOD:g}", AS_GOOD),
    }
    yield from verdicts(ROW, found, says, named=True)
    large = [Arm(name, arms[name]) for name in ("too large", f"too large, {schedule}")]
    found = yield from trained(at, "a schedule for the large rate", large, seeds, "schedule")
    yield ROW.judged(f"a schedule helps {LARGE:g}", found.judgements[0], ["better"], "schedule, warm-up")
