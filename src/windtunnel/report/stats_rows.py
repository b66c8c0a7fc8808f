"""Statistics as rows of text, and the sentences that say what they decide."""

from __future__ import annotations

from windtunnel.report.table import interval
from windtunnel.stats.paired import Test
from windtunnel.stats.proportions import AgainstControl

Rows = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
"""Names of the columns, and the rows."""
CORRECTIONS = {"no correction": "p", "Bonferroni": "bonferroni", "Holm": "holm", "Dunnett": "dunnett"}


def difference_rows(found: AgainstControl) -> Rows:
    """Each arm's rate and its difference from the control, with the uncorrected tests."""
    level = f"{100 * (1 - found.alpha):g} %"
    columns = ("arm", f"rate, {level} Wilson", f"minus {found.control}, {level} Newcombe", "z", "p", "Fisher p")
    rows = [(found.control, interval(found.control_rate), "", "", "", "")]
    rows += [
        (v.name, interval(v.rate), interval(v.newcombe), f"{v.z:.4f}", f"{v.p:.5f}", f"{v.fisher_p:.4f}")
        for v in found.variants
    ]
    return columns, tuple(rows)


def correction_rows(found: AgainstControl) -> Rows:
    """Each arm's p under every correction, and the n that its observed difference needs."""
    rows = tuple(
        (
            v.name,
            *(f"{getattr(v, name):.4f}" for name in CORRECTIONS.values()),
            f"{v.n_per_arm:,}" if v.n_per_arm else "-",
        )
        for v in found.variants
    )
    return ("arm", *CORRECTIONS, "n of each for 80 % power"), rows


def chi_square(found: AgainstControl) -> str:
    """The test that all rates are equal."""
    return f"all equal: chi-square({found.chi2_df}) = {found.chi2:.2f}, p = {found.chi2_p:.2g}"


def decided(found: AgainstControl) -> str:
    """In words: which arms differ from the control, and under which correction."""
    said: dict[str, list[str]] = {}
    for correction, name in CORRECTIONS.items():
        sides = [
            f"{v.name} is {'lower' if v.z < 0 else 'higher'}" for v in found.variants if getattr(v, name) < found.alpha
        ]
        said.setdefault(" and ".join(sides) or "nothing is decided", []).append(correction)
    parts = [f"{what} ({', '.join(corrections)})" for what, corrections in said.items()]
    unclear = ", ".join(v.name for v in found.variants if v.p >= found.alpha)
    end = f"; {unclear} cannot be told from {found.control} yet" if unclear else ""
    return f"Against {found.control}, at {100 * found.alpha:g} %: {'; '.join(parts)}{end}."


def shown(test: Test, claim: str, alpha: float) -> str:
    """In words: whether a test shows its claim."""
    verb = "show" if test.p < alpha else "do not show"
    return f"The {test.n} values {verb} that {claim} ({test.method}: p = {test.p:.4g})."
