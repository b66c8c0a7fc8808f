"""000-Q1: what the weights of a logistic regression do when one feature is there twice.

The loss is the mean negative log-likelihood (nats) + λ/2·‖w‖² or + λ·‖w‖₁; the intercept w0 is not penalised.
scikit-learn's C is 1/(λN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, Table, draw, table
from windtunnel.experiments.speed import exponent
from windtunnel.report.charts import Panel, lines
from windtunnel.stats.intervals import mean_interval
from windtunnel.stats.logistic import Floats, information, newton, proximal, sigmoid, with_sklearn

Q1, E1 = Row("000-Q1"), Row("E1")

TRUE = np.array([-0.5, 1.0, -0.7, 2.0])  # w0, the intercept, then w1 to w3; the last is the one that is doubled
L2, L1 = 0.1, 0.05
SPLIT = 5.0  # how far apart the two weights start where they do not start equal
NOISES = (0.3, 0.1, 0.03, 0.01)


def duplicated_feature(at: Setting) -> Findings:
    """A feature that is there twice.

    Logistic regressions were fitted to data with one feature once and twice, without a penalty, with L2 and with L1,
    from equal and from unequal starts. Then the copy was made less and less exact.
    """
    n, n_seeds = at.size((4000, 10), quick=(1000, 4))
    yield Given({"n": n, "data seeds": n_seeds, "true weights": TRUE.tolist(), "l2": L2, "l1": L1, "noises": NOISES})
    fits, errors = [], []
    for i in range(n_seeds):
        yield Progress("data seeds", i, n_seeds)
        rng = np.random.default_rng([at.seed, i])
        x, y = synthetic(n, rng)
        fits.append(fit_all(x, y))
        errors.append([standard_errors(x, y, noise, rng) for noise in NOISES])
    yield from weights(fits)
    yield weight_table(fits[0])
    yield weight_figure(fits)
    se = np.array(errors)  # (seeds, noises, 3): one of the pair, their sum, the feature alone
    yield from almost(se)
    yield error_table(se, information(twice(x), newton(twice(x), y)))
    yield error_figure(se)


def synthetic(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Design matrix (n, 4) with a column of ones first, and labels (n,) drawn from the logistic model with TRUE."""
    x = np.hstack([np.ones((n, 1)), rng.standard_normal((n, len(TRUE) - 1))])
    return x, (rng.random(n) < sigmoid(x @ TRUE)).astype(np.float64)


def twice(x: Floats, noise: Floats | float = 0.0) -> Floats:
    """The last column a second time, with noise (n,) added to the copy."""
    return np.column_stack([x, x[:, -1] + noise])


def fit_all(x: Floats, y: Floats) -> dict[str, Floats]:
    """The weights of every fit; those of the doubled feature are the last two."""
    xx = twice(x)
    apart = np.array([0.0] * (xx.shape[1] - 2) + [SPLIT / 2, -SPLIT / 2])  # the same predictions as all zeros
    uneven = np.array([0.0] * (xx.shape[1] - 2) + [1.0, 0.0])
    kinds: dict[str, tuple[Callable[..., Floats], dict[str, Any], Floats]] = {
        "no penalty": (newton, {}, apart), "L2": (newton, {"l2": L2}, apart), "L1": (proximal, {"l1": L1}, uneven),
    }  # fmt: skip
    fits = {}
    for kind, (fit, strength, start) in kinds.items():
        fits[f"{kind}, once"] = fit(x, y, **strength)
        fits[f"{kind}, twice, equal start"] = fit(xx, y, **strength)
        fits[f"{kind}, twice, unequal start"] = fit(xx, y, start, **strength)
        fits[f"{kind}, twice, scikit-learn"] = with_sklearn(xx, y, **strength)
    return {**fits, "L1, twice, scikit-learn, unequal start": with_sklearn(xx, y, uneven, l1=L1)}


