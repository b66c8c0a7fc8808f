"""004-2.3: which size is best for a budget, by runs of the course's decoder on Pig Latin, read in several ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from windtunnel.experiments.frame import (
    Claim,
    Drawing,
    Findings,
    Given,
    Progress,
    Row,
    Setting,
    Steps,
    draw,
    interval,
    table,
)
from windtunnel.experiments.isoflop_runs import (
    ALIKE,
    CORPUS,
    THEIR_BATCH,
    THEIR_LR,
    Cost,
    Ends,
    Kind,
    Place,
    Rates,
    best_rate,
    cost_of,
    curve_of,
    ending,
    passing,
    points_at_ends,
    rule_of,
    write_fresh,
)
from windtunnel.experiments.training import train
from windtunnel.report.charts import lines
from windtunnel.report.scaling import count
from windtunnel.report.scaling_figure import scaling_figures
from windtunnel.runs.arms import Arm, resolve_grid
from windtunnel.runs.grid import Grid, make_grid
from windtunnel.scaling.curves import Curve, Reading, points_of_curves
from windtunnel.scaling.fit import Scaling, fit_scaling
from windtunnel.scaling.points import Points
from windtunnel.stats.intervals import Estimate, paired_difference
from windtunnel.training.evaluate import evaluate
from windtunnel.training.run import load

CURVES, ISOFLOP, BEST, TOKENS, E32 = (Row(id) for id in ("004-2.3.1", "004-2.3.2", "004-2.3.3", "004-2.3.4", "E32"))
SIZES = {4e10: (16, 32, 48, 64, 96), 8e10: (16, 32, 48, 64, 96), 1.6e11: (32, 48, 64, 96, 128),
         3.2e11: (32, 48, 64, 96, 128)}  # fmt: skip
"""Of each budget the widths; three of the budgets are the source's."""
QUICK_SIZES = dict.fromkeys((1e8, 2e8, 4e8), (8, 16, 24))
BATCH, SEEDS, SWEPT, RATES = 16, 3, (16, 48, 96), (THEIR_LR, 2e-3, 4e-3, 8e-3, 1.6e-2)
N_FRESH = 190_000
TRANSFERS = math.sqrt(2)
"""The rule of the rate holds at the largest budget when the best rate there is within this factor of its own."""
FAR, THEIR_RUN, THEIR_SIZE, PRINTED = 1e15, 8.63e12, 268_062, 3.7e6
"""The budget that the source extrapolated to; its largest run in FLOPs, and its parameters; and its answer."""
READINGS = {"source": "the source's rate, read off", "long": "the rule's rate, read off", "own": "ending at the budget"}
"""Those read off are values of a polynomial of degree 5 in FLOPs, as the source's."""


@dataclass(frozen=True)
class Design:
    """Widths of each budget, and what an example costs each width."""

    at: Setting
    sizes: Mapping[float, Sequence[int]]
    costs: Mapping[int, Cost]

    @property
    def places(self) -> list[Place]:
        return [(h, budget) for budget, widths in self.sizes.items() for h in widths]

    @property
    def widths(self) -> list[int]:
        return sorted({h for h, _ in self.places})

    @property
    def most(self) -> float:
        return max(self.sizes)

    @property
    def least(self) -> float:
        return min(self.sizes)

    @property
    def batch(self) -> int:
        return self.at.size(BATCH, quick=8)


