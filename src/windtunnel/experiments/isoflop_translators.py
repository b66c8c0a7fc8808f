"""004-2.3: which size is best for a budget, by runs of the course's decoder on Pig Latin, read in several ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from windtunnel.experiments.frame import (
    Claim,
    Drawing,
    Findings,
    Given,
    Progress,
    Row,
    Setting,
    interval,
    table,
)
from windtunnel.experiments.isoflop_rates import ISOFLOP, sweep
from windtunnel.experiments.isoflop_runs import (
    CORPUS,
    THEIR_BATCH,
    THEIR_LR,
    Design,
    Ends,
    Kind,
    Rates,
    cost_of,
    courses,
    ends,
    points_at_ends,
    read_off,
    write_fresh,
)
from windtunnel.experiments.published_isoflop import FAR, PRINTED, two_courses
from windtunnel.experiments.translators import SOME
from windtunnel.report.scaling import count
from windtunnel.report.scaling_figure import scaling_figures
from windtunnel.runs.arms import Arm, resolve_grid
from windtunnel.scaling.curves import Curve
from windtunnel.scaling.fit import Scaling, fit_scaling
from windtunnel.scaling.points import Points
from windtunnel.stats.intervals import Estimate, paired_difference
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import load

CURVES, BEST, TOKENS, E32 = Row("004-2.3.1"), Row("004-2.3.3"), Row("004-2.3.4"), Row("E32")
THEIRS = {8e10: (16, 32, 48, 64, 96), 1.6e11: (16, 32, 48, 64, 96, 128), 3.2e11: (32, 48, 64, 96, 128)}
"""Of three of the source's five budgets its widths."""
SIZES = {2.5e9: (4, 8, 12, 16, 24), 5e9: (4, 8, 12, 16, 24, 32), 1e10: (8, 12, 16, 24, 32), 2e10: (12, 16, 24, 32, 48)}
"""Where the best width lies with a rate that is not too low: the source's budgets are there spent on words known."""
QUICK_SIZES = dict.fromkeys((1e8, 2e8, 4e8), (8, 16, 24))
N_FRESH = 70_000
THEIR_RUN, THEIR_SIZE = 8.63e12, 268_062
"""Of the source its largest run in FLOPs, and its parameters."""
READINGS = {"source": "the source's rate, read off", "long": "the rule's rate, read off", "own": "ending at the budget"}
"""Those read off are values of a polynomial of degree 5 in FLOPs, as the source's."""


def isoflop_translators(at: Setting) -> Findings:
    """Translators at equal FLOPs.

    The course's decoders of six widths were trained on the words of pig-latin-small with the source's learning rate,
    and their losses read off at budgets that long runs pass. Then the rate was swept, and the budgets lowered until the
    best size was bracketed again; there it was read off long runs, and from runs whose schedules end at the budget. The
    last were made again with made-up words, hardly any of which is seen twice.
    """
    theirs, design = design_of(at, THEIRS), design_of(at, SIZES)
    rates = yield from sweep(design)
    own, _ = yield from ends(design, Kind(CORPUS, design.batch, rates), "runs that end at a budget")
    batch = at.size(THEIR_BATCH, quick=8)
    kind = Kind(CORPUS, batch, lambda *_: THEIR_LR, decays=False)
    source = yield from courses(theirs, kind, READINGS["source"], True)
    long = yield from courses(design, replace(kind, batch=design.batch, rates=rates), READINGS["long"], False)
    read = {"source": read_off(theirs, source), "long": read_off(design, long), "own": points_at_ends(own)}
    found = {name: fit_scaling(points, repeat_data=True) for name, points in read.items()}
    straight = {"source": read_off(theirs, source, "interpolation"), "long": read_off(design, long, "interpolation")}
    yield from given(theirs, design)
    yield from larger((theirs, read["source"], READINGS["source"]), (design, read["own"], READINGS["own"]))
    yield from vertices(found)
    yield from what_changes(design, read_off(design, source, "interpolation"), read["long"], read["own"])
    between = {f"{READINGS[name]}, interpolated": fit_scaling(p, repeat_data=True) for name, p in straight.items()}
    yield from answers(found, between)
    yield from tokens(found["own"])
    yield from fresh(design, rates, own)
    yield curves_figure(source)
    for name in READINGS:
        drawn = scaling_figures(found[name], [FAR])
        yield Drawing(f"isoflop-{name}", drawn["isoflop"])
        yield Drawing(f"optimum-{name}", drawn["optimum"])


