"""002-5.2: the loss hardly falls; the rate is raised, and now it fluctuates. What was wrong, before and after?

First on L = a w²/2, where the bound 2/a can be proved; then on a small transformer, examined by the training doctor.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature, within
from windtunnel.experiments.learning_rate_figures import examination_figure, path_figure, story_figure
from windtunnel.stats.intervals import mean_interval, paired_difference

if TYPE_CHECKING:
    from windtunnel.comparison.comparison import Comparison
    from windtunnel.inspect.doctor.exam import Examination
    from windtunnel.runs.arms import Arm
    from windtunnel.training.run_config import RunConfig

CURVATURES = (0.5, 3.0, 40.0)
SHARES = (0.3, 0.95, 0.99, 1.0, 1.01, 1.05)
"""Learning rates on the quadratic as shares of the bound."""
SMALL, GOOD, LARGE = 1e-4, 5e-3, 0.1
TINY = 1e-9
"""More than nothing."""
NAMES = 128
"""Of the story: all of them are in every step."""


def learning_rate(setting: Setting) -> Generator[Progress, None, Outcome]:
    """What was wrong when a loss was slow, and fluctuated when the rate was raised?"""
    from windtunnel.experiments.training_before import compared, small_names
    from windtunnel.report.comparison_figure import comparison_figure

    base, n = small_names(setting), 2 if setting.quick else 6
    base = base.replace(train=base.train.replace(steps=8 if setting.quick else 600))
    seeds = range(setting.seed, setting.seed + n)
    exams = {}
    rates = (SMALL, LARGE) if setting.quick else (SMALL, LARGE, GOOD)
    for i, rate in enumerate(rates):
        yield Progress("examinations", i, len(rates))
        exams[rate] = examination(constant(base, rate))
    slow, steps = (6, 6) if setting.quick else (40, 60)
    stories = yield from told(base, seeds, slow, steps)
    arms = arms_of(base)
    cures = yield from compared("learning rates", list(arms.values()), seeds, setting)
    large = [arms["too large"], arms["too large, warm-up and cosine"]]
    scheduled = yield from compared("a schedule for the large rate", large, seeds, setting)
    return Outcome(
        title="A learning rate too small, then too large",
        what="Gradient descent was run on quadratics around the bound 2/a. Then a small transformer learned names with "
        "a rate that the training doctor finds too small; it was raised too far and, beside it, to a good one; "
        "and rates and schedules were compared on paired seeds.",
        settings={"rates": [SMALL, GOOD, LARGE], "steps": base.train.steps, "seeds": n, "names of the story": NAMES},
        tables=(quadratic_table(),),
        figures={
            "quadratic": path_figure({share: path(1.0, 2 * share, 40) for share in SHARES}),
            "examinations": examination_figure(exams),
            "story": story_figure(stories, slow),
            "comparison": comparison_figure(cures),
        },
        claims=(
            *quadratic_claims(),
            *examination_claims(exams),
            *story_claims(stories, slow),
            *comparison_claims(cures, scheduled),
        ),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "torch")),
    )


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


def quadratic_claims() -> list[Claim]:
    """Below, at and above 2/a; with momentum; and the bound that the doctor computes."""
    below, at, above = ends(0.99), ends(1.0), ends(1.01)
    slow, fast = ends(0.99, momentum=0.9), ends(1.01, momentum=0.9)
    gaps = [abs(curvature / a - 1) for a, curvature in zip(CURVATURES, doctors_curvatures(), strict=True)]
    return [
        Claim(
            "002-5.2", "on a w²/2 a rate 1 % below 2/a converges", "lr < 2/a",
            f"from 1 to at most {max(below):.1e} in 3,000 steps", exactly(max(below) < 1e-20), {"ends": below},
        ),
        equal("002-5.2", "at 2/a it jumps between w and -w for ever", "", [abs(w - 1) for w in at], 1e-9),
        Claim(
            "002-5.2", "1 % above 2/a it diverges", "lr > 2/a",
            f"from 1 to at least {min(above):.1e}", exactly(min(above) > 1e20), {"ends": above},
        ),
        Claim(
            "002-5.2", "with momentum .9 the bound is 2 (1 + .9) / a", "",
            f"1 % below it ends at most at {max(slow):.1e}, 1 % above at least at {min(fast):.1e}",
            exactly(max(slow) < 1e-3 and min(fast) > 1e3), {"below": slow, "above": fast},
        ),
        equal("002-5.2", "the doctor's curvature of these quadratics is a", "", gaps, 1e-2),
    ]  # fmt: skip


def doctors_curvatures() -> list[float]:
    """The largest eigenvalue that power iteration finds, the quadratic being one of ten directions."""
    import torch

    from windtunnel.inspect.doctor.curvature import largest_curvature

    found = []
    for a in CURVATURES:
        w = torch.ones(10, dtype=torch.float64, requires_grad=True)
        diagonal = torch.linspace(0.05, 1.0, 10, dtype=torch.float64) * a
        found.append(largest_curvature((diagonal * w**2).sum() / 2, [w], 200, enough=1e-5)[0])
    return found


def quadratic_table() -> Table:
    rows = tuple((f"{share:g}", *(f"{w:.3g}" for w in ends(share))) for share in SHARES)
    return Table("|w| after 3,000 steps from 1", ("rate · a / 2", *(f"a = {a:g}" for a in CURVATURES)), rows)


def constant(base: RunConfig, rate: float) -> RunConfig:
    schedule = base.schedule.replace(curve="constant", warmup=0)
    return base.replace(optimizer=base.optimizer.replace(lr=rate), schedule=schedule)


def scheduled_at(base: RunConfig, rate: float) -> RunConfig:
    """Warm-up over a tenth of the steps, then a cosine to a tenth of the rate."""
    schedule = base.schedule.replace(curve="cosine", warmup=base.train.steps // 10)
    return base.replace(optimizer=base.optimizer.replace(lr=rate), schedule=schedule)


def arms_of(base: RunConfig) -> dict[str, Arm]:
    """The baseline is the good constant rate."""
    from windtunnel.runs.arms import Arm

    configs = {
        "good, constant": constant(base, GOOD),
        "too small": constant(base, SMALL),
        "too large": constant(base, LARGE),
        "good, warm-up and cosine": scheduled_at(base, GOOD),
        "too large, warm-up and cosine": scheduled_at(base, LARGE),
    }
    return {name: Arm(name, config) for name, config in configs.items()}


def examination(config: RunConfig) -> Examination:
    """What `windtunnel check` measures of this config."""
    from windtunnel.inspect.doctor.exam import measure
    from windtunnel.inspect.doctor.subject import recipe_subject

    return measure(recipe_subject(f"lr {config.optimizer.lr:g}", config))


def examination_claims(exams: Mapping[float, Examination]) -> list[Claim]:
    """What the doctor says of each rate."""
    from windtunnel.inspect.doctor.checks import judge

    claims = []
    for rate, name in ((SMALL, "learning rate too small"), (LARGE, "learning rate too large"), (GOOD, "")):
        if rate not in exams:
            continue
        findings = [f for f in judge(exams[rate]) if f.name.startswith("learning rate")]
        said = "; ".join(f"{f.name}: {f.evidence}; cure: {f.cure}" for f in findings)
        named = [f.name for f in findings]
        when = {SMALL: "before: ", LARGE: "after: "}.get(rate, "")
        statement = f"{when}the doctor names lr {rate:g} {name}" if name else f"and has nothing against lr {rate:g}"
        verdict = exactly(named == ([name] if name else []))
        measured = said or f"no finding about the rate in {exams[rate].steps} steps"
        claims.append(Claim("002-5.2", statement, name, measured, verdict, {"findings": named, "lr": rate}))
    return claims


def told(
    base: RunConfig, seeds: Sequence[int], slow: int, steps: int
) -> Generator[Progress, None, dict[float, list[tuple[float, ...]]]]:
    """The losses of each seed with the rate raised after `slow` steps, to too large a one and to a good one.

    Every step sees the same names, all of them: nothing fluctuates but by the rate.
    """
    from windtunnel.inspect.doctor.short_training import train_copy
    from windtunnel.inspect.doctor.subject import recipe_subject
    from windtunnel.training.draws import train_examples

    config = base.replace(train=base.train.replace(batch_size=NAMES, n_examples=NAMES, steps=slow + steps))
    found: dict[float, list[tuple[float, ...]]] = {LARGE: [], GOOD: []}
    for i, seed in enumerate(seeds):
        subject = recipe_subject("story", config.replace(seed=seed))
        source = train_examples(config, subject.store)
        for j, raised in enumerate(found):
            yield Progress("the rate is raised", 2 * i + j, 2 * len(seeds))
            rates = [SMALL] * slow + [raised] * steps
            found[raised].append(
                train_copy(subject.model, subject.config, source, len(rates), rates.__getitem__).losses
            )
    yield Progress("the rate is raised", 2 * len(seeds), 2 * len(seeds))
    return found


def story_claims(stories: Mapping[float, Sequence[Sequence[float]]], slow: int) -> list[Claim]:
    """How slow it was, and how far the loss rose again, in nats over all steps after the raise."""
    before = [(losses[0] - losses[slow]) / slow for losses in stories[GOOD]]
    after = [(losses[slow] - losses[-1]) / (len(losses) - 1 - slow) for losses in stories[GOOD]]
    faster = paired_difference(before, after)
    risen = {rate: [float(np.diff(losses[slow:]).clip(min=0).sum()) for losses in own] for rate, own in stories.items()}
    more = paired_difference(risen[GOOD], risen[LARGE])
    return [
        Claim(
            "002-5.2", f"before: the loss falls slowly at lr {SMALL:g}", "very slow",
            f"{mean_interval(before)} nats a step, and {mean_interval(after)} when the rate is raised to {GOOD:g}",
            within(faster, TINY, np.inf), {"slow": mean_interval(before), "faster_by": faster},
        ),
        Claim(
            "002-5.2", f"after: at lr {LARGE:g} it fluctuates by overshooting, not by noise", "fluctuates",
            f"the same {NAMES} names in every step, yet the loss rose by {np.mean(risen[LARGE]):.2f} nats in all, at "
            f"{GOOD:g} by {np.mean(risen[GOOD]):.2f}; difference {more}",
            within(more, TINY, np.inf), {"more": more},
        ),
    ]  # fmt: skip


def comparison_claims(cures: Comparison, scheduled: Comparison) -> list[Claim]:
    """The arms against the good constant rate, and the large rate with a schedule against without."""
    from windtunnel.experiments.training_before import is_judged

    judged = {j.arm: j for j in cures.judgements}
    alone = scheduled.judgements[0]
    told = (
        ("too small", f"lr {SMALL:g} ends worse than {GOOD:g}", ("worse",)),
        ("too large", f"lr {LARGE:g} ends worse than {GOOD:g}", ("worse",)),
        ("good, warm-up and cosine", f"at {GOOD:g} warm-up and cosine are better than a constant rate", ("better",)),
        ("too large, warm-up and cosine", f"a schedule makes {LARGE:g} as good as {GOOD:g}",
         ("better", "no difference that matters")),
    )  # fmt: skip
    claims = [
        Claim("002-5.2", says, "", judged[arm].sentence, is_judged(judged[arm], *words),
              {"difference": judged[arm].verdict.difference, "word": judged[arm].verdict.word})
        for arm, says, words in told
    ]  # fmt: skip
    claims.append(Claim(
        "002-5.2", f"a schedule helps {LARGE:g}", "schedule, warm-up", alone.sentence, is_judged(alone, "better"),
        {"difference": alone.verdict.difference, "word": alone.verdict.word},
    ))  # fmt: skip
    return claims
