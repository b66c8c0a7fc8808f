"""The parabola of a budget: loss against log N, its lowest point, and how well the runs determine it.

Hoffmann et al. 2022, section 3.2. The intervals are those of the vertex under draws of the parabola's coefficients:
with few seeds from the multivariate t of least squares, whose variance all budgets share; from five seeds a size on by
drawing seeds with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from windtunnel.scaling.draws import LEAST_USABLE, exp, summary
from windtunnel.scaling.points import Points
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.paired import Floats

Size = Literal["parameters", "all_parameters"]
Compute = Literal["flops", "6nd"]
SEEDS_TO_RESAMPLE, FEWEST_SIZES = 5, 3


@dataclass(frozen=True)
class Parabola:
    """loss = lowest + curvature / 2 (ln N - ln N_opt)^2 at one budget; all None where it is refused.

    budget: nominal FLOPs; compute: C at the vertex; sizes: those sampled, rising; parameters: N_opt; tokens: D there;
    loss: nats per token there; curvature: nats per squared e-fold of N; polynomial: loss in ln N, highest power first;
    usable: share of draws with a vertex between the sizes; refusal: why there is no number, or None.
    """

    budget: float
    runs: int
    sizes: tuple[float, ...]
    compute: float
    polynomial: tuple[float, float, float] | None = None
    parameters: Estimate | None = None
    tokens: Estimate | None = None
    loss: Estimate | None = None
    curvature: Estimate | None = None
    usable: float = 0.0
    refusal: str | None = None


@dataclass(frozen=True, eq=False)
class Vertices:
    """Of usable budgets ln C, ln N_opt, ln D and the loss there, (budgets,); draws are (samples, budgets)."""

    compute: Floats
    size: Floats
    tokens: Floats
    loss: Floats
    size_draws: Floats
    tokens_draws: Floats
    loss_draws: Floats
    runs: int
    method: str


@dataclass(frozen=True, eq=False)
class _Budget:
    """The runs of one budget; u is ln N, scaled to [-1, 1] over the sampled sizes."""

    nominal: float
    runs: Points
    size: Floats
    compute: Floats

    @property
    def log_size(self) -> Floats:
        return np.log(self.size)

    @property
    def centre(self) -> float:
        return float(self.log_size.max() + self.log_size.min()) / 2

    @property
    def half(self) -> float:
        return float(np.ptp(self.log_size)) / 2

    @property
    def basis(self) -> Floats:
        """1, u, u^2: (runs, 3)."""
        return np.vander((self.log_size - self.centre) / self.half, 3, increasing=True)

    @property
    def too_few(self) -> str | None:
        n = len(np.unique(self.size))
        if n >= FEWEST_SIZES:
            return None
        sizes = f"{n} size{'' if n == 1 else 's'}"
        return f"{sizes} at {self.nominal:.3g} FLOPs cannot hold a parabola; train at least three, better five."


def fit_parabolas(
    points: Points, size: Size, compute: Compute, samples: int, rng: np.random.Generator
) -> tuple[tuple[Parabola, ...], Vertices | None]:
    """The parabola of every budget, and the vertices of those that are usable (None when none is)."""
    budgets = [_budget(points, nominal, size, compute) for nominal in points.budgets.tolist()]
    sound = [b for b in budgets if b.too_few is None]
    fits: list[Floats] = [np.asarray(np.linalg.lstsq(b.basis, b.runs.loss, rcond=None)[0], dtype=float) for b in sound]
    squares = [float(np.sum((b.runs.loss - b.basis @ fit) ** 2)) for b, fit in zip(sound, fits, strict=True)]
    df = sum(len(b.runs) - 3 for b in sound)
    if df < 1:
        why = "Three sizes with one seed leave nothing to estimate the spread from; add sizes or seeds."
        return tuple(_refused(b, b.too_few or why) for b in budgets), None
    deviation = float(np.sqrt(sum(squares) / df))
    if all(_seeds_a_size(b) >= SEEDS_TO_RESAMPLE for b in sound):
        method = "95 % bootstrap over seeds"
        deviation = _deviation_within_seeds(sound, fits)
        drawn = [_resampled(b, samples, rng) for b in sound]
    else:
        method = f"95 % t interval of residuals, {df} degrees of freedom"
        scale = deviation * np.sqrt(df / rng.chisquare(df, samples))
        drawn = [_from_residuals(b, fit, scale, rng) for b, fit in zip(sound, fits, strict=True)]
    done = {
        b.nominal: _parabola(b, fit, draws, deviation, method) for b, fit, draws in zip(sound, fits, drawn, strict=True)
    }
    parabolas = tuple(done[b.nominal][0] if b.nominal in done else _refused(b, b.too_few or "") for b in budgets)
    usable = [found for found in done.values() if found[0].refusal is None]
    return parabolas, _vertices(usable, method)


def _budget(points: Points, nominal: float, size: Size, compute: Compute) -> _Budget:
    runs = points.where(points.nominal == nominal)
    n = getattr(runs, size)
    return _Budget(nominal, runs, n, runs.flops if compute == "flops" else 6 * n * runs.tokens)


def _seeds_a_size(budget: _Budget) -> int:
    """The fewest seeds that all sizes share."""
    shared = [set(budget.runs.seed[budget.size == n].tolist()) for n in np.unique(budget.size)]
    return len(set.intersection(*shared)) if all(own == shared[0] for own in shared) else 0


def _deviation_within_seeds(budgets: Sequence[_Budget], fits: Sequence[Floats]) -> float:
    """Of residuals from their seed's mean at the budget: what a seed adds to all of its sizes moves no vertex."""
    squares, df = 0.0, 0
    for b, fit in zip(budgets, fits, strict=True):
        rest = b.runs.loss - b.basis @ fit
        seeds, which = np.unique(b.runs.seed, return_inverse=True)
        means = np.bincount(which, rest) / np.bincount(which)
        squares += float(np.sum((rest - means[which]) ** 2))
        df += len(rest) - 2 - len(seeds)
    return float(np.sqrt(squares / df))


