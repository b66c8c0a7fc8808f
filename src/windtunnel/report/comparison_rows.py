"""What a comparison shows, as headings and rows of plain text: the terminal and the page lay the same rows out.

A line break in a cell parts what stands below the number: its interval, or how many times the baseline's cost it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.comparison.comparison import ArmResult, Comparison, Judgement, Slice
from windtunnel.stats.digits import ends, interval, number, p_value, plus_minus
from windtunnel.stats.intervals import Estimate

Rows = tuple[list[str], list[list[str]]]
INDENT = "\u00a0\u00a0"
"""Before an arm below its slice: two spaces that neither the terminal nor a page takes away."""
SLICES = "by slice: scores are means over seeds; the interval of a difference is at the level of its slice's test"
DEARER = 1.02
"""Times the baseline's cost from which on it is shown."""


def arm_rows(found: Comparison) -> Rows:
    """One row an arm: its loss and what it costs. A cost above the baseline's is followed by how many times it is."""
    others = list(dict.fromkeys(name for arm in found.arms for name in arm.scores if name != found.metric))
    heads = ["arm", f"loss\n{found.unit}" if found.unit else found.metric]
    heads += [found.title(name).replace(" per ", "\nper ") for name in others]
    if found.is_of_programs:
        heads += ["seconds\na run", "seeds"]
    else:
        heads += [
            "para-\nmeters",
            f"FLOPs/\n{found.noun}",
            "FLOPs/\nrun",
            f"{found.noun}s\n/s",
            "peak\nmemory",
            "seeds",
        ]
    return heads, [_arm_row(found, arm, others) for arm in found.arms]


def verdict_rows(found: Comparison) -> Rows:
    """One row a judged arm: the verdict, and the difference it rests on."""
    others = list(dict.fromkeys(name for j in found.judgements for name in j.others))
    heads = ["arm", "verdict", f"difference\n{found.title(found.metric)}", "of the\nbaseline"]
    heads += [f"difference\n{found.title(name)}" for name in others]
    rows = [
        [j.arm, verdict_cell(j), signed(j.verdict.difference), share(j.relative)]
        + [signed(j.others[name]) if name in j.others else "-" for name in others]
        for j in found.judgements
    ]
    return heads, rows


def evidence_rows(found: Comparison) -> Rows:
    """One row a judged arm: both tests, and the 95 % intervals by source of chance; the wider one limits."""
    heads = ["arm", "p of\nt test", "p of\nsign flips", "p of\nTOST", "95 % over\nseeds"]
    heads += ["95 % over\ndocuments"] if found.n_documents else []
    rows = []
    for j in found.judgements:
        v = j.verdict
        flips = "-" if math.isnan(v.p_sign_flip) else p_value(v.p_sign_flip)
        tests = _test(v.p, v.level), flips, _test(v.p_equivalence, v.level_equivalence)
        seeds, documents = _ends(j.over_seeds), _ends(j.over_documents)
        seeds += "\nlimits" if j.limited_by == "seeds" else ""
        documents += "\nlimits" if j.limited_by == "documents" else ""
        rows.append([j.arm, *tests, seeds, *([documents] if found.n_documents else [])])
    return heads, rows


def slice_rows(found: Comparison) -> Rows:
    """A row a slice, with its number of pairs or documents, and below it one an arm: its scores, and how it differs."""
    names = list(dict.fromkeys(name for part in found.slices for own in part.scores.values() for name in own))
    titles = [found.title(name).replace(" per ", "\nper ").replace("_", "\n") for name in names]
    heads = [f"slice\n({found.slices_of})", *titles, *(f"difference\n{found.title(name)}" for name in names), "verdict"]
    return heads, [row for part in found.slices for row in _rows_of_slice(found, part, names)]


def _rows_of_slice(found: Comparison, part: Slice, names: Sequence[str]) -> list[list[str]]:
    judged = {j.arm: j for j in part.judgements}
    blank = [""] * len(names)
    rows = [[f"{part.name} ({part.n:,})", *blank, *blank, "" if part.enough else "too few\nto say"]]
    for arm, scores in part.scores.items():
        j = judged.get(arm)
        differences = {found.metric: j.verdict.difference, **j.others} if j else {}
        told = verdict_cell(j) if j else "baseline" if arm == found.baseline.name and part.enough else ""
        means = [number(scores[name].estimate) if name in scores else "-" for name in names]
        apart = [signed(differences[name]) if name in differences else "" for name in names]
        rows.append([f"{INDENT}{arm}", *means, *apart, told])
    return rows