def design_of(at: Setting, sizes: Mapping[float, Sequence[int]]) -> Design:
    """Budgets and widths, with their costs."""
    sizes = QUICK_SIZES if at.quick else sizes
    widths = sorted({h for own in sizes.values() for h in own})
    return Design(at, sizes, {h: cost_of(at, CORPUS, h) for h in widths})


def given(theirs: Design, design: Design) -> Findings:
    """What was trained, and what was not."""
    steps = {place: int(place[1] / (design.batch * design.costs[place[0]].flops)) for place in design.places}
    few = [f"h {h} at {budget:.2g} ({n})" for (h, budget), n in steps.items() if n < 500]
    costs = {**theirs.costs, **design.costs}
    yield Given({
        "budgets, FLOPs": ", ".join(f"{b:.2g}" for b in design.sizes),
        "budgets of the source's rate": ", ".join(f"{b:.2g}" for b in theirs.sizes),
        "N": ", ".join(f"h {h}: {costs[h].parameters:,}" for h in sorted(costs)),
        "batch": f"{design.batch}; of the source's runs {THEIR_BATCH}",
        "runs of fewer than 500 steps": ", ".join(few) or "0",
        "left out": "the source's budgets 6.4e11 and 1.28e12, and its 100 epochs: 8.6e12 FLOPs a run of h 128",
    })  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- reading


def larger(*read: tuple[Design, Points, str]) -> Findings:
    """004-2.3.1: at the largest budget, whether the largest model has the lowest loss."""
    for design, points, how in read:
        widths, sizes = sorted(design.sizes[design.most]), {h: float(c.parameters) for h, c in design.costs.items()}
        best = min(widths[:-1], key=lambda h: mean_loss(points, sizes[h], design.most))
        gap = difference((points, sizes[best]), (points, sizes[widths[-1]]), design.most)
        yield CURVES.within(
            f"larger is always better: at {design.most:.2g} FLOPs h {widths[-1]} is below h {best} ({how})", gap,
            high=-SOME, printed="larger is better", shown=f"{interval(gap, '+.3f')} nats per token",
        )  # fmt: skip


def mean_loss(points: Points, parameters: float, budget: float) -> float:
    """Of all seeds of a size at a budget."""
    return float(np.mean(points.loss[(points.parameters == parameters) & (points.nominal == budget)]))


def difference(first: tuple[Points, float], second: tuple[Points, float], budget: float) -> Estimate:
    """The loss of the second (points, size) minus that of the first at a budget, paired by seed."""
    a, b = (
        {int(s): float(x) for s, x in zip(points.seed[here], points.loss[here], strict=True)}
        for points, size in (first, second)
        for here in [(points.parameters == size) & (points.nominal == budget)]
    )
    seeds = sorted(set(a) & set(b))
    return paired_difference([a[s] for s in seeds], [b[s] for s in seeds])


def vertices(found: Mapping[str, Scaling]) -> Findings:
    """004-2.3.2: the best size of each budget."""
    for name, how in READINGS.items():
        refused = [p.refusal.rstrip(".") for p in found[name].parabolas if p.refusal]
        n = len(found[name].parabolas)
        yield ISOFLOP.shows(
            f"every budget has a best size between those trained ({how})", not refused,
            "; ".join([f"{n - len(refused)} of {n}", *refused]), refused=len(refused),
        )  # fmt: skip
    yield table("The best size of a budget, 95 %", ("read", "budget, FLOPs", "best N", "D there", "loss there"), (
        (how, f"{p.budget:.3g}", count(p.parameters), count(p.tokens), interval(p.loss, ".3f") if p.loss else "-")
        for name, how in READINGS.items() for p in found[name].parabolas
    ))  # fmt: skip


