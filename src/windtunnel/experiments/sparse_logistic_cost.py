"""000-Q3: what one step of gradient descent on a sparse logistic regression costs, counted while it runs.

m examples, n features, about k non-zero values an example. Every implementation below is plain Python over the
meter's `multiply_add` and over a `Weights` list that notes which of its coordinates are touched: nothing is
computed from a formula. L2 is λ/2·‖w‖², the loss is summed over the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, Table, draw, table
from windtunnel.experiments.speed import exponent
from windtunnel.report.charts import lines
from windtunnel.stats.intervals import Estimate, mean_interval

Q3, E3 = Row("000-Q3"), Row("E3")
RATE, L2 = 0.1, 0.01
Example = tuple[list[int], list[float]]  # the places and the values of the non-zeros of one example


@dataclass
class Meter:
    """What a step did: multiply-adds, and the coordinates of the weight vector that it read or wrote."""

    multiply_adds: int = 0
    touched: set[int] = field(default_factory=set)

    def multiply_add(self, a: float, b: float, c: float) -> float:
        self.multiply_adds += 1
        return a * b + c


class Weights(list[float]):
    """A weight vector that notes in a meter which coordinates are touched."""

    def __init__(self, values: Sequence[float], meter: Meter) -> None:
        super().__init__(values)
        self.meter = meter

    def __getitem__(self, place: Any) -> Any:
        self.meter.touched.add(place)
        return super().__getitem__(place)

    def __setitem__(self, place: Any, value: Any) -> None:
        self.meter.touched.add(place)
        super().__setitem__(place, value)


def sparse_step(rows: Sequence[Example], y: Sequence[float], w: Weights, meter: Meter) -> None:
    """One step without a penalty: the scores of all examples first, then each non-zero moves its own weight."""
    residuals = [residual(row, label, w, meter) for row, label in zip(rows, y, strict=True)]
    scatter(rows, residuals, w, meter)


def sparse_dense_l2_step(rows: Sequence[Example], y: Sequence[float], w: Weights, meter: Meter) -> None:
    """The same with L2 done as written: every weight shrinks, also the many that no example mentions."""
    residuals = [residual(row, label, w, meter) for row, label in zip(rows, y, strict=True)]
    for j in range(len(w)):
        w[j] = meter.multiply_add(w[j], -RATE * L2, w[j])
    scatter(rows, residuals, w, meter)


def dense_gradient_step(rows: Sequence[Example], y: Sequence[float], w: Weights, meter: Meter) -> None:
    """No penalty, sparse data, but the gradient is a vector of n numbers that is subtracted whole."""
    gradient = [0.0] * len(w)
    residuals = [residual(row, label, w, meter) for row, label in zip(rows, y, strict=True)]
    for (places, values), r in zip(rows, residuals, strict=True):
        for j, value in zip(places, values, strict=True):
            gradient[j] = meter.multiply_add(r, value, gradient[j])
    for j in range(len(w)):
        w[j] = meter.multiply_add(gradient[j], -RATE, w[j])


def lazy_l2_step(rows: Sequence[Example], y: Sequence[float], u: Weights, meter: Meter, scale: float = 1.0) -> float:
    """L2 without the O(n): w = scale * u, so that shrinking all weights is one multiplication (Bottou 2012, 5.1).

    Returns:
        The new scale.
    """
    residuals = [residual(row, label, u, meter, scale) for row, label in zip(rows, y, strict=True)]
    scale = meter.multiply_add(scale, -RATE * L2, scale)
    scatter(rows, residuals, u, meter, scale)
    return scale


def residual(row: Example, label: float, w: Weights, meter: Meter, scale: float = 1.0) -> float:
    """p - y of one example."""
    z = 0.0
    for j, value in zip(*row, strict=True):
        z = meter.multiply_add(value, w[j], z)
    return 1 / (1 + math.exp(-z * scale)) - label


def scatter(rows: Sequence[Example], residuals: Sequence[float], w: Weights, meter: Meter, scale: float = 1.0) -> None:
    """w -= RATE * gradient, non-zero by non-zero."""
    for (places, values), r in zip(rows, residuals, strict=True):
        rate = -RATE * r / scale
        for j, value in zip(places, values, strict=True):
            w[j] = meter.multiply_add(rate, value, w[j])


STEPS: dict[str, Callable[[Sequence[Example], Sequence[float], Weights, Meter], object]] = {
    "CSR": sparse_step,
    "CSR, lazy L2": lazy_l2_step,
    "CSR, L2 on every weight": sparse_dense_l2_step,
    "CSR, dense gradient": dense_gradient_step,
    "dense": sparse_step,  # the same code, given every zero as a value
}


def sparse_logistic_cost(at: Setting) -> Findings:
    """What a step costs on sparse data.

    One step of gradient descent on a logistic regression was run in plain Python, which counted every multiply-add and
    every weight it touched, while the number of features grew and the data stayed as sparse.
    """
    m, k, n_seeds, most = at.size((64, 16, 5, 15), quick=(32, 8, 3, 13))
    sizes = [2**i for i in range(7, most + 1, 2)]
    yield Given({"m": m, "k": k, "n": sizes, "data seeds": n_seeds, "rate": RATE, "l2": L2})
    counts = {name: np.full((n_seeds, len(sizes), 2), np.nan) for name in STEPS}  # multiply-adds, touched
    gaps: list[dict[str, float]] = []
    for i in range(n_seeds):
        for j, n in enumerate(sizes):
            yield Progress("data sets", i * len(sizes) + j, n_seeds * len(sizes))
            rows, y = sparse_data(m, n, k, np.random.default_rng([at.seed, i]))
            for name in STEPS:
                if name != "dense" or n <= 2**11:  # beyond, the dense one would take minutes
                    counts[name][i, j] = count(name, rows, y, n)
            gaps.append(cross_check(rows, y, n))
    yield from claims(sizes, counts, gaps)
    yield count_table("Multiply-adds", sizes, {name: own[:, :, 0] for name, own in counts.items()})
    yield count_table("Weights touched", sizes, {name: own[:, :, 1] for name, own in counts.items()})
    yield count_figure(sizes, counts, m * k)


def sparse_data(m: int, n: int, k: int, rng: np.random.Generator) -> tuple[list[Example], list[float]]:
    """m examples with a Poisson(k) number of non-zeros, at least 1, at places drawn from n; half the labels are 1.

    How many non-zeros each has does not depend on n, so the same rng makes data with the same m k for every n.
    """
    rows = []
    for size in np.clip(rng.poisson(k, m), 1, n):
        places = np.sort(rng.choice(n, size=int(size), replace=False)).tolist()
        rows.append((places, rng.standard_normal(len(places)).tolist()))
    return rows, rng.integers(0, 2, m).astype(float).tolist()


def count(name: str, rows: Sequence[Example], y: Sequence[float], n: int) -> tuple[int, int]:
    """Multiply-adds and weights touched in one step."""
    meter = Meter()
    if name == "dense":
        rows = [(list(range(n)), with_zeros(row, n)) for row in rows]
    STEPS[name](rows, y, Weights([0.0] * n, meter), meter)
    return meter.multiply_adds, len(meter.touched)


def with_zeros(row: Example, n: int) -> list[float]:
    """All n values of an example."""
    there = dict(zip(*row, strict=True))
    return [there.get(j, 0.0) for j in range(n)]


def cross_check(rows: Sequence[Example], y: Sequence[float], n: int, steps: int = 2) -> dict[str, float]:
    """Largest gaps to scipy.sparse after some steps: in the weights, and in the multiply-adds to 2 nnz."""
    lengths = [len(places) for places, _ in rows]
    columns = [j for places, _ in rows for j in places]
    x = csr_array(([v for _, values in rows for v in values], columns, np.cumsum([0, *lengths])), shape=(len(rows), n))
    meter, scale = Meter(), 1.0
    plain, shrunk, lazy = (Weights([0.0] * n, meter) for _ in range(3))
    want, want_l2 = np.zeros(n), np.zeros(n)
    for _ in range(steps):
        sparse_step(rows, y, plain, meter)
        sparse_dense_l2_step(rows, y, shrunk, meter)
        scale = lazy_l2_step(rows, y, lazy, meter, scale)
        want -= RATE * (x.T @ (expit(x @ want) - y))
        want_l2 = want_l2 - RATE * (x.T @ (expit(x @ want_l2) - y) + L2 * want_l2)
    return {
        "plain": float(np.abs(np.array(plain) - want).max()),
        "l2": float(np.abs(np.array(shrunk) - want_l2).max()),
        "lazy": float(np.abs(scale * np.array(lazy) - want_l2).max()),
        "count": float(abs(count("CSR", rows, y, n)[0] - 2 * x.nnz)),
    }


def slope(sizes: Sequence[int], counts: np.ndarray) -> Estimate:
    """d log(count) / d log(n) over the three largest n that were counted, a line for each data seed."""
    there = ~np.isnan(counts[0])
    return mean_interval([exponent(np.array(sizes)[there][-3:].tolist(), own[there][-3:]) for own in counts])


def claims(sizes: Sequence[int], counts: Mapping[str, np.ndarray], gaps: Sequence[Mapping[str, float]]) -> Findings:
    """The source's O(mk) is slope 0 in n; O(n) is slope 1 where n is much larger than mk."""
    slopes = {name: slope(sizes, own[:, :, 0]) for name, own in counts.items()}

    def flat(row: Row, statement: str, name: str, printed: str = "O(mk)") -> Claim:
        grown = counts[name][:, -1, 0].mean() / counts[name][:, 0, 0].mean()
        shown = f"slope {{}}; x{grown:.2f} from n = {sizes[0]} to {sizes[-1]}"
        return row.within(statement, slopes[name], -0.05, 0.05, printed, shown)

    yield flat(Q3, "CSR, no penalty: the multiply-adds do not grow with n", "CSR")
    yield Q3.equal("they are two for each non-zero of scipy's matrix", [gap["count"] for gap in gaps])
    bound = float((2 * counts["CSR"][:, :, 1] / counts["CSR"][:, :, 0]).max())
    statement = "and touch at most one weight for each non-zero"
    yield Q3.shows(statement, bound <= 1, f"at most {bound:.3f} for each", most_touched_for_each=bound)
    yield flat(E3, "CSR, L2 on every weight: still O(mk)", "CSR, L2 on every weight")
    yield flat(E3, "CSR, gradient as a dense vector: still O(mk)", "CSR, dense gradient")
    yield flat(E3, "CSR, lazy L2: O(mk) again", "CSR, lazy L2", printed="")
    yield E3.equal("lazy L2 gives the weights of L2 on every weight", [gap["lazy"] for gap in gaps], 1e-9)
    yield Q3.equal("the weights are those of scipy.sparse", [max(g["plain"], g["l2"]) for g in gaps], 1e-9)
    statement = "dense data: the multiply-adds grow like n"
    yield Q3.within(statement, slopes["dense"], 0.95, 1.05, shown="slope {}")


def count_table(what: str, sizes: Sequence[int], counts: Mapping[str, np.ndarray]) -> Table:
    """Counts of one step by way and number of features."""
    rows = ((name, *("-" if np.isnan(c) else f"{c:,.0f}" for c in own.mean(axis=0))) for name, own in counts.items())
    return table(f"{what} in one step, means over the data seeds", ("step", *(f"n = {n:,}" for n in sizes)), rows)


def count_figure(sizes: Sequence[int], counts: Mapping[str, np.ndarray], nonzeros: int) -> Drawing:
    """Multiply-adds and weights touched against n, both on log scales."""
    panels = [
        lines({name: (sizes, own[:, :, i].mean(axis=0)) for name, own in counts.items()}, {"mk, or 2mk": limit},
              ticks=sizes, log="xy", xlabel="n, features", ylabel=f"{what} in one step")
        for i, (what, limit) in enumerate((("multiply-adds", 2 * nonzeros), ("weights touched", nonzeros)))
    ]  # fmt: skip
    return draw("operations", *panels)
