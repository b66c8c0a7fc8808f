"""004-2.3: the course's own IsoFLOP points, fitted again, with the error that it did not print."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.errors import DataError
from windtunnel.experiments.decoder_only import course_decoder
from windtunnel.experiments.frame import Drawing, Findings, Given, Progress, Row, Setting, draw, interval, table
from windtunnel.files import read_given
from windtunnel.models.cost import training_flops
from windtunnel.report import charts
from windtunnel.report.scaling import count
from windtunnel.report.scaling_figure import scaling_figures
from windtunnel.scaling.curves import Curve, plain_vertex, points_of_curves
from windtunnel.scaling.fit import Scaling, fit_scaling
from windtunnel.scaling.points import Points

ROW, E31 = Row("004-2.3.p"), Row("E31")
LAYERS, VOCABULARY, LENGTH, EPOCHS = 4, 30, 19.55, 100
"""Of the source's decoders; tokens of an average sequence; and how often its runs saw their words."""
SIZES = {16: 4_862, 32: 17_886, 48: 39_102, 64: 68_510, 96: 151_902, 128: 268_062}
"""Parameters without embeddings, by width."""
LOSSES = {
    8e10: {16: 1.741, 32: 1.705, 48: 1.656, 64: 1.649, 96: 1.722},
    1.6e11: {16: 1.529, 32: 1.403, 48: 1.349, 64: 1.382, 96: 1.506, 128: 1.502},
    3.2e11: {32: 1.203, 48: 1.007, 64: 0.991, 96: 1.147, 128: 1.276},
    6.4e11: {32: 1.042, 48: 0.683, 64: 0.597, 96: 0.664, 128: 0.926},
    1.28e12: {48: 0.552, 64: 0.438, 96: 0.280, 128: 0.526},
}
"""Held-out losses in nats per token where one run a width passes a budget, by a polynomial of degree 5 in FLOPs."""
SPENT = {16: 0.2216e12, 32: 0.6853e12, 48: 1.3949e12, 64: 2.3503e12, 96: 4.9988e12, 128: 8.6307e12}
LOWEST = {16: 1.494, 32: 1.030, 48: 0.486, 64: 0.362, 96: 0.122, 128: 0.132}
"""FLOPs of the whole runs, and the lowest loss of each."""
USED = 5.0021e6
"""Tokens of each run."""
BEST_SIZES = (36_223, 35_796, 60_243, 77_190, 111_507)
BEST_TOKENS = (311_610, 630_086, 775_831, 1_228_496, 1_732_824)
FAR, PRINTED, OWN_TOKENS = 1e15, 3.7e6, 6.6e6
"""The budget that the source extrapolates to; its size there; and its tokens for 8.6 TFLOPs."""
DIGITS = 0.01
"""Losses of three digits give vertices that are right within this share."""


def published_isoflop(at: Setting) -> Findings:
    """The course's IsoFLOP points, fitted again.

    The losses of its six decoders at five budgets were fitted as the source did, and again with intervals, with one
    model left out at a time, and by the parametric law. With the curves of its runs (--corpus FILE.json: of each width
    `N`, and `flops` and `val` of each epoch) the points are read off again, in three ways.
    """
    yield Progress("the points", 0, 2)
    curves = read_curves(Path(at.corpus)) if at.corpus else []
    yield Given({"losses": f"{sum(map(len, LOSSES.values()))} at {len(LOSSES)} budgets, one run a width",
                 "curves": at.corpus or "not given"})  # fmt: skip
    points = published_points()
    yield from counts()
    yield from vertices(points)
    yield from line(points)
    yield Progress("with intervals", 1, 2)
    found = fit_scaling(points, repeat_data=True)
    yield from with_error(found)
    yield from otherwise(points, curves)
    drawn = scaling_figures(found, [FAR])
    yield Drawing("isoflop", drawn["isoflop"])
    yield Drawing("optimum", drawn["optimum"])
    if curves:
        yield curves_figure(curves)


# ------------------------------------------------------------------------------------------------------------- formulas


def example_flops(h: float, length: float = LENGTH) -> float:
    """Training FLOPs of a sequence as the source counts them: those of softmax, too, and three times the forward."""
    attention = 6 * length * h * h + 4 * length**2 * h + 3 * length**2
    return 3 * (LAYERS * (attention + 2 * length * h * h) + 2 * length * VOCABULARY * h)