def isoflop_translators(at: Setting) -> Findings:
    """Translators at equal FLOPs.

    The course's decoders of six widths were trained on the words of pig-latin-small to budgets that lie a factor of two
    apart. Their learning rate was swept at the lowest budget first. The best size of a budget was read three ways: off
    long runs with the source's rate, off long runs with the swept rate, and from runs whose schedules end at the
    budget. The last was done again on made-up words, hardly any of which is seen twice.
    """
    sizes: Mapping[float, Sequence[int]] = QUICK_SIZES if at.quick else SIZES
    design = Design(at, sizes, {h: cost_of(at, CORPUS, h) for own in sizes.values() for h in own})
    rates = yield from sweep(design)
    own, _ = yield from ends(design, Kind(CORPUS, design.batch, rates), "runs that end at a budget")
    yield from transfers(design, rates, own)
    found = {"own": fit_scaling(points_at_ends(own), repeat_data=True)}
    read: dict[str, dict[int, list[Curve]]] = {}
    between: dict[str, Scaling] = {}
    for name, kind in (("source", Kind(CORPUS, at.size(THEIR_BATCH, quick=8), lambda h: THEIR_LR, decays=False)),
                       ("long", Kind(CORPUS, design.batch, rates, decays=False))):  # fmt: skip
        read[name] = yield from courses(design, kind, READINGS[name], name == "source")
        found[name] = fit_scaling(read_off(design, read[name]), repeat_data=True)
        between[READINGS[name] + ", interpolated"] = fit_scaling(
            read_off(design, read[name], "interpolation"), repeat_data=True
        )
    yield from given(design)
    yield from larger(design, read["source"], own)
    yield from vertices(found)
    yield from what_changes(design, found)
    yield from answers(found, between)
    yield from tokens(found["own"])
    yield from fresh(design, rates, own)
    yield curves_figure(design, read["source"])
    for name in READINGS:
        drawn = scaling_figures(found[name], [FAR])
        yield Drawing(f"isoflop-{name}", drawn["isoflop"])
        yield Drawing(f"optimum-{name}", drawn["optimum"])


# ------------------------------------------------------------------------------------------------------------ training


def run(design: Design, what: str, arms: Sequence[Arm]) -> Steps[Grid]:
    """Train these arms with all seeds."""
    grid = make_grid(list(arms), design.at.seeds(SEEDS), design.at.out / "runs")
    yield from train(design.at, what, grid)
    return grid


def ends(design: Design, kind: Kind, what: str) -> Steps[tuple[Ends, dict[tuple[Place, int], Path]]]:
    """Runs of all places, each to its end; those that diverged are left out."""
    arms = {place: ending(design.at, place, design.costs[place[0]], kind) for place in design.places}
    grid = yield from run(design, what, list(arms.values()))
    found = {(place, seed): curve_of(grid.folders[arm.name, seed], seed, design.costs[place[0]])
             for place, arm in arms.items() for seed in grid.seeds}  # fmt: skip
    ended = {key: curve for key, curve in found.items() if curve is not None}
    return ended, {key: grid.folders[arms[key[0]].name, key[1]] for key in ended}


def courses(design: Design, kind: Kind, what: str, source: bool) -> Steps[dict[int, list[Curve]]]:
    """Long runs of all widths, seed by seed, each to the largest budget that its width has."""
    arms = {h: passing(design.at, (h, max(b for own, b in design.places if own == h)), design.costs[h], kind, source)
            for h in design.widths}  # fmt: skip
    grid = yield from run(design, what, list(arms.values()))
    found = {h: [curve_of(grid.folders[arm.name, seed], seed, design.costs[h]) for seed in grid.seeds]
             for h, arm in arms.items()}  # fmt: skip
    return {h: [curve for curve in each if curve is not None] for h, each in found.items()}


def read_off(design: Design, curves: Mapping[int, Sequence[Curve]], how: Reading = "polynomial") -> Points:
    """The points of long runs at the budgets that their widths have."""
    points = points_of_curves([c for each in curves.values() for c in each], list(design.sizes), how)
    wanted = {(float(design.costs[h].parameters), budget) for h, budget in design.places}
    places = zip(points.parameters.tolist(), points.nominal.tolist(), strict=True)
    return points.where(np.array([place in wanted for place in places]) & (points.loss > 0))


