"""000-Q5: three estimates of a coin's rate from k heads of n, and how often their intervals are right.

Everything is checked against plain sums over a grid of rates; coverage is exact, a sum over all outcomes.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, exactly, signature
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.report.stats_figures import posterior_figure
from windtunnel.stats.bayes import BetaBernoulli, coin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

CASES = ((7, 10), (0, 10), (1, 1))  # k, n
N = 10  # tosses, for the coverage
METHODS = ("k/n ± 1.96 standard errors", "Wilson", "equal-tailed credible", "highest density")


def coin_estimators(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Which estimate of a coin is which, and which interval is right?"""
    n_rates = 2000 if setting.quick else 20_000
    yield Progress("coins", 0, 2)
    coins = [coin(k, n) for k, n in CASES]
    grids = [by_grid(found) for found in coins]
    yield Progress("coverage of every interval", 1, 2)
    rates = (np.arange(n_rates) + 0.5) / n_rates
    chance = outcome_chances(rates)
    covered = {method: coverage(method, rates, chance) for method in METHODS}
    errors = squared_errors(rates, chance)
    return Outcome(
        title="Three estimates of a coin",
        what=f"The MLE, the posterior mean and the MAP (flat prior) were compared with sums over a grid of rates. How "
        f"often each interval holds the true rate was summed over all outcomes of {N} tosses, for {n_rates:,} rates.",
        settings={"cases (k, n)": CASES, "prior": "Beta(1, 1)", "tosses": N, "rates": n_rates},
        tables=(*estimate_tables(coins, grids), coverage_table(rates, covered)),
        figures={"posteriors": posterior_figure(coins), "coverage": coverage_figure(rates, covered)},
        claims=claims(coins, grids, covered, errors),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "scipy")),
    )


def by_grid(found: BetaBernoulli, points: int = 200_001) -> dict[str, float]:
    """Argmax of the likelihood, posterior mean and the mass of both intervals by sums over a grid (flat prior)."""
    theta = np.linspace(0, 1, points)
    likelihood = theta**found.successes * (1 - theta) ** (found.n - found.successes)
    mass = np.concatenate([[0], trapezoids(likelihood).cumsum()])
    spans = {"tails": found.interval, "hdi": found.hdi}
    held = {name: np.interp([e.low, e.high], theta, mass) for name, e in spans.items() if e is not None}
    return {
        "argmax": float(theta[likelihood.argmax()]),
        "mean": float(trapezoids(theta * likelihood).sum() / mass[-1]),
        **{name: float((to - start) / mass[-1]) for name, (start, to) in held.items()},
    }


def trapezoids(values: Floats) -> Floats:
    return (values[1:] + values[:-1]) / 2


def outcome_chances(rates: Floats) -> Floats:
    """P(k heads of N) at every rate strictly between 0 and 1, shape (N + 1, rates)."""
    k = np.arange(N + 1)[:, None]
    choose = gammaln(N + 1) - gammaln(k + 1) - gammaln(N - k + 1)
    return np.exp(choose + k * np.log(rates) + (N - k) * np.log1p(-rates))


def interval(method: str, k: int) -> tuple[float, float]:
    """The 95 % interval of a method after k heads of N."""
    found, half = coin(k, N), 1.959964 * (k / N * (1 - k / N) / N) ** 0.5
    if method == METHODS[0]:
        return k / N - half, k / N + half
    chosen = {METHODS[1]: found.mle, METHODS[2]: found.interval, METHODS[3]: found.hdi}[method]
    assert chosen is not None  # there are tosses, and the posterior is not flat
    return chosen.low, chosen.high


def coverage(method: str, rates: Floats, chance: Floats) -> Floats:
    """How often the interval holds each true rate."""
    low, high = np.array([interval(method, k) for k in range(N + 1)]).T[:, :, None]
    return (chance * ((low <= rates) & (rates <= high))).sum(axis=0)


def squared_errors(rates: Floats, chance: Floats) -> dict[str, float]:
    """Mean squared error of each estimate over outcomes and, evenly, over rates."""
    k = np.arange(N + 1)[:, None]
    guesses = {"MLE": k / N, "posterior mean": (k + 1) / (N + 2)}
    return {name: float((chance * (guess - rates) ** 2).sum(axis=0).mean()) for name, guess in guesses.items()}


