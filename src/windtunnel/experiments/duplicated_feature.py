"""000-Q1: what the weights of a logistic regression do when one feature is there twice.

The loss is the mean negative log-likelihood (nats) + λ/2·‖w‖² or + λ·‖w‖₁; the intercept w0 is not penalised.
scikit-learn's C is 1/(λN).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, equal, signature, within
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.stats.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

TRUE = np.array([-0.5, 1.0, -0.7, 2.0])  # w0, the intercept, then w1 to w3; the last is the one that is doubled
L2, L1 = 0.1, 0.05
SPLIT = 5.0  # how far apart the two weights start where they do not start equal
NOISES = (0.3, 0.1, 0.03, 0.01)


def duplicated_feature(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Does a doubled feature share the old weight?"""
    n, n_seeds = (1000, 4) if setting.quick else (4000, 10)
    fits, errors = [], []
    for i in range(n_seeds):
        yield Progress("data seeds", i, n_seeds)
        rng = np.random.default_rng([setting.seed, i])
        x, y = synthetic(n, rng)
        fits.append(fit_all(x, y))
        errors.append([standard_errors(x, y, noise, rng) for noise in NOISES])
    yield Progress("data seeds", n_seeds, n_seeds)
    se = np.array(errors)  # (seeds, noises, 3): one of the pair, their sum, the feature alone
    singular = information(twice(x), newton(twice(x), y))
    return Outcome(
        title="A feature that is there twice",
        what="Logistic regressions were fitted to data with one feature once and twice, without a penalty, with L2 and "
        "with L1, from equal and from unequal starts. Then the copy was made less and less exact.",
        settings={"n": n, "data seeds": n_seeds, "true weights": TRUE.tolist(), "l2": L2, "l1": L1, "noises": NOISES},
        tables=(weight_table(fits[0]), error_table(se, singular)),
        figures={"weights": weight_figure(fits), "standard-errors": error_figure(se)},
        claims=weight_claims(fits) + error_claims(se),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "scikit-learn")),
    )