def sweep(design: Design) -> Steps[Rates]:
    """The rule of the rate, from several rates at the lowest budget."""
    at = design.at
    widths, rates = at.size(SWEPT, quick=(8, 16)), at.size(RATES, quick=(THEIR_LR, 4e-3))
    arms = {
        (h, lr): ending(at, (h, design.least), design.costs[h],
                        Kind(CORPUS, design.batch, lambda _, lr=lr: lr), f"h {h}, lr {lr:g}")  # type: ignore[misc]
        for h in widths for lr in rates
    }  # fmt: skip
    grid = yield from run(design, "learning rates", list(arms.values()))
    ended = {key: [curve_of(grid.folders[arm.name, seed], seed, design.costs[key[0]]) for seed in grid.seeds]
             for key, arm in arms.items()}  # fmt: skip
    losses = {key: [float(c.loss[-1]) if c else math.inf for c in each] for key, each in ended.items()}
    best = {h: best_rate({lr: float(np.mean(losses[h, lr])) for lr in rates}) for h in widths}
    rule = rule_of(best)
    yield table(f"Learning rates at {design.least:.2g} FLOPs: mean loss of {len(grid.seeds)} seeds",
                ("width", *(f"{lr:g}" for lr in rates), "best", "rule"),
                ((f"h {h}", *(f"{np.mean(losses[h, lr]):.3f}" for lr in rates), f"{best[h]:.2g}", f"{rule(h):g}")
                 for h in widths))  # fmt: skip
    spread = max(best.values()) / min(best.values())
    yield ISOFLOP.shows(
        f"one learning rate serves all widths at {design.least:.2g} FLOPs (best ones within a factor of {ALIKE:g})",
        spread <= ALIKE, f"best {', '.join(f'{lr:.2g} at h {h}' for h, lr in best.items())}", best=best,
    )  # fmt: skip
    for h in widths:
        yield theirs_is_best(h, {lr: losses[h, lr] for lr in rates})
    return rule


def theirs_is_best(h: int, losses: Mapping[float, Sequence[float]]) -> Claim:
    """Whether the source's rate ends as low as the best one."""
    best = min(losses, key=lambda lr: float(np.mean(losses[lr])))
    statement = f"h {h}: the source's rate {THEIR_LR:g} ends as low as the best of {len(losses)}"
    if best == THEIR_LR:
        return ISOFLOP.shows(statement, True, f"{best:g} is the best", best=best)
    gap = paired_difference(losses[best], losses[THEIR_LR])
    return ISOFLOP.within(statement, gap, high=0.0, shown=f"{interval(gap, '+.3f')} nats a token above {best:g}")