def claims(
    coins: list[BetaBernoulli],
    grids: list[dict[str, float]],
    covered: Mapping[str, Floats],
    errors: Mapping[str, float],
) -> tuple[Claim, ...]:
    """The formulas against the grid, and coverage averaged over all rates, which is what the flat prior says."""
    pairs = list(zip(CASES, coins, grids, strict=True))

    def listed(name: str) -> str:
        return ", ".join(f"{grid[name]:.6g}" for grid in grids)

    def calibrated(method: str) -> Claim:
        return equal(
            "000-Q5", f"{method}: right for 95 % (within 1.5 points) of rates drawn evenly", "",
            [abs(float(covered[method].mean()) - 0.95)], 0.015,
        )  # fmt: skip

    return (
        equal(
            "000-Q5", "(a) the MLE is k/n", "k/n",
            [abs(g["argmax"] - k / n) for (k, n), _, g in pairs], 1e-5, listed("argmax"),
        ),
        equal(
            "000-Q5", "(b) the posterior mean is (k+1)/(n+2)", "(k+1)/(n+2)",
            [abs(g["mean"] - (k + 1) / (n + 2)) for (k, n), _, g in pairs], 1e-5, listed("mean"),
        ),
        equal(
            "000-Q5", "(c) the MAP under a flat prior is k/n", "k/n",
            [abs((c.map or 0.0) - k / n) + abs(g["argmax"] - k / n) for (k, n), c, g in pairs], 1e-5,
        ),
        equal(
            "000-Q5", "both credible intervals hold 95 % of the posterior", "",
            [abs(g[name] - 0.95) for g in grids for name in ("tails", "hdi")], 1e-5,
        ),
        *(calibrated(method) for method in METHODS),
        Claim(
            "000-Q5", "the posterior mean errs less than the MLE, averaged over all rates", "",
            f"squared error {errors['posterior mean']:.6f} and {errors['MLE']:.6f}",
            exactly(errors["posterior mean"] < errors["MLE"]), dict(errors),
        ),
    )  # fmt: skip


def estimate_tables(coins: list[BetaBernoulli], grids: list[dict[str, float]]) -> tuple[Table, Table]:
    estimates, intervals = [], []
    for found, grid in zip(coins, grids, strict=True):
        name, mle, hdi = f"{found.successes} of {found.n}", found.mle, found.hdi
        if mle is None or hdi is None:  # no toss
            continue
        numbers = (mle.estimate, found.mean, hdi.estimate, grid["argmax"], grid["mean"])
        estimates.append((name, *(f"{value:.6f}" for value in numbers)))
        intervals.append((name, *(f"[{e.low:.4f}, {e.high:.4f}]" for e in (mle, found.interval, hdi))))
    columns = ("heads", "MLE", "mean", "MAP", "argmax, grid", "mean, grid")
    return (
        Table("Estimates", columns, tuple(estimates)),
        Table("95 % intervals", ("heads", "Wilson", "equal tails", "highest density"), tuple(intervals)),
    )


def coverage_table(rates: Floats, covered: Mapping[str, Floats]) -> Table:
    rows = [
        (name, *(f"{value:.4f}" for value in (c.mean(), c.min(), np.interp(0.1, rates, c), np.interp(0.5, rates, c))))
        for name, c in covered.items()
    ]
    columns = ("interval", "mean over rates", "smallest", "at rate .1", "at rate .5")
    return Table(f"How often a 95 % interval from {N} tosses holds the true rate", columns, tuple(rows))


def coverage_figure(rates: Floats, covered: Mapping[str, Floats]) -> Figure:
    """Coverage against the true rate, a panel an interval."""
    with drawing(9.0, 5.0) as figure:
        panels = figure.subplots(2, 2, sharex=True, sharey=True)
        for axes, (name, c) in zip(panels.flat, covered.items(), strict=True):
            axes.plot(rates, c, color=TRAIN, linewidth=1, label="at this rate")
            axes.axhline(c.mean(), color=DEV, label="mean over rates")
            axes.axhline(0.95, color=QUIET, linestyle="--", label="95 %")
            axes.set_title(f"{name}: mean {c.mean():.3f}", loc="left")
            axes.set(xlim=(0, 1), ylim=(0.5, 1.01))
        for axes in panels[1]:
            axes.set_xlabel("true rate")
        for axes in panels[:, 0]:
            axes.set_ylabel("coverage")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