def _from_residuals(budget: _Budget, fit: Floats, scale: Floats, rng: np.random.Generator) -> Floats:
    """Coefficients (samples, 3) around those of least squares: a t, since the scale (samples,) is drawn as well."""
    triangle = np.linalg.qr(budget.basis, mode="r")
    normal = rng.standard_normal((len(scale), 3))
    return np.asarray(fit + scale[:, None] * np.linalg.solve(triangle, normal.T).T)


def _resampled(budget: _Budget, samples: int, rng: np.random.Generator) -> Floats:
    """Coefficients (samples, 3) of seeds drawn with replacement, each with all of its sizes.

    The weights are stretched by sqrt(n / (n - 1)), since n seeds drawn from n vary less than n new ones, and by the
    scale of a t with n - 1 degrees of freedom: without it the bands of five seeds cover 90 %.
    """
    seeds, which = np.unique(budget.runs.seed, return_inverse=True)
    n = len(seeds)
    stretch = np.sqrt(n / (n - 1)) * np.sqrt((n - 1) / rng.chisquare(n - 1, (samples, 1)))
    weights = 1 + (rng.multinomial(n, np.full(n, 1 / n), samples) - 1) * stretch
    basis, loss = budget.basis, budget.runs.loss
    by_seed = np.zeros((n, 12))
    np.add.at(by_seed, which, np.hstack([(basis[:, :, None] * basis[:, None]).reshape(-1, 9), basis * loss[:, None]]))
    total = weights @ by_seed
    return np.asarray(np.linalg.solve(total[:, :9].reshape(-1, 3, 3), total[:, 9:, None])[..., 0])


def _vertex(coefficients: Floats) -> Floats:
    """u of the lowest point of draws (samples, 3), within [-3, 3]; of one that opens downwards the lower end."""
    _, slope, square = coefficients.T
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = -slope / (2 * square)
    return np.asarray(np.clip(np.where(square > 0, inner, -3 * np.sign(slope)), -3, 3))


