"""The test of a study: what was forecast for a budget that was not fitted, against what its runs reach."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windtunnel.config import plain
from windtunnel.scaling.design import Design, Size
from windtunnel.scaling.fit import Forecast
from windtunnel.scaling.runner import News, Runner
from windtunnel.stats.intervals import Estimate, mean_interval, paired_difference

FEWEST_SEEDS = 4
"""With fewer pairs no size is called the best."""
Verdict = Literal["the best of them", "not the best of them", "undecided"]


@dataclass(frozen=True)
class HoldOut:
    """Predicted and measured at a budget beyond those that were fitted.

    predicted, measured: nats per target, of the forecast size; `by` is the fit that predicted it.
    losses: of each size trained, seed by seed.
    """

    budget: float
    size: Size
    predicted: Estimate
    by: str
    measured: Estimate
    losses: Mapping[int, tuple[float, ...]]
    verdict: Verdict
    reason: str

    @property
    def error(self) -> float:
        """The measured loss by the predicted one, less 1."""
        return self.measured.estimate / self.predicted.estimate - 1

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the band of the prediction."""
        return self.predicted.low <= self.measured.estimate <= self.predicted.high

    def __str__(self) -> str:
        p, where = self.predicted, "inside" if self.inside else "outside"
        return (
            f"{self.budget:.1e} FLOPs on {self.size.parameters:,} parameters: predicted {p.estimate:.4f} "
            f"[{p.low:.4f}, {p.high:.4f}] by the {self.by}, measured {self.measured.estimate:.4f} ({self.error:+.2%}), "
            f"{where} the band; of the {len(self.losses)} sizes trained it is {self.verdict}: {self.reason}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**plain(self), "losses": {str(n): list(of) for n, of in self.losses.items()},
                "error": self.error, "inside": self.inside}  # fmt: skip


def hold_out(
    design: Design, forecast: Forecast, seeds: Sequence[int], runner: Runner
) -> Generator[News, None, HoldOut | str]:
    """Train the forecast size and its neighbours at the forecast's budget, and judge; or say why there is no test."""
    predicted, by = (forecast.loss, "envelope") if forecast.loss else (forecast.law_loss, "parametric law")
    if forecast.parameters is None or predicted is None:
        what = "size" if forecast.parameters is None else "loss"
        return f"there is no forecast to test: no {what} is forecast, since its fit was refused"
    size, budget = design.nearest(forecast.parameters.estimate), forecast.compute
    arms = {one: design.arm(one, budget) for one in design.around(forecast.parameters.estimate, 3)}
    found = yield from runner.losses(list(arms.values()), seeds)
    losses = {one.parameters: tuple(found[arm.name, seed] for seed in seeds) for one, arm in arms.items()}
    verdict, reason = judge(losses, size.parameters)
    measured = mean_interval(losses[size.parameters])
    return HoldOut(budget, size, predicted, by, measured, losses, verdict, reason)


def judge(losses: Mapping[int, Sequence[float]], own: int) -> tuple[Verdict, str]:
    """Whether the size with `own` parameters is the best, by paired t intervals that hold together at 95 %.

    Args:
        losses: by number of parameters, the same seeds in the same order.
    """
    n, others = len(losses[own]), [size for size in losses if size != own]
    if n < FEWEST_SEEDS:
        seeds = "one seed" if n == 1 else f"{n} paired seeds"
        return "undecided", f"{seeds} of at least {FEWEST_SEEDS} (--hold-out-seeds {FEWEST_SEEDS})"
    try:
        gaps = {size: paired_difference(losses[own], losses[size], 1 - 0.05 / len(others)) for size in others}
    except ValueError:
        return "undecided", "a run diverged"
    worse = [size for size, gap in gaps.items() if gap.high < 0]
    if worse:
        return "not the best of them", f"{min(worse):,} parameters end lower in {n} paired seeds"
    open_ = [f"{size:,}" for size, gap in gaps.items() if gap.low <= 0]
    if open_:
        return "undecided", f"{n} paired seeds do not tell it from {' and '.join(open_)} parameters"
    return "the best of them", f"all others end higher in {n} paired seeds"
