"""000-Q5: three estimates of a coin's rate from k heads of n, and how often their intervals are right.

Everything is checked against plain sums over a grid of rates; coverage is exact, a sum over all outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import gammaln

from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.report.charts import lines
from windtunnel.report.stats_figures import posterior_figure
from windtunnel.stats.bayes import BetaBernoulli, coin

ROW = Row("000-Q5")

CASES = ((7, 10), (0, 10), (1, 1))  # k, n
N = 10  # tosses, for the coverage
METHODS = ("k/n ± 1.96 standard errors", "Wilson", "equal-tailed credible", "highest density")


def coin_estimators(at: Setting) -> Findings:
    """Three estimates of a coin.

    The MLE, the posterior mean and the MAP (flat prior) were compared with sums over a grid of rates. How often each
    interval holds the true rate was summed over all outcomes of 10 tosses, for many rates.
    """
    n_rates = at.size(20_000, quick=2000)
    yield Given({"cases (k, n)": CASES, "prior": "Beta(1, 1)", "tosses": N, "rates": n_rates})
    yield Progress("coins", 0, 2)
    coins = [coin(k, n) for k, n in CASES]
    yield from estimates(coins, [by_grid(found) for found in coins])
    yield Drawing("posteriors", posterior_figure(coins))
    yield Progress("coverage of every interval", 1, 2)
    yield from covered((np.arange(n_rates) + 0.5) / n_rates)


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


def trapezoids(values: np.ndarray) -> np.ndarray:
    """The mean of each two neighbours."""
    return (values[1:] + values[:-1]) / 2


def outcome_chances(rates: np.ndarray) -> np.ndarray:
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


def coverage(method: str, rates: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """How often the interval holds each true rate."""
    low, high = np.array([interval(method, k) for k in range(N + 1)]).T[:, :, None]
    return (chance * ((low <= rates) & (rates <= high))).sum(axis=0)


def squared_errors(rates: np.ndarray, chance: np.ndarray) -> dict[str, float]:
    """Mean squared error of each estimate over outcomes and, evenly, over rates."""
    k = np.arange(N + 1)[:, None]
    guesses = {"MLE": k / N, "posterior mean": (k + 1) / (N + 2)}
    return {name: float((chance * (guess - rates) ** 2).sum(axis=0).mean()) for name, guess in guesses.items()}


def estimates(coins: Sequence[BetaBernoulli], grids: Sequence[Mapping[str, float]]) -> Findings:
    """The formulas against the grid."""
    pairs = [(k, n, c, g) for (k, n), c, g in zip(CASES, coins, grids, strict=True)]
    argmax, mean = (", ".join(f"{grid[name]:.6g}" for grid in grids) for name in ("argmax", "mean"))
    gaps = [abs(g["argmax"] - k / n) for k, n, _, g in pairs]
    yield ROW.equal("(a) the MLE is k/n", gaps, 1e-5, "k/n", argmax)
    gaps = [abs(g["mean"] - (k + 1) / (n + 2)) for k, n, _, g in pairs]
    yield ROW.equal("(b) the posterior mean is (k+1)/(n+2)", gaps, 1e-5, "(k+1)/(n+2)", mean)
    gaps = [abs((c.map or 0.0) - k / n) + abs(g["argmax"] - k / n) for k, n, c, g in pairs]
    yield ROW.equal("(c) the MAP under a flat prior is k/n", gaps, 1e-5, "k/n")
    gaps = [abs(g[name] - 0.95) for g in grids for name in ("tails", "hdi")]
    yield ROW.equal("both credible intervals hold 95 % of the posterior", gaps, 1e-5)
    tossed = [(f"{k} of {n}", c, g) for k, n, c, g in pairs]
    heads = ("heads", "MLE", "mean", "MAP", "argmax, grid", "mean, grid")
    estimated = [(name, c.mle and c.mle.estimate, c.mean, c.map, g["argmax"], g["mean"]) for name, c, g in tossed]
    yield table("Estimates", heads, estimated)
    spans = ((name, (c.mle, c.interval, c.hdi)) for name, c, _ in tossed)
    rows = ((name, *(e and f"[{e.low:.4f}, {e.high:.4f}]" for e in own)) for name, own in spans)
    yield table("95 % intervals", ("heads", "Wilson", "equal tails", "highest density"), rows)


def covered(rates: np.ndarray) -> Findings:
    """How often each interval is right, averaged over all rates, which is what the flat prior says."""
    chance = outcome_chances(rates)
    found = {method: coverage(method, rates, chance) for method in METHODS}
    for method, own in found.items():
        statement = f"{method}: right for 95 % (within 1.5 points) of rates drawn evenly"
        yield ROW.equal(statement, abs(float(own.mean()) - 0.95), 0.015)
    errors = squared_errors(rates, chance)
    shown = f"squared error {errors['posterior mean']:.6f} and {errors['MLE']:.6f}"
    statement = "the posterior mean errs less than the MLE, averaged over all rates"
    yield ROW.shows(statement, errors["posterior mean"] < errors["MLE"], shown, errors=errors)
    rows = ((name, own.mean(), own.min(), *np.interp((0.1, 0.5), rates, own)) for name, own in found.items())
    heads = ("interval", "mean over rates", "smallest", "at rate .1", "at rate .5")
    yield table(f"How often a 95 % interval from {N} tosses holds the true rate", heads, rows)
    panels = [
        lines({"at this rate": (rates, own)}, {"95 %": 0.95, "mean over rates": own.mean()}, ylim=(0.5, 1.01),
              xlim=(0, 1), title=f"{name}: mean {own.mean():.3f}", xlabel="true rate", ylabel="coverage")
        for name, own in found.items()
    ]  # fmt: skip
    yield draw("coverage", *panels, columns=2, share="xy")