def synthetic(n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Design matrix (n, 4) with a column of ones first, and labels (n,) drawn from the logistic model with TRUE."""
    x = np.hstack([np.ones((n, 1)), rng.standard_normal((n, len(TRUE) - 1))])
    return x, (rng.random(n) < sigmoid(x @ TRUE)).astype(np.float64)


def twice(x: Floats, noise: Floats | float = 0.0) -> Floats:
    """The last column a second time, with noise (n,) added to the copy."""
    return np.column_stack([x, x[:, -1] + noise])


def sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def information(x: Floats, w: Floats) -> Floats:
    """Fisher information X'PX with P = diag(p(1-p)); its inverse is the covariance of the weights."""
    p = sigmoid(x @ w)
    return (x.T * (p * (1 - p))) @ x


def newton(x: Floats, y: Floats, start: Floats | None = None, l2: float = 0.0) -> Floats:
    """Newton's method, which for logistic regression is iteratively reweighted least squares.

    Where the Hessian is singular `lstsq` takes the shortest step, which never moves along the flat direction.
    """
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    ridge = l2 * np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(30):
        gradient = x.T @ (sigmoid(x @ w) - y) / len(y) + ridge @ w
        step = np.linalg.lstsq(information(x, w) / len(y) + ridge, gradient, rcond=1e-12)[0]
        w -= step
        if np.abs(step).max() < 1e-13:
            break
    return w


def proximal(x: Floats, y: Floats, start: Floats | None = None, l1: float = L1) -> Floats:
    """Proximal gradient descent: a gradient step, then every penalised weight moves towards 0 and stops there."""
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    rate = 4 / np.linalg.norm(x.T @ x / len(y), 2)  # 1 over the largest curvature, for p(1-p) <= 1/4
    shrink = rate * l1 * np.array([0.0] + [1.0] * (x.shape[1] - 1))
    for _ in range(5000):
        before = w
        w = w - rate * (x.T @ (sigmoid(x @ w) - y)) / len(y)
        w = np.sign(w) * np.maximum(np.abs(w) - shrink, 0)
        if np.abs(w - before).max() < 1e-13:
            break
    return w


def with_sklearn(x: Floats, y: Floats, start: Floats | None = None, *, l2: float = 0.0, l1: float = 0.0) -> Floats:
    """scikit-learn's answer to the same loss, from zeros or from `start`."""
    from sklearn.linear_model import LogisticRegression

    strength = l1 + l2
    model = LogisticRegression(
        C=1 / (strength * len(y)) if strength else np.inf,
        l1_ratio=1.0 if l1 else 0.0,
        solver="saga" if l1 else "lbfgs",
        tol=1e-9,
        max_iter=2000,
        warm_start=start is not None,
        random_state=0,
    )
    if start is not None:
        model.coef_, model.intercept_, model.classes_ = start[None, 1:].copy(), start[:1].copy(), np.array([0.0, 1.0])
    model.fit(x[:, 1:], y)
    return np.concatenate([model.intercept_, model.coef_[0]])


def fit_all(x: Floats, y: Floats) -> dict[str, Floats]:
    """The weights of every fit; those of the doubled feature are the last two."""
    xx = twice(x)
    apart = np.array([0.0] * (xx.shape[1] - 2) + [SPLIT / 2, -SPLIT / 2])  # the same predictions as all zeros
    uneven = np.array([0.0] * (xx.shape[1] - 2) + [1.0, 0.0])
    return {
        "no penalty, once": newton(x, y),
        "no penalty, twice, equal start": newton(xx, y),
        "no penalty, twice, unequal start": newton(xx, y, apart),
        "no penalty, twice, scikit-learn": with_sklearn(xx, y),
        "L2, once": newton(x, y, l2=L2),
        "L2, twice, equal start": newton(xx, y, l2=L2),
        "L2, twice, unequal start": newton(xx, y, apart, l2=L2),
        "L2, twice, scikit-learn": with_sklearn(xx, y, l2=L2),
        "L1, once": proximal(x, y),
        "L1, twice, equal start": proximal(xx, y),
        "L1, twice, unequal start": proximal(xx, y, uneven),
        "L1, twice, scikit-learn": with_sklearn(xx, y, l1=L1),
        "L1, twice, scikit-learn, unequal start": with_sklearn(xx, y, uneven, l1=L1),
    }


def standard_errors(x: Floats, y: Floats, noise: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Standard error of one weight of the pair, of the pair's sum, and of the feature where it stands alone."""
    xx = twice(x, noise * rng.standard_normal(len(y)))
    covariance = np.linalg.inv(information(xx, newton(xx, y)))
    alone = np.linalg.inv(information(x, newton(x, y)))[-1, -1]
    return covariance[-1, -1] ** 0.5, covariance[-2:, -2:].sum() ** 0.5, alone**0.5


def weight_claims(fits: list[dict[str, Floats]]) -> tuple[Claim, ...]:
    """What the weights say, over all data seeds."""

    def sums(name: str) -> Floats:
        return np.array([fit[name][-2:].sum() for fit in fits])

    def split(name: str) -> list[float]:
        return [abs(fit[name][-2] - fit[name][-1]) for fit in fits]

    def old(name: str) -> Floats:
        return np.array([fit[name][-1] for fit in fits])

    def gaps(a: Floats, b: Floats) -> list[float]:
        return np.abs(a - b).tolist()

    def pair(name: str) -> str:
        return f"{fits[0][name][-2]:.4f} and {fits[0][name][-1]:.4f}"

    even, uneven = "no penalty, twice, equal start", "no penalty, twice, unequal start"
    first = np.array([fit[even][-2] for fit in fits])
    others = [np.abs(fit[uneven][:-2] - fit["no penalty, once"][:-1]).max() for fit in fits]
    to_sklearn = [
        max(gaps(sums(f"{penalty}, twice, scikit-learn"), sums(f"{penalty}, twice, equal start")))
        for penalty in ("no penalty", "L2", "L1")
    ]
    l1_uneven = "L1, twice, unequal start"
    l1_gaps = gaps(sums(l1_uneven), old("L1, once"))
    grows = mean_interval((sums("L2, twice, equal start") / old("L2, once")).tolist())
    return (
        equal("E1", "as printed: both new weights add up to the first new one", "w_new_n", gaps(sums(even), first)),
        equal(
            "000-Q1", "no penalty: both add up to the old weight", "w_n",
            gaps(sums(uneven), old("no penalty, once")), shown=f"{pair(uneven)} for {old('no penalty, once')[0]:.4f}",
        ),
        equal("000-Q1", "no penalty: the other weights stay", "w_0, w_1 ...", others),
        equal("000-Q1", "no penalty: from an equal start they are equal", "w_n/2 each", split(even), shown=pair(even)),
        equal("E1", "no penalty: from any start they are equal", "", split(uneven), shown=pair(uneven)),
        Claim(
            "E1", "L2: both still add up to the old weight", "w_n", f"sum / old weight = {grows}",
            within(grows, 0.99, 1.01), {"sum_over_old": grows},
        ),
        equal("000-Q1", "L2: from any start they are equal", "", split("L2, twice, unequal start")),
        equal("000-Q1", "L1: both add up to the old weight", "w_n", l1_gaps),
        equal("E1", "L1: from any start they are equal", "", split(l1_uneven), shown=pair(l1_uneven)),
        equal("000-Q1", "scikit-learn finds the same sums", "", to_sklearn, 1e-4),
    )  # fmt: skip


def error_claims(se: Floats) -> tuple[Claim, ...]:
    """How the standard errors go with the noise of the copy; se is (seeds, noises, 3)."""
    slopes = [np.polyfit(np.log(NOISES), np.log(one), 1)[0] for one in se[:, :, 0]]
    slope, kept = mean_interval(slopes), mean_interval((se[:, -1, 1] / se[:, -1, 2]).tolist())
    return (
        Claim(
            "000-Q1", "almost a copy: each standard error grows like 1/noise", "",
            f"slope in log-log {slope}", within(slope, -1.05, -0.95), {"slope": slope},
        ),
        Claim(
            "000-Q1", "almost a copy: the standard error of the sum stays", "",
            f"at noise {NOISES[-1]:g}, to that of the feature alone: {kept}", within(kept, 0.98, 1.02), {"ratio": kept},
        ),
    )  # fmt: skip


def weight_table(fit: Mapping[str, Floats]) -> Table:
    """The weights of the first data seed."""
    rows = []
    for name, w in fit.items():
        pair = (
            (f"{w[-2]:.4f}", f"{w[-1]:.4f}", f"{w[-2:].sum():.4f}") if len(w) > len(TRUE) else (f"{w[-1]:.4f}", "", "")
        )
        rows.append((name, *(f"{value:.4f}" for value in w[: len(TRUE) - 1]), *pair))
    return Table("Weights, first data seed", ("fit", "w0", "w1", "w2", "w3", "its copy", "sum of both"), tuple(rows))


def error_table(se: Floats, exact: Floats) -> Table:
    """Standard errors, means over the data seeds; for the exact copy what the singular Fisher matrix leaves.

    Args:
        exact: Fisher information (5, 5) with the exact copy.
    """
    rows = [
        (f"{noise:g}", *(f"{value:.4f}" for value in mean)) for noise, mean in zip(NOISES, se.mean(axis=0), strict=True)
    ]
    pseudo = np.linalg.pinv(exact, rcond=1e-10, hermitian=True)
    rows.append(("0", "infinite", f"{pseudo[-2:, -2:].sum() ** 0.5:.4f}", f"{se[-1, 0, 2]:.4f}"))
    rank, condition = np.linalg.matrix_rank(exact, hermitian=True), np.linalg.cond(exact)
    title = (
        f"Standard errors. Noise 0 (last data seed): the Fisher information has rank {rank} of {len(exact)} and the "
        f"condition number {condition:.0e}, infinite but for rounding; its pseudo-inverse would say "
        f"{pseudo[-1, -1] ** 0.5:.4f} for one of the pair"
    )
    return Table(title, ("noise of the copy", "one of the pair", "their sum", "the feature alone"), tuple(rows))


def weight_figure(fits: list[dict[str, Floats]]) -> Figure:
    """Every twice-fit of every data seed as a point: the old weight is the line on which splits may lie."""
    starts = {"equal start": "o", "unequal start": "s"}
    with drawing(8.4, 3.4) as figure:
        for axes, penalty in zip(figure.subplots(1, 3), ("no penalty", "L2", "L1"), strict=True):
            total = np.mean([fit[f"{penalty}, once"][-1] for fit in fits])
            ends = [w for fit in fits for name, w in fit.items() if name.startswith(f"{penalty}, twice")]
            low, high = min(w[-2:].min() for w in ends) - 0.3, max(w[-2:].max() for w in ends) + 0.3
            axes.plot([low, high], [total - low, total - high], color=QUIET, linestyle="--", label="sum = old weight")
            for (start, marker), colour in zip(starts.items(), (TRAIN, DEV), strict=True):
                pairs = np.array([fit[f"{penalty}, twice, {start}"][-2:] for fit in fits])
                size = 36 if marker == "o" else 12
                axes.scatter(*pairs.T, marker=marker, color=colour, s=size, label=start, zorder=2 + (marker == "s"))
            axes.set(xlim=(low, high), ylim=(low, high), xlabel="weight of the feature", title=penalty, aspect="equal")
        figure.axes[0].set_ylabel("weight of its copy")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def error_figure(se: Floats) -> Figure:
    """Standard errors against the noise of the copy, both on log scales: mean over the data seeds, each seed thin."""
    names = ("one of the pair", "their sum", "the feature alone")
    with drawing(6.0, 3.8) as figure:
        axes = figure.subplots()
        looks = ((TRAIN, "o", "-"), (DEV, "s", "-"), (QUIET, "", "--"))
        for i, (name, (colour, marker, line)) in enumerate(zip(names, looks, strict=True)):
            axes.plot(NOISES, se[:, :, i].T, color=colour, linewidth=0.5, alpha=0.4)
            axes.plot(NOISES, se[:, :, i].mean(axis=0), color=colour, marker=marker, linestyle=line, label=name)
        axes.set(xscale="log", yscale="log", xlabel="noise of the copy (the feature has deviation 1)")
        axes.set_ylabel("standard error of the weight")
        axes.legend()
    return figure