def _parabola(
    b: _Budget, fit: Floats, draws: Floats, deviation: float, method: str
) -> tuple[Parabola, dict[str, tuple[float, Floats]]]:
    u, drawn = float(_vertex(fit[None])[0]), _vertex(draws)
    usable = float(np.mean((draws[:, 2] > 0) & (np.abs(drawn) < 1)))
    why = _why_not(b, fit, u, usable, deviation)
    if why:
        return _refused(b, why, usable), {}
    tokens, compute = _along(b, b.runs.tokens), _along(b, b.compute)
    ln = {
        "compute": (float(compute(np.array(u))), compute(drawn)),
        "size": (b.centre + b.half * u, b.centre + b.half * drawn),
        "tokens": (float(tokens(np.array(u))), tokens(drawn)),
        "loss": (float(_value(fit, u)), _value(draws.T, drawn)),
    }
    n = len(b.runs)
    size, data, loss = (summary(*ln[name], n, method) for name in ("size", "tokens", "loss"))
    curvature = summary(2 * fit[2] / b.half**2, 2 * draws[:, 2] / b.half**2, n, method)
    found = Parabola(
        b.nominal, n, tuple(np.unique(b.size).tolist()), float(np.exp(ln["compute"][0])), _polynomial(b, fit),
        exp(size), exp(data), loss, curvature, usable,
    )  # fmt: skip
    return found, ln


def _value(coefficients: Floats, u: Floats | float) -> Floats:
    return np.asarray(coefficients[0] + coefficients[1] * u + coefficients[2] * u**2)


def _polynomial(b: _Budget, fit: Floats) -> tuple[float, float, float]:
    """The coefficients in ln N, highest power first."""
    inner = np.poly1d([1 / b.half, -b.centre / b.half])
    whole = np.poly1d(fit[::-1])(inner)
    return float(whole[2]), float(whole[1]), float(whole[0])


def _along(b: _Budget, values: Floats) -> np.poly1d:
    """ln of what runs have, as a line in u: at equal FLOPs the tokens fall nearly as 1/N."""
    return np.poly1d(np.polyfit(b.basis[:, 1], np.log(values), 1))


def _why_not(b: _Budget, fit: Floats, u: float, usable: float, deviation: float) -> str | None:
    at = f"at {b.nominal:.3g} FLOPs"
    least, most = b.size.min(), b.size.max()
    if fit[2] <= 0:
        return f"The parabola {at} opens downwards; add sizes on both sides of the best one, or seeds."
    if abs(u) >= 1:
        side, edge, way = ("below", least, "smaller") if u < 0 else ("above", most, "larger")
        return f"The minimum {at} lies {side} the sampled sizes ({edge:,.0f}); train {way} ones until it is bracketed."
    effect = float(max(_value(fit, -1.0), _value(fit, 1.0)) - _value(fit, u))
    if deviation > effect:
        return (
            f"Seeds {at} differ by {deviation:.3g} nats and sizes by {effect:.3g}; "
            "add seeds, or sizes farther from the best one."
        )
    if usable < LEAST_USABLE:
        return (
            f"Only {100 * usable:.0f} % of the resamples {at} have a minimum between the sampled sizes, "
            f"and {100 * LEAST_USABLE:.0f} % are needed; add seeds, or sizes farther from the best one."
        )
    return None


def _refused(b: _Budget, why: str, usable: float = 0.0) -> Parabola:
    sizes = tuple(np.unique(b.size).tolist())
    compute = float(np.exp(np.log(b.compute).mean()))
    return Parabola(b.nominal, len(b.runs), sizes, compute, usable=usable, refusal=why)


def _vertices(found: Sequence[tuple[Parabola, dict[str, tuple[float, Floats]]]], method: str) -> Vertices | None:
    if not found:
        return None
    at = {name: np.array([ln[name][0] for _, ln in found]) for name in ("compute", "size", "tokens", "loss")}
    drawn = {name: np.stack([ln[name][1] for _, ln in found], axis=1) for name in ("size", "tokens", "loss")}
    runs = sum(parabola.runs for parabola, _ in found)
    return Vertices(
        at["compute"], at["size"], at["tokens"], at["loss"], drawn["size"], drawn["tokens"], drawn["loss"], runs, method
    )
