"""A scaling study in the terminal: its plan before anything is trained, and its sweep, search and test afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.report.table import Table, table
from windtunnel.scaling.foresight import Foresight
from windtunnel.scaling.notes import MOST_EPOCHS, WARN_EPOCHS
from windtunnel.scaling.plan import Row, StudyPlan
from windtunnel.scaling.search import Searched
from windtunnel.scaling.study import Found
from windtunnel.scaling.sweep import Sweep


def plan_table(plan: StudyPlan) -> Table:
    """Sweep, budgets and hold-out: FLOPs, sizes, seeds, batch, steps and minutes of each."""
    names = ["sweep of the rate", *["budget"] * len(plan.rows), "hold-out"]
    rows = [_plan_row(plan, name, row) for name, row in zip(names, plan.parts, strict=False)]
    heads = ("what", "FLOPs a run", "parameters", "steps", "batch", "runs", "epochs", "minutes")
    return table("", heads, rows)


def _plan_row(plan: StudyPlan, name: str, row: Row) -> list[str]:
    first, last = row.sizes[0], row.sizes[-1]
    design = plan.design
    return [
        name,
        f"{row.budget:.1e}",
        f"{first.parameters:,} to {last.parameters:,}",
        f"{design.steps(first, row.budget):,} to {design.steps(last, row.budget):,}",
        str(row.batch),
        f"{row.n_runs}" + (f" + {row.extra}" if row.extra else ""),
        f"{design.epochs(last, row.budget):.2g} to {design.epochs(first, row.budget):.2g}",
        f"{row.minutes:.1f}",
    ]


def plan_lines(plan: StudyPlan, minutes: float, foresights: Sequence[Foresight]) -> list[str]:
    """What is planned, in sentences."""
    held = plan.hold_out.minutes if plan.hold_out else 0.0
    include = f"the hold-out's {held:.1f} among them" if held else "without a hold-out (--hold-out tests the forecast)"
    if held and not plan.leaves_time:
        include = f"the hold-out's {held:.1f} among them, for which the budgets leave no time"
    return [
        f"sizes: {plan.design.dial}; N is counted without embeddings",
        f"{plan.design.rule}; the sweep checks it before anything is fitted",
        f"{plan.n_runs} runs, {plan.flops:.2g} FLOPs, {plan.minutes:.1f} minutes of the {minutes:g} given, {include}; "
        f"{plan.pace.at_once} at once; + runs are kept for sizes that the search adds",
        *[f"expected with {one}" for one in foresights],
        *_repeats(plan),
    ]


def _repeats(plan: StudyPlan) -> list[str]:
    if plan.epochs <= WARN_EPOCHS:
        return []
    said = f"the run that repeats its text most reads its {plan.design.unique:,.0f} tokens {plan.epochs:.1f} times"
    if plan.epochs > MOST_EPOCHS:
        return [f"{said}: it is fitted all the same, as --repeat-data asks, and its loss is not that of new text"]
    return [f"{said}: up to {MOST_EPOCHS} times are worth almost as much as new text (Muennighoff et al. 2023)"]


def sweep_table(sweeps: Sequence[Sweep]) -> Table:
    """The losses of the sweeps: a row a budget and size, a column a factor of the rate that the rule gave."""
    factors = sorted({factor for sweep in sweeps for of in sweep.losses.values() for factor in of})
    rows = [
        [f"{sweep.budget:.1e}", f"{n:,}", *(_loss(of.get(factor)) for factor in factors), f"x {sweep.best[n]:.2g}"]
        for sweep in sweeps
        for n, of in sweep.losses.items()
    ]
    heads = ["FLOPs", "parameters", *(f"x {factor:g}" for factor in factors), "best"]
    return table("Sweeps of the learning rate", heads, rows)


def search_table(searched: Sequence[Searched]) -> Table:
    """The mean loss of every size trained at each budget; those that are not fitted in brackets."""
    rows = []
    for one in searched:
        for size in sorted(one.losses, key=lambda size: size.parameters):
            losses = list(one.losses[size].values())
            mean = _loss(sum(losses) / len(losses))
            fitted = size in one.sizes
            rows.append([f"{one.budget:.1e}", f"{size.parameters:,}", mean if fitted else f"({mean})", len(losses)])
    return table("Runs", ("FLOPs", "parameters", "loss", "seeds"), rows)


def found_lines(found: Found) -> list[str]:
    """The sweep, the search and the test in sentences."""
    lines = [str(sweep) for sweep in found.sweeps]
    lines += [one.said for one in found.searched]
    if found.hold_out is not None:
        lines.append(f"hold-out: {found.hold_out}")
    return lines


def _loss(loss: float | None) -> str:
    if loss is None:
        return ""
    return f"{loss:.4f}" if math.isfinite(loss) else "diverged"