def width_of(parameters: float) -> float:
    """The width, not a whole number, of a decoder of so many parameters: the root of 16 h^2 + 46 h + 30."""
    square, slope = 4 * LAYERS, 4 * LAYERS + VOCABULARY
    return (math.sqrt(slope**2 + 4 * square * (parameters - VOCABULARY)) - slope) / (2 * square)


def tokens_of(budget: float, parameters: float) -> float:
    """Tokens for which a decoder of so many parameters spends a budget."""
    return budget / example_flops(width_of(parameters)) * LENGTH


def published_points() -> Points:
    """The losses as points."""
    rows = [(h, budget, loss) for budget, own in LOSSES.items() for h, loss in own.items()]
    _, budgets, losses = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    sizes = np.array([SIZES[h] for h, _, _ in rows], dtype=float)
    epochs = np.array([EPOCHS * budget / SPENT[h] for h, budget, _ in rows])
    read = np.array([budget / example_flops(h) * LENGTH for h, budget, _ in rows])
    return Points(sizes, read, budgets, losses, np.zeros(len(rows)), budget=budgets, epochs=epochs)  # type: ignore[arg-type]


def plain_line(points: Points) -> tuple[list[float], float, float]:
    """As the source did: the vertex of each budget, and exponent and N at 1e15 FLOPs of the line through them."""
    best = [plain_vertex(own.parameters, own.loss) for own in (points.where(points.nominal == b) for b in LOSSES)]
    slope, level = np.polyfit(np.log([*LOSSES]), np.log(best), 1)
    return best, float(slope), float(np.exp(level + slope * math.log(FAR)))


def apart(got: Sequence[float], expected: Sequence[float]) -> list[float]:
    """By which shares they differ."""
    return [abs(a / b - 1) for a, b in zip(got, expected, strict=True)]


# --------------------------------------------------------------------------------------------------------------- claims


def counts() -> Findings:
    """Parameters and FLOPs; E31."""
    sizes = {h: course_decoder(h).n_parameters(embeddings=False) for h in SIZES}
    yield ROW.same("parameters without embeddings, by width", sizes, SIZES)
    falls = [LOWEST[b] < LOWEST[a] for a, b in pairwise(SIZES)]
    yield ROW.shows("larger is always better: each width's lowest loss in 100 epochs is below that of the one before",
                    all(falls), ", ".join(f"h {h} {loss:g}" for h, loss in LOWEST.items()), "larger is better",
                    lowest=LOWEST)  # fmt: skip
    each = example_flops(128)
    ours = example_flops(128, 20) / training_flops(course_decoder(128), 20)
    yield E31.equal("an example of h 128 costs 33.56 million FLOPs", apart([each], [33.56e6]), 5e-4,
                    shown=f"{each:,.0f}; {ours:.4f} times as many as windtunnel counts, without softmax")  # fmt: skip
    spent = each / LENGTH * USED
    yield E31.equal("the run used 5.00 million tokens for its 8.6 TFLOPs", apart([spent], [SPENT[128]]), 0.01,
                    shown=f"{each / LENGTH / 1e6:.3f} MFLOPs a token x {USED:,.0f} = {spent:.3g}")  # fmt: skip
    shown = f"{each / LENGTH * OWN_TOKENS:.3g} FLOPs would pay for them"
    yield E31.shows("6.6 million tokens cost 8.6 TFLOPs", each / LENGTH * OWN_TOKENS < 1.01 * SPENT[128], shown,
                    "8.6T FLOPs and 6.6M tokens", flops=each / LENGTH * OWN_TOKENS)  # fmt: skip


def vertices(points: Points) -> Findings:
    """The lowest points of the parabolas."""
    sizes = np.array([*SIZES.values()], dtype=float)
    again = plain_vertex(sizes, 1 + 0.1 * np.log(sizes / 1e5) ** 2)
    yield ROW.equal("the vertex of an exact parabola is found", apart([again], [1e5]), 1e-9, shown=f"{again:,.3f}")
    best, _, _ = plain_line(points)
    bends = [np.polyfit(np.log(own.parameters), own.loss, 2)[0]
             for own in (points.where(points.nominal == b) for b in LOSSES)]  # fmt: skip
    ends = [(min(SIZES[h] for h in own), max(SIZES[h] for h in own)) for own in LOSSES.values()]
    inside = [low < n < high for n, (low, high) in zip(best, ends, strict=True)]
    yield ROW.shows("every parabola opens upwards, with its vertex between the sizes", min(bends) > 0 and all(inside),
                    f"{sum(inside)} of {len(inside)}", bends=bends)  # fmt: skip
    yield ROW.equal("the best sizes of the five budgets", apart(best, BEST_SIZES), DIGITS,
                    "; ".join(f"{n:,}" for n in BEST_SIZES), "; ".join(f"{n:,.0f}" for n in best))  # fmt: skip
    read = [tokens_of(budget, n) for budget, n in zip(LOSSES, best, strict=True)]
    yield ROW.equal("the tokens there", apart(read, BEST_TOKENS), DIGITS, "; ".join(f"{n:,}" for n in BEST_TOKENS),
                    "; ".join(f"{n:,.0f}" for n in read))  # fmt: skip


