"""A run that translates, by slice: tables, lines and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.inspect.answers import FEWEST, Score
from windtunnel.inspect.slices import MADE, STRESS, Sliced, Wrong
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.report.table import Table, table, text
from windtunnel.stats.digits import number, p_is
from windtunnel.stats.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAR = 0.05
"""A p below it shows that the worst slice is worse than the rest."""


def slice_tables(found: Sliced) -> list[Table]:
    """Scores of all sources beside the baselines, then those of each slice."""
    every = [(score, "") for score in (*found.scores, *found.baselines)]
    parts = [(score, "" if score.enough else "too few\nto say") for score in found.slices]
    few = "" if all(score.enough for score in found.slices) else f"; too few: fewer than {FEWEST} sources"
    return [_scores(_what(found), every, found.token), _scores(f"by slice{few}", parts, found.token)]


def slice_lines(found: Sliced) -> list[str]:
    """The worst slice, the library's scores with their signatures, the free test and the wrong ones."""
    library = [f"{score.text}   signature {score.signature}" for score in found.library]
    return [*_worst_lines(found), *library, *found.remarks, free_test_line(found), *_wrong_lines(found)]


def free_test_line(found: Sliced) -> str:
    """Whether greedy decoding writes what the loss's own pass counts as right."""
    test = found.free_test
    if test.differ == 0:
        return f"free test: teacher-forced and greedy exact match agree on all {test.n:,} pairs ({test.greedy:,} right)"
    return (
        f"FREE TEST: teacher-forced and greedy exact match differ on {test.differ:,} of {test.n:,} pairs "
        f"({test.teacher_forced:,} and {test.greedy:,} right); expected none, unless the tokenizer writes one text in "
        "several ways"
    )


def slices_figure(found: Sequence[Sliced]) -> Figure:
    """Exact match of each slice with its interval, those of too few sources grey; a panel for each set of sources."""
    most = max(len(one.slices) for one in found)
    with drawing(4.8 * len(found) + 1, 1.6 + 0.38 * most) as figure:
        for axes, one in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
            for row, score in enumerate(one.slices):
                rate, worst = score.exact, one.worst is not None and score.name == one.worst.name
                axes.errorbar(rate.estimate, row, xerr=[[rate.estimate - rate.low], [rate.high - rate.estimate]],
                              fmt="s" if worst else "o", capsize=4,
                              color=DEV if worst else TRAIN if score.enough else QUIET)  # fmt: skip
            axes.axvline(one.scores[0].exact.estimate, color=QUIET, linestyle="--", linewidth=1)
            axes.set_yticks(range(len(one.slices)), [f"{score.name} ({score.n:,})" for score in one.slices])
            axes.set(ylim=(len(one.slices) - 0.5, -0.5), xlabel="exact match, 95 % Wilson interval")
            worst_is = "square: the worst; " if one.worst else ""
            axes.set_title(f"{one.split}: dashed: all; {worst_is}grey: too few", loc="left", fontsize=9)
    return figure


def _what(found: Sliced) -> str:
    if found.split == STRESS:
        return f"stress: {found.scores[0].n:,} made-up words, up to {MADE} for each slice, none in the corpus"
    pairs = "" if found.n_pairs == found.scores[0].n else f" of {found.n_pairs:,} pairs"
    return f"{found.run}, step {found.step}: {found.scores[0].n:,} sources{pairs} of the {found.split} split, greedy"


def _scores(title: str, rows: Sequence[tuple[Score, str]], token: str) -> Table:
    in_tokens = [f"edits\nper {token}"] if token else []
    columns = ["", "n", "exact match", "edits\nper character", *in_tokens, "loss (nats\nper token)"]
    remarked = any(remark for _, remark in rows)
    return table(title, [*columns, *([""] if remarked else [])], [
        [score.name, score.n, _below(score.exact), _below(score.edits),
         *([_below(score.tokens)] if token else []), score.loss,
         *([remark] if remarked else [])] for score, remark in rows])  # fmt: skip


def _below(found: Estimate | None) -> str:
    """An estimate over its interval, which a narrow terminal would break."""
    return text(found).replace(" [", "\n[")


def _worst_lines(found: Sliced) -> list[str]:
    if found.worst is None:
        return []
    score = next(score for score in found.slices if score.name == found.worst.name)
    judged = f"{p_is(found.worst.p)}, Fisher's against all other sources, times the slices compared"
    shown = "worse than the others" if found.worst.p < CLEAR else "not shown to be worse than the others"
    return [f"worst slice: {score.name}, exact match {number(score.exact.estimate)}, {shown} ({judged})"]


def _wrong_lines(found: Sliced) -> list[str]:
    if not found.n_wrong:
        return ["no source is wrong"]
    heading = f"wrong: {found.n_wrong:,} of {found.scores[0].n:,}"
    shown = f", the first {len(found.wrong)}" if 0 < len(found.wrong) < found.n_wrong else ""
    return [f"{heading}{shown}", *map(_wrong_line, found.wrong)]


def _wrong_line(one: Wrong) -> str:
    unfinished = "" if one.complete else " (no end before the context was full)"
    return f"  {one.source}   written {one.written!r}{unfinished}   expected {' or '.join(map(repr, one.expected))}"