def verdict_cell(judgement: Judgement) -> str:
    """The word, and how many seeds would decide."""
    more = f"\n~{judgement.seeds_needed:,} seeds" if judgement.seeds_needed else ""
    return judgement.verdict.word + more


def counts(arm: ArmResult) -> str:
    """What did not go well: `1 of 6 missing, 2 diverged`; nothing when all did."""
    missing = sum(not run.scores for run in arm.seeds)
    diverged = sum(run.reason == "diverged" for run in arm.seeds)
    parts = [f"{missing} of {len(arm.seeds)} missing"] if missing else []
    return ", ".join([*parts, *([f"{diverged} diverged"] if diverged else [])])


def short(n: float | None) -> str:
    """Three digits and a unit in powers of 1000: 3552 is 3.55k; - for None and NaN."""
    if n is None or math.isnan(n):
        return "-"
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(n) < 999.5:
            return f"{n:.3g}{unit}"
        n /= 1000
    return f"{n:.3g}Z"


def signed(estimate: Estimate) -> str:
    """The estimate over its interval, both with signs; of one value the estimate alone."""
    if math.isnan(estimate.estimate):
        return "-"
    return interval(estimate, sign=True, between="\n")


def share(relative: float) -> str:
    """`-1.23%`; - where no seed finished in both arms."""
    return "-" if math.isnan(relative) else f"{number(100 * relative, 2, sign=True)}%"


def _arm_row(found: Comparison, arm: ArmResult, others: Sequence[str]) -> list[str]:
    ended = sum(bool(run.scores) for run in arm.seeds)
    seeds = str(ended) if ended == len(arm.seeds) else f"{ended} of {len(arm.seeds)}"
    diverged = sum(run.reason == "diverged" for run in arm.seeds)
    seeds += f"\n{diverged} diverged" if diverged else ""
    mean = arm.scores.get(found.metric)
    beside = [number(arm.scores[name].estimate) if name in arm.scores else "-" for name in others]
    return [arm.name, "-" if mean is None else plus_minus(mean), *beside, *_costs(found.baseline, arm), seeds]


def _costs(base: ArmResult, arm: ArmResult) -> list[str]:
    if math.isnan(base.n_parameters):
        return ["-" if arm.seconds is None else number(arm.seconds, 1)]
    costs = [
        (short(cost), cost, theirs)
        for cost, theirs in (
            (arm.n_parameters, base.n_parameters),
            (arm.flops_per_token, base.flops_per_token),
            (arm.flops, base.flops),
        )
    ]
    cells = [_dearer(*cost) for cost in costs]
    slower = _ratio(base.tokens_per_second, arm.tokens_per_second)
    cells.append(short(arm.tokens_per_second) + (f"\n{1 / slower:.2f}x" if slower and slower > DEARER else ""))
    memory = "-" if arm.peak_memory is None else f"{short(arm.peak_memory)}B"
    return [*cells, _dearer(memory, arm.peak_memory, base.peak_memory)]


def _ends(estimate: Estimate | None) -> str:
    return "-" if estimate is None or math.isnan(estimate.low) else ends(estimate, sign=True)


def _dearer(text: str, cost: float | None, theirs: float | None) -> str:
    ratio = _ratio(cost, theirs)
    if ratio is None or ratio <= DEARER:
        return text
    return f"{text}\n{ratio:.2f}x" if ratio < 1.95 else f"{text}\n{ratio:.1f}x"


def _ratio(a: float | None, b: float | None) -> float | None:
    ratio = a / b if a is not None and b else None
    return None if ratio is None or math.isnan(ratio) else ratio


def _test(p: float, level: float) -> str:
    return "-" if math.isnan(p) else f"{p_value(p)}\n{'≤' if p <= level else '>'} {level:.2g}"