def line(points: Points) -> Findings:
    """The line through them, without an interval."""
    best, exponent, far = plain_line(points)
    read = [tokens_of(budget, n) for budget, n in zip(LOSSES, best, strict=True)]
    of_tokens = float(np.polyfit(np.log([*LOSSES]), np.log(read), 1)[0])
    yield ROW.equal("the exponent of the best size is .435", abs(exponent - 0.435), 0.002, ".435", f"{exponent:.4f}")
    yield ROW.equal("that of the tokens is .591", abs(of_tokens - 0.591), 0.002, ".591", f"{of_tokens:.4f}")
    yield ROW.equal(f"the best size at {FAR:g} FLOPs, by the plain line, is 3.7 million", apart([far], [PRINTED]), 0.05,
                    "3.7e6", f"{far:,.0f}")  # fmt: skip


def with_error(found: Scaling) -> Findings:
    """The same points with intervals."""
    refused = [p for p in found.parabolas if p.refusal]
    yield ROW.shows("every budget's best size is determined by its points", not refused,
                    f"{len(found.parabolas) - len(refused)} of {len(found.parabolas)}; {refused[0].refusal}"
                    if refused else "5 of 5", refused=len(refused))  # fmt: skip
    yield ROW.shows("the parametric law fits them", found.law is not None,
                    next((r.why for r in found.refusals if r.what == "the parametric law"), "residual below .05"),
                    law=found.law is not None)  # fmt: skip
    far, run = found.at(FAR), found.at(SPENT[128])
    assert far.parameters is not None
    assert run.parameters is not None
    assert run.tokens is not None
    width = far.parameters.high / far.parameters.low
    yield ROW.shows(f"3.7 million at {FAR:g} FLOPs is inside the band",
                    far.parameters.low <= PRINTED <= far.parameters.high,
                    f"{count(far.parameters)}, {far.decades:.1f} decades beyond the budgets", "3.7e6",
                    estimate=far.parameters)  # fmt: skip
    yield ROW.shows("the points say it within a factor of two either way", width <= 4, f"the band spans {width:.0f}",
                    width=width)  # fmt: skip
    inside = run.parameters.low <= SIZES[128] <= run.parameters.high
    inside = inside and run.tokens.low <= USED <= run.tokens.high
    yield ROW.shows("h 128 for 8.63 TFLOPs is not compute-optimal: its size or its tokens lie outside the band",
                    not inside, f"used {SIZES[128]:,} and {USED:,.0f}; best {count(run.parameters)} and "
                    f"{count(run.tokens)} tokens", "no; more data or smaller model", best=run.parameters)  # fmt: skip
    assert found.parameters is not None
    assert found.tokens is not None
    rows = [(f"{p.budget:.3g}", count(p.parameters), count(p.tokens), f"{p.usable:.0%}") for p in found.parabolas]
    exponents = [interval(one.exponent, ".3f") for one in (found.parameters, found.tokens)]
    rows.append(("exponent", exponents[0], exponents[1], ""))
    rows += [(f"forecast, {f.compute:.3g}", count(f.parameters), count(f.tokens), "") for f in (run, far)]
    yield table("The points with intervals of 95 %", ("FLOPs", "best N", "D there", "usable draws"), rows)


# ------------------------------------------------------------------------------------------------------ read otherwise


