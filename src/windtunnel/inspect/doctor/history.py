"""What the losses of a run's own history say: spikes, divergence, dev loss that rises, a loss still falling."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.stats.intervals import Estimate
from windtunnel.tasks import METRICS
from windtunnel.training.events import Evaluation, Event, Step, Stopped

PAST = 25
"""Steps; a loss is compared with the median of this many losses before it."""
SPIKE = 8.0
"""Standard deviations (from the median absolute deviation) above it: normal noise does so once in 1e15 steps, and
Student's t with 5 degrees of freedom, a heavy tail, once in 1e4."""


@dataclass(frozen=True)
class History:
    """The training losses by step, the dev losses by step, the gradient norms, and how it ended.

    right: the metric that decides verdicts on dev by step, where more of it is better; its name is `metric`.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    grad_norms: tuple[float, ...]
    dev: tuple[tuple[int, float], ...]
    ended: str
    metric: str = ""
    right: tuple[tuple[int, float], ...] = ()


def history(events: Sequence[Event]) -> History | None:
    """A run's events as columns; of a step that was repeated after a resume the last counts. None without steps."""
    by_step = {e.step: e for e in events if isinstance(e, Step)}
    judged = {e.step: e.scores for e in events if isinstance(e, Evaluation) and e.split == "dev"}
    dev = {step: scores["loss"] for step, scores in judged.items()}
    metric = next((name for scores in judged.values() for name in scores), "")
    metric = metric if metric in METRICS and METRICS[metric].better == "higher" else ""
    if not by_step:
        return None
    last = events[-1]
    rows = [by_step[step] for step in sorted(by_step)]
    return History(
        tuple(row.step for row in rows),
        tuple(row.loss for row in rows),
        tuple(row.grad_norm for row in rows),
        tuple(sorted(dev.items())),
        last.reason if isinstance(last, Stopped) else "",
        metric,
        tuple(sorted((step, scores[metric]) for step, scores in judged.items())) if metric else (),
    )


def spikes(losses: Sequence[float]) -> list[int]:
    """Indices at which the loss stands far above the median of the losses just before it.

    The past only: a falling loss never lies above it. The spread is the losses' own around the line through that
    past, and a rise must also be a twentieth of the loss, since a spike that small does no harm.
    """
    values, found = np.asarray(losses, float), []
    for i in range(PAST, len(values)):
        past = values[i - PAST : i]
        middle = float(np.median(past))
        spread = 1.4826 * float(np.median(np.abs(past - middle)))
        if values[i] > middle + max(SPIKE * spread, 0.05 * abs(middle)):
            found.append(i)
    return found


def best_and_last(losses: Sequence[float]) -> tuple[float, float]:
    """The lowest median over a tenth of the steps, and that of the last tenth."""
    size = max(5, len(losses) // 10)
    if len(losses) < 2 * size:
        return min(losses), losses[-1]
    medians = [statistics.median(losses[i : i + size]) for i in range(0, len(losses) - size + 1, max(1, size // 2))]
    return min(medians), statistics.median(losses[-size:])


def late_fall(losses: Sequence[float], share: float = 0.25) -> Estimate:
    """How much the loss fell over the last share of the steps: a least-squares line with its t interval.

    The batches of the steps are drawn independently of each other, and so nearly are the residuals.
    """
    from scipy.special import stdtrit

    late = np.asarray(losses[-max(8, round(share * len(losses))) :], float)
    n = len(late)
    x = np.arange(n) - (n - 1) / 2
    slope = float(x @ late / (x @ x))
    error = math.sqrt(float(np.sum((late - late.mean() - slope * x) ** 2)) / (n - 2) / float(x @ x))
    half = float(stdtrit(n - 2, 0.975)) * error * (n - 1)
    fall = -slope * (n - 1)
    return Estimate(fall, fall - half, fall + half, n, "least squares, 95 % t interval")
