"""Statistics as rows of text, and the sentences that say what they decide."""

from __future__ import annotations

import math

from windtunnel.stats.digits import interval, number, p_is, p_value
from windtunnel.stats.paired import Test
from windtunnel.stats.proportions import AgainstControl, Variant

Rows = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
"""Names of the columns, and the rows."""
CORRECTIONS = {"no correction": "p", "Bonferroni": "bonferroni", "Holm": "holm", "Dunnett": "dunnett"}


def difference_rows(found: AgainstControl) -> Rows:
    """Each arm's rate and its difference from the control, with the uncorrected tests."""
    level = f"{100 * (1 - found.alpha):g} %"
    columns = ("arm", f"rate, {level} Wilson", f"minus {found.control}, {level} Newcombe", "z", "p", "Fisher p")
    rows = [(found.control, interval(found.control_rate), "", "", "", "")]
    rows += [
        (v.name, interval(v.rate), interval(v.newcombe), number(v.z), p_value(v.p, ".5f"), p_value(v.fisher_p, ".4f"))
        for v in found.variants
    ]
    return columns, tuple(rows)


def correction_rows(found: AgainstControl) -> Rows:
    """Each arm's p under every correction, and the n that its observed difference needs."""
    rows = tuple(
        (
            v.name,
            *(p_value(getattr(v, name), ".4f") for name in CORRECTIONS.values()),
            f"{v.n_per_arm:,}" if v.n_per_arm else "-",
        )
        for v in found.variants
    )
    return ("arm", *CORRECTIONS, "n of each for 80 % power"), rows


def chi_square(found: AgainstControl) -> str:
    """The test that all rates are equal."""
    return f"all equal: chi-square({found.chi2_df}) = {number(found.chi2, 2)}, {p_is(found.chi2_p)}"


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
    few = ", ".join(f"{v.name}: {p_is(v.fisher_p)}" for v in found.variants if _rests_on_few(found, v))
    few = f" Counts too small for a z test; Fisher's exact test does not decide ({few})." if few else ""
    return f"Against {found.control}, at {100 * found.alpha:g} %: {'; '.join(parts)}{end}.{few}"


def _rests_on_few(found: AgainstControl, v: Variant) -> bool:
    """Whether z decides and Fisher's test does not, where a count of fewer than 5 is expected (Cochran 1954)."""
    rates = found.control_rate, v.rate
    pooled = sum(rate.estimate * rate.n for rate in rates) / sum(rate.n for rate in rates)
    expected = min(rate.n for rate in rates) * min(pooled, 1 - pooled)
    return v.p < found.alpha <= v.fisher_p and expected < 5


def shown(test: Test, claim: str, alpha: float) -> str:
    """In words: whether a test shows its claim."""
    verb = "show" if test.p < alpha else "do not show"
    equal = " They have no spread, which rounding alone can make." if math.isinf(test.statistic) else ""
    return f"The {test.n} values {verb} that {claim} ({test.method}: {p_is(test.p, '.4g')}).{equal}"