def otherwise(points: Points, curves: Sequence[Curve]) -> Findings:
    """How much the answer depends on the reading, and on each model."""
    left_out = {h: plain_line(points.where(points.parameters != n)) for h, n in SIZES.items()}
    sound = {h: far for h, (best, _, far) in left_out.items() if in_range(best)}
    low, high = min(sound.values()), max(sound.values())
    yield ROW.shows("one model left out: N at 1e15 stays within a factor of two of itself", high / low <= 2,
                    f"{low / 1e6:.2f} to {high / 1e6:.2f} million, without those that leave no answer",
                    far=sound)  # fmt: skip
    lost = [h for h in SIZES if h not in sound]
    shown = "; ".join(f"without h {h} a vertex at {farthest(left_out[h][0]):.2g}" for h in lost)
    yield ROW.shows("there is an answer whichever model is left out", not lost, f"{len(lost)} of 6; {shown}", lost=lost)
    readings = {"the points": plain_line(points)}
    if curves:
        read = points_of_curves(curves, [*LOSSES], "polynomial")
        readings |= {
            "curves, polynomial of degree 5 in FLOPs": plain_line(read),
            "curves, interpolated": plain_line(points_of_curves(curves, [*LOSSES])),
            "curves, cubic in log FLOPs": plain_line(cubic(curves, read)),
        }
        same = len(read) == len(points)
        gaps = np.abs(by_place(read) - by_place(points)) if same else math.inf
        yield ROW.equal("the points are those of the given curves", gaps, 6e-4, shown=f"{len(read)} losses")
    rows = [*readings.items(), *((f"the points without h {h}", own) for h, own in left_out.items())]
    yield table("The plain line, read otherwise", ("from", "exponent of N*", "N at 1e15", "best sizes"), (
        (name, f"{exponent:.3f}", f"{far:.3g}", "; ".join(f"{n:.3g}" for n in best))
        for name, (best, exponent, far) in rows
    ))  # fmt: skip


def in_range(best: Sequence[float]) -> bool:
    """Whether all vertices lie between the smallest and the largest size."""
    return min(SIZES.values()) < min(best) and max(best) < max(SIZES.values())


def farthest(best: Sequence[float]) -> float:
    """The vertex farthest from the sizes."""
    middle = math.log(SIZES[48])
    return max(best, key=lambda n: abs(math.log(n) - middle))


def by_place(points: Points) -> np.ndarray:
    """Losses, by budget and size."""
    return points.loss[np.lexsort((points.parameters, points.nominal))]


def cubic(curves: Sequence[Curve], read: Points) -> Points:
    """The points of a cubic polynomial in log FLOPs, fitted to each curve."""
    fits = {c.parameters: np.polynomial.Polynomial.fit(np.log(c.flops), c.loss, 3) for c in curves}
    losses = [fits[n](math.log(b)) for n, b in zip(read.parameters.tolist(), read.nominal.tolist(), strict=True)]
    return Points(read.parameters, read.tokens, read.flops, np.array(losses), read.seed, budget=read.budget)


def curves_figure(curves: Sequence[Curve]) -> Drawing:
    """Held-out loss against FLOPs, as it was and as the polynomial."""
    raw = {f"N {c.parameters:,.0f}": (c.flops, c.loss) for c in curves}
    smooth = {f"N {c.parameters:,.0f}": (c.flops, [c.loss_at(float(x), "polynomial") for x in c.flops]) for c in curves}
    return two_courses(raw, "each epoch", smooth)


def two_courses(raw: Mapping[str, charts.Curve], title: str, smooth: Mapping[str, charts.Curve]) -> Drawing:
    """Held-out losses against FLOPs, as they were, under a title, and beside them as the polynomial."""
    settings: dict[str, Any] = {"log": "x", "xlabel": "FLOPs", "ylabel": "held-out loss, nats per token"}
    beside = {title: raw, "polynomial of degree 5": smooth}
    panels = [charts.lines(courses, title=named, **settings) for named, courses in beside.items()]
    return draw("curves", *panels, share="y")


# --------------------------------------------------------------------------------------------------------------- a file


def read_curves(path: Path) -> list[Curve]:
    """The curves of a JSON file: of each width an object with N, and flops and val of each epoch.

    Raises:
        DataError: when it cannot be read, is no such JSON, or its numbers are no curve.
    """
    cure = 'expected JSON such as {"16": {"N": 4862, "flops": [2.2e9, 4.4e9], "val": [2.99, 2.58]}, ...}'
    try:
        data = json.loads(read_given(path, 50_000_000))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise DataError(f"{path} cannot be read as curves: {why}; {cure}") from None
    try:
        return list(_curves(data))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path} holds no curves; {cure}") from None


def _curves(data: Mapping[str, Any]) -> Iterator[Curve]:
    for h, own in data.items():
        flops, loss = (np.array(own[name], dtype=float) for name in ("flops", "val"))
        if not (np.isfinite(flops).all() and np.isfinite(loss).all()):
            raise ValueError("not finite")
        tokens = flops / example_flops(float(h)) * LENGTH
        yield Curve(float(own["N"]), flops, tokens, loss, epochs_at_end=float(len(flops)))