def standard_errors(x: Floats, y: Floats, noise: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Standard error of one weight of the pair, of the pair's sum, and of the feature where it stands alone."""
    xx = twice(x, noise * rng.standard_normal(len(y)))
    covariance = np.linalg.inv(information(xx, newton(xx, y)))
    alone = np.linalg.inv(information(x, newton(x, y)))[-1, -1]
    return covariance[-1, -1] ** 0.5, covariance[-2:, -2:].sum() ** 0.5, alone**0.5


def weights(fits: Sequence[Mapping[str, Floats]]) -> Findings:
    """What the weights say, over all data seeds."""

    def pair(name: str) -> Floats:
        return np.array([fit[name][-2:] for fit in fits])  # (seeds, 2)

    def apart(name: str) -> Floats:
        return np.abs(np.diff(pair(name))[:, 0])

    def gaps(name: str, other: Floats) -> Floats:
        return np.abs(pair(name).sum(axis=1) - other)

    def first(name: str) -> str:
        return "{:.4f} and {:.4f}".format(*pair(name)[0])

    even, uneven, l1 = "no penalty, twice, equal start", "no penalty, twice, unequal start", "L1, twice, unequal start"
    old = {name: pair(f"{name}, once")[:, 1] for name in ("no penalty", "L2", "L1")}
    statement = "as printed: both new weights add up to the first new one"
    yield E1.equal(statement, gaps(even, pair(even)[:, 0]), printed="w_new_n")
    shown, far = f"{first(uneven)} for {old['no penalty'][0]:.4f}", gaps(uneven, old["no penalty"])
    yield Q1.equal("no penalty: both add up to the old weight", far, printed="w_n", shown=shown)
    others = [np.abs(fit[uneven][:-2] - fit["no penalty, once"][:-1]).max() for fit in fits]
    yield Q1.equal("no penalty: the other weights stay", others, printed="w_0, w_1 ...")
    statement = "no penalty: from an equal start they are equal"
    yield Q1.equal(statement, apart(even), printed="w_n/2 each", shown=first(even))
    yield E1.equal("no penalty: from any start they are equal", apart(uneven), shown=first(uneven))
    grows = mean_interval((pair("L2, twice, equal start").sum(axis=1) / old["L2"]).tolist())
    yield E1.within("L2: both still add up to the old weight", grows, 0.99, 1.01, "w_n", "sum / old weight = {}")
    yield Q1.equal("L2: from any start they are equal", apart("L2, twice, unequal start"))
    yield Q1.equal("L1: both add up to the old weight", gaps(l1, old["L1"]), printed="w_n")
    yield E1.equal("L1: from any start they are equal", apart(l1), shown=first(l1))
    sums = {name: pair(f"{name}, twice, equal start").sum(axis=1) for name in old}
    to_sklearn = [gaps(f"{name}, twice, scikit-learn", own).max() for name, own in sums.items()]
    yield Q1.equal("scikit-learn finds the same sums", to_sklearn, 1e-4)


def almost(se: Floats) -> Findings:
    """How the standard errors go with the noise of the copy; se is (seeds, noises, 3)."""
    slope = mean_interval([exponent(NOISES, one) for one in se[:, :, 0]])
    statement = "almost a copy: each standard error grows like 1/noise"
    yield Q1.within(statement, slope, -1.05, -0.95, shown="slope in log-log {}")
    kept, shown = se[:, -1, 1] / se[:, -1, 2], f"at noise {NOISES[-1]:g}, to that of the feature alone: {{}}"
    statement = "almost a copy: the standard error of the sum stays"
    yield Q1.within(statement, mean_interval(kept.tolist()), 0.98, 1.02, shown=shown)


def weight_table(fit: Mapping[str, Floats]) -> Table:
    """The weights of the first data seed."""
    rows = ((name, *w, *([w[-2:].sum()] if len(w) > len(TRUE) else ["", ""])) for name, w in fit.items())
    return table("Weights, first data seed", ("fit", "w0", "w1", "w2", "w3", "its copy", "sum of both"), rows)


def error_table(se: Floats, exact: Floats) -> Table:
    """Standard errors, means over the data seeds; for the exact copy what the singular Fisher matrix leaves.

    Args:
        exact: Fisher information (5, 5) with the exact copy.
    """
    pseudo = np.linalg.pinv(exact, rcond=1e-10, hermitian=True)
    rows = [(f"{noise:g}", *mean) for noise, mean in zip(NOISES, se.mean(axis=0), strict=True)]
    rows.append(("0", "infinite", pseudo[-2:, -2:].sum() ** 0.5, se[-1, 0, 2]))
    rank, condition = np.linalg.matrix_rank(exact, hermitian=True), np.linalg.cond(exact)
    title = (
        f"Standard errors. Noise 0 (last data seed): the Fisher information has rank {rank} of {len(exact)} and the "
        f"condition number {condition:.0e}, infinite but for rounding; its pseudo-inverse would say "
        f"{pseudo[-1, -1] ** 0.5:.4f} for one of the pair"
    )
    return table(title, ("noise of the copy", "one of the pair", "their sum", "the feature alone"), rows)


def weight_figure(fits: Sequence[Mapping[str, Floats]]) -> Drawing:
    """Every twice-fit of every data seed as a point: the old weight is the line on which splits may lie."""

    def panel(penalty: str) -> Panel:
        pairs = {start: np.array([fit[f"{penalty}, twice, {start}"][-2:] for fit in fits]).T
                 for start in ("equal start", "unequal start")}  # fmt: skip
        total = np.mean([fit[f"{penalty}, once"][-1] for fit in fits])
        ends = np.array([min(map(np.min, pairs.values())) - 0.3, max(map(np.max, pairs.values())) + 0.3])
        curves = {**{start: (w, copy) for start, (w, copy) in pairs.items()}, "sum = old weight": (ends, total - ends)}
        return lines(curves, joined=("sum = old weight",), title=penalty, xlim=ends, ylim=ends, aspect="equal",
                     xlabel="weight of the feature", ylabel="weight of its copy")  # fmt: skip

    return draw("weights", *map(panel, ("no penalty", "L2", "L1")))


def error_figure(se: Floats) -> Drawing:
    """Standard errors against the noise of the copy, both on log scales: mean over the data seeds, each seed thin."""
    names = ("one of the pair", "their sum", "the feature alone")
    panel = lines(
        {name: (NOISES, se[:, :, i]) for i, name in enumerate(names)}, ticks=NOISES, log="xy",
        xlabel="noise of the copy (the feature has deviation 1)", ylabel="standard error of the weight",
    )  # fmt: skip
    return draw("standard-errors", panel)