def what_changes(design: Design, source: Points, long: Points, own: Points) -> Findings:
    """004-2.3.2: what a tuned rate changes, and what a schedule that ends at the budget changes."""
    for h in (h for h in design.sizes[design.most] if float(design.costs[h].parameters) in source.parameters):
        n = float(design.costs[h].parameters)
        gap = difference((source, n), (long, n), design.most)
        yield ISOFLOP.within(f"the rule's rate and batch: a lower loss at {design.most:.2g} FLOPs, h {h}", gap,
                             high=-SOME, shown=f"{interval(gap, '+.3f')} nats per token")  # fmt: skip
    for budget, widths in design.sizes.items():
        n = float(design.costs[widths[len(widths) // 2]].parameters)
        gap = difference((long, n), (own, n), budget)
        yield ISOFLOP.within(f"a schedule that ends there: a lower loss at {budget:.2g} FLOPs, N {n:,.0f}", gap,
                             high=-SOME, shown=f"{interval(gap, '+.3f')} nats per token")  # fmt: skip


def answers(found: Mapping[str, Scaling], between: Mapping[str, Scaling]) -> Findings:
    """004-2.3.3: the line, and the size at 1e15 FLOPs.

    Args:
        between: more readings, by what they are, for the table alone.
    """
    rows = []
    for how, one in ({READINGS[name]: one for name, one in found.items()} | dict(between)).items():
        best, exponent = one.at(FAR), one.parameters.exponent if one.parameters else None
        rows.append((how, interval(exponent, ".3f") if exponent else "-", count(best.parameters), count(best.tokens),
                     "fits" if one.law else "does not fit"))  # fmt: skip
    for name, how in READINGS.items():
        yield within_or_refused(
            BEST, f"the best N at {FAR:g} FLOPs is 3.7 million, within a factor of two ({how})", found[name],
            found[name].at(FAR).parameters, (PRINTED / 2, PRINTED * 2), "3.7e6",
        )  # fmt: skip
    heads = ("read", "exponent of N*", f"N* at {FAR:g}", "D* there", "parametric law")
    yield table("The line, and what it says of 1e15 FLOPs", heads, rows)


def tokens(found: Scaling) -> Findings:
    """004-2.3.4: tokens, and whether the source's largest run was of the best size."""
    exponent = found.tokens.exponent if found.tokens else None
    yield within_or_refused(TOKENS, "tokens grow more slowly than FLOPs", found, exponent, (0.0, 1.0), "", ".3f")
    best = found.at(THEIR_RUN)
    yield within_or_refused(
        TOKENS, f"at {THEIR_RUN:.3g} FLOPs a smaller model than {THEIR_SIZE:,} is best", found, best.parameters,
        (0.0, THEIR_SIZE), "not compute-optimal",
    )  # fmt: skip
    yield within_or_refused(
        TOKENS, f"at {THEIR_RUN:.3g} FLOPs more tokens than 5.0 million are best", found, best.tokens,
        (5.0e6, math.inf), "6.6 million",
    )  # fmt: skip


def within_or_refused(
    row: Row, statement: str, found: Scaling, estimate: Estimate | None, bounds: tuple[float, float], printed: str,
    digits: str = "",
) -> Claim:  # fmt: skip
    """As `Row.within`; undecided, with the reason, where the fit was refused."""
    if estimate is None:
        why = "; ".join(f"{r.what}: {r.why}" for r in found.refusals if r.what.startswith("N*"))
        return Claim(row.id, statement, printed, f"refused: {why}", "undecided", {"why": why})
    shown = interval(estimate, digits) if digits else count(estimate)
    return row.within(statement, estimate, *bounds, printed=printed, shown=shown)


# --------------------------------------------------------------------------------------------------------- fresh words


def fresh(design: Design, rates: Rates, own: Ends) -> Findings:
    """E32: the same runs, but for those of the lowest budget, on words that are hardly repeated."""
    at, path = design.at, design.at.out / "fresh.tsv"
    write_fresh(path, at.size(N_FRESH, quick=4000))
    sizes = {budget: widths for budget, widths in design.sizes.items() if budget > design.least}
    new = replace(design, sizes=sizes, costs={h: cost_of(at, str(path), h) for h in design.widths})
    repeated = points_at_ends({key: curve for key, curve in own.items() if key[0] in new.places})
    ended, folders = yield from ends(new, Kind(str(path), design.batch, rates), "the same on fresh words")
    losses = []
    for i, folder in enumerate(folders.values()):
        yield Progress("the same held-out words", i, len(ended))
        losses.append(on_few(folder))
    points = points_at_ends(ended, losses)
    times = [float(np.max(one.epochs)) for one in (repeated, points) if one.epochs is not None]
    n_words = design.costs[design.widths[0]].examples
    yield E32.shows(
        "the runs repeat their data", times[0] > 1,
        f"{n_words:,} words up to {times[0]:.0f} times; fresh ones up to {times[1]:.1f} times", times=times,
    )  # fmt: skip
    for h in new.sizes[new.most]:
        n = float(design.costs[h].parameters)
        gap = difference((repeated, n), (points, n), new.most)
        yield E32.within(f"fresh words: a lower loss on the same held-out words at {new.most:.2g} FLOPs, h {h}", gap,
                         high=-SOME, shown=f"{interval(gap, '+.3f')} nats per token")  # fmt: skip
    found = [fit_scaling(one, repeat_data=True) for one in (repeated, points)]
    yield from moved(*found)
    yield Drawing("isoflop-fresh", scaling_figures(found[1])["isoflop"])


def on_few(folder: Path) -> float:
    """The loss of a run on the held-out words of the small corpus."""
    loaded = load(folder)
    (few,) = resolve_grid([Arm("few", loaded.run.config.replace(corpus=CORPUS))])
    assert loaded.tokenizer.to_json() == few.store.tokenizer.to_json()
    return evaluate(loaded.model, few.task, "dev", loaded.step).loss


def moved(repeated: Scaling, found: Scaling) -> Findings:
    """E32: whether the best size and the exponent are others."""
    others = {p.budget: p for p in found.parabolas}
    rows = [(f"{p.budget:.3g}", count(p.parameters), count(others[p.budget].parameters),
             *(interval(q.loss, ".3f") if q.loss else "-" for q in (p, others[p.budget])))
            for p in repeated.parabolas]  # fmt: skip
    exponents = [interval(one.parameters.exponent, ".3f") if one.parameters else "-" for one in (repeated, found)]
    heads = ("budget, FLOPs", "best N: repeated", "fresh", "loss there: repeated", "fresh")
    yield table("Repeated and fresh words, 95 %", heads, [*rows, ("exponent of N*", *exponents, "", "")])
    largest = [scaling.parabolas[-1].parameters for scaling in (repeated, found)]
    statement = "fresh words have the same best size at the largest budget (the bands meet)"
    if largest[0] is None or largest[1] is None:
        yield Claim(E32.id, statement, "", f"{largest.count(None)} of 2 refused", "undecided", {"refused": True})
        return
    a, b = largest[0], largest[1]
    yield E32.shows(statement, a.low <= b.high and b.low <= a.high, f"{count(a)} repeated, {count(b)} fresh",
                    repeated=a, fresh=b)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- figures


def curves_figure(curves: Mapping[int, Sequence[Curve]]) -> Drawing:
    """004-2.3.1: the first seed's held-out loss against FLOPs, raw and as the polynomial that is read off."""
    first = {h: each[0] for h, each in curves.items() if each}
    raw = {f"h {h}": (c.flops, c.loss) for h, c in first.items()}
    smooth = {}
    for h, c in first.items():
        x = np.geomspace(c.flops[0], c.flops[-1], 60)
        smooth[f"h {h}"] = (x, [c.loss_at(float(at), "polynomial") for at in np.clip(x, c.flops[0], c.flops[-1])])
    return two_courses(raw, "as evaluated", smooth)