def transfers(design: Design, rates: Rates, own: Ends) -> Findings:
    """Whether the rule's rate is near the best one at the largest budget, too."""
    widths = sorted(design.sizes[design.most])
    h = widths[len(widths) // 2]
    place = (h, design.most)
    scaled = {
        factor: ending(design.at, place, design.costs[h],
                       Kind(CORPUS, design.batch, lambda h, f=factor: f * rates(h)), f"rule x {factor:g}")  # type: ignore[misc]
        for factor in (0.5, 2.0)
    }  # fmt: skip
    grid = yield from run(design, "the rule at the largest budget", list(scaled.values()))
    losses = {1.0: [float(own[place, seed].loss[-1]) for seed in grid.seeds if (place, seed) in own]}
    for factor, arm in scaled.items():
        ended = [curve_of(grid.folders[arm.name, seed], seed, design.costs[h]) for seed in grid.seeds]
        losses[factor] = [float(c.loss[-1]) if c else math.inf for c in ended]
    best = best_rate({factor: float(np.mean(each)) for factor, each in losses.items()})
    said = ", ".join(f"x {factor:g} {np.mean(losses[factor]):.3f}" for factor in sorted(losses))
    yield ISOFLOP.shows(
        f"the rule holds at {design.most:.2g} FLOPs, h {h}: the best rate is within a factor of {TRANSFERS:.2g} of it",
        1 / TRANSFERS <= best <= TRANSFERS, f"x {best:.2f}; losses {said}", best=best,
    )  # fmt: skip


def given(design: Design) -> Findings:
    """What was trained, and what was not."""
    steps = {place: int(place[1] / (design.batch * design.costs[place[0]].flops)) for place in design.places}
    few = [f"h {h} at {budget:.2g} ({n})" for (h, budget), n in steps.items() if n < 500]
    yield Given({
        "budgets, FLOPs": ", ".join(f"{b:.2g}" for b in design.sizes),
        "N": ", ".join(f"h {h}: {design.costs[h].parameters:,}" for h in design.widths),
        "batch": f"{design.batch}; of the source's runs {THEIR_BATCH}",
        "runs of fewer than 500 steps": ", ".join(few) or "0",
        "left out": "the source's budgets 6.4e11 and 1.28e12, and its 100 epochs: 8.6e12 FLOPs a run of h 128",
    })  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- reading


def larger(design: Design, long: Mapping[int, Sequence[Curve]], own: Ends) -> Findings:
    """004-2.3.1: at the largest budget, whether the largest model has the lowest loss."""
    widths = sorted(design.sizes[design.most])
    large = design.costs[widths[-1]].parameters
    for how, points in (
        (READINGS["source"], read_off(design, long)),
        (READINGS["own"], points_at_ends(own)),
    ):
        best = min(widths[:-1], key=lambda h: mean_loss(points, design.costs[h].parameters, design.most))
        gap = difference((points, design.costs[best].parameters), (points, large), design.most)
        yield CURVES.within(
            f"larger is always better: at {design.most:.2g} FLOPs h {widths[-1]} is below h {best} ({how})", gap,
            high=0.0, printed="larger is better", shown=f"{interval(gap, '+.3f')} nats a token",
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
        refused = [p for p in found[name].parabolas if p.refusal]
        n = len(found[name].parabolas)
        yield ISOFLOP.shows(
            f"every budget has a best size between those trained ({how})", not refused,
            f"{n - len(refused)} of {n}" + "".join(f"; {p.refusal}" for p in refused), refused=len(refused),
        )  # fmt: skip
    heads = ("budget, FLOPs", *(f"best N: {how}" for how in READINGS.values()), "D there", "loss there")
    own = {p.budget: p for p in found["own"].parabolas}
    by = {name: {p.budget: p.parameters for p in one.parabolas} for name, one in found.items()}
    yield table("The best size of a budget, 95 %", heads, (
        (f"{b:.3g}", *(count(by[name].get(b)) for name in READINGS), count(p.tokens),
         interval(p.loss, ".3f") if p.loss else "-")
        for b, p in own.items()
    ))  # fmt: skip


def what_changes(design: Design, found: Mapping[str, Scaling]) -> Findings:
    """004-2.3.2: what a tuned rate changes, and what a schedule that ends at the budget changes."""
    for budget in (design.least, design.most):
        widths = design.sizes[budget]
        n = design.costs[widths[len(widths) // 2]].parameters
        for says, before, after in (("the rule's rate and batch", "source", "long"),
                                    ("a schedule that ends there", "long", "own")):  # fmt: skip
            gap = difference((found[before].points, n), (found[after].points, n), budget)
            yield ISOFLOP.within(f"{says}: a lower loss at {budget:.2g} FLOPs, N {n:,}", gap, high=0.0,
                                 shown=f"{interval(gap, '+.3f')} nats a token")  # fmt: skip


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
        "the runs repeat their data", times[0] > ALIKE,
        f"{n_words:,} words up to {times[0]:.0f} times; fresh ones up to {times[1]:.1f} times", times=times,
    )  # fmt: skip
    for h in (new.sizes[new.most][0], new.sizes[new.most][-1]):
        n = float(design.costs[h].parameters)
        gap = difference((repeated, n), (points, n), new.most)
        yield E32.within(f"fresh words: a lower loss on the same held-out words at {new.most:.2g} FLOPs, h {h}", gap,
                         high=0.0, shown=f"{interval(gap, '+.3f')} nats a token")  # fmt: skip
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


def curves_figure(design: Design, curves: Mapping[int, Sequence[Curve]]) -> Drawing:
    """004-2.3.1: the first seed's held-out loss against FLOPs, raw and as the polynomial that is read off."""
    first = {h: each[0] for h, each in curves.items() if each}
    raw = {f"h {h}": (c.flops, c.loss) for h, c in first.items()}
    smooth = {}
    for h, c in first.items():
        x = np.geomspace(c.flops[0], c.flops[-1], 60)
        smooth[f"h {h}"] = (x, [c.loss_at(float(at), "polynomial") for at in np.clip(x, c.flops[0], c.flops[-1])])
    settings: dict[str, Any] = {"log": "x", "xlabel": "FLOPs", "ylabel": "held-out loss, nats a token"}
    panels = [lines(raw, title="as evaluated", **settings), lines(smooth, title="polynomial of degree 5", **settings)]
    return draw("curves", *panels, share="y")
