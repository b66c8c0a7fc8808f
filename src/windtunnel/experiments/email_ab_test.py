"""000-Q2: which of five e-mail templates is better than A, under which correction, and what peeking does to 95 %."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from windtunnel.experiments.frame import Claim, Outcome, Progress, Setting, Table, exactly, signature, within
from windtunnel.report.charts import DEV, QUIET, TRAIN, drawing
from windtunnel.report.stats_figures import variants_figure
from windtunnel.report.stats_rows import chi_square, correction_rows, difference_rows
from windtunnel.report.table import interval
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import AgainstControl, against_control, wilson
from windtunnel.stats.sequential import always_valid_p, nominal_level

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Shares = Mapping[str, list[Estimate]]

COUNTS = {"A": (100, 1000), "B": (70, 1000), "C": (85, 1000), "D": (120, 1000), "E": (140, 1000)}
ALPHA = 0.05
MAILS = 100  # of each template between two looks
RATE = 0.10  # of both templates in the A/A test
LOOKS = (1, 2, 5, 10, 20, 50, 100)
ARMITAGE = (0.050, 0.083, 0.142, 0.193, 0.248, 0.320, 0.374)
"""Chance of p < .05 at any of so many looks at normal data: Armitage, McPherson & Rowe 1969, table 2."""
RULES = PEEKING, PLANNED, VALID = "until p < .05", "level for planned looks", "always-valid p"
EFFECT_SD = 0.5  # of always_valid_p: a difference of 2 points, in deviations of a batch's difference


def email_ab_test(setting: Setting) -> Generator[Progress, None, Outcome]:
    """Which of five e-mail templates differ from A at 95 %?"""
    n_tests, looks = (1000, LOOKS[:4]) if setting.quick else (10_000, LOOKS)
    yield Progress("the templates", 0, 1)
    found = against_control(COUNTS, "A", ALPHA)
    p, differences = a_a_tests(n_tests, looks[-1], np.random.default_rng(setting.seed))
    winners: dict[str, list[int]] = {rule: [] for rule in RULES}
    for i, last in enumerate(looks):
        yield Progress("A/A tests, numbers of looks", i, len(looks))
        level = nominal_level(tuple(MAILS * look for look in range(1, last + 1)), ALPHA)
        smallest = p[:last].min(axis=0)
        winners[PEEKING].append(int((smallest < ALPHA).sum()))
        winners[PLANNED].append(int((smallest < level).sum()))
        winners[VALID].append(sum(always_valid_p(one, EFFECT_SD) < ALPHA for one in differences[:last].T))
    shares = {rule: [wilson(k, n_tests) for k in counted] for rule, counted in winners.items()}
    return Outcome(
        title="Five e-mail templates, and stopping when it looks good",
        what="Each of four templates was tested against A with every usual correction. Then tests of a template "
        f"against itself were simulated, with a look after every {MAILS} mails of each.",
        settings={"counts": COUNTS, "alpha": ALPHA, "A/A tests": n_tests, "looks": looks, "mails between": MAILS},
        tables=(
            Table("Each template against A, uncorrected", *difference_rows(found)),
            Table(f"p under each correction ({chi_square(found)})", *correction_rows(found)),
            peeking_table(looks, shares),
        ),
        figures={"templates": variants_figure(found), "peeking": peeking_figure(looks, shares)},
        claims=(*template_claims(found), *peeking_claims(shares)),
        quick=setting.quick,
        signature=signature(setting, ("numpy", "scipy")),
    )


def a_a_tests(n_tests: int, looks: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Tests of two templates with the same rate: p at each look, and the difference of each batch; (looks, n_tests)."""
    opened = rng.binomial(MAILS, RATE, (2, looks, n_tests))
    a, b = opened.cumsum(axis=1)
    n = MAILS * np.arange(1, looks + 1)[:, None]
    error = np.sqrt((a + b) * (2 * n - a - b) / (2 * n))  # of b - a, pooled
    z = np.divide(b - a, error, out=np.zeros(error.shape), where=error > 0)
    return 2 * ndtr(-np.abs(z)), (opened[1] - opened[0]) / MAILS


def template_claims(found: AgainstControl) -> tuple[Claim, ...]:
    """The statement about B and E under each correction, and the one about C and D."""
    by_name = {variant.name: variant for variant in found.variants}
    b, e = by_name["B"], by_name["E"]

    def both(id: str, how: str, published: str, p_b: float, p_e: float) -> Claim:
        right = p_b < ALPHA and p_e < ALPHA and b.z < 0 < e.z
        said = f"B p = {p_b:.4f}, E p = {p_e:.4f}"
        return Claim(
            id, f"B is worse and E better than A, {how}", published, said, exactly(right), {"B": p_b, "E": p_e}
        )

    open_ = {name: by_name[name] for name in "CD"}
    needed = ", ".join(f"{name} p = {v.p:.4f}, {v.n_per_arm:,} a template" for name, v in open_.items())
    return (
        both("000-Q2", "no correction", "over 95 %", b.p, e.p),
        both("000-Q2", "no correction, Fisher's exact test", "over 95 %", b.fisher_p, e.fisher_p),
        Claim(
            "000-Q2", "C and D need more mails (for 80 % power)", "run longer", needed,
            exactly(all(v.p >= ALPHA and (v.n_per_arm or 0) > 1000 for v in open_.values())),
            {name: {"p": v.p, "n_per_arm": v.n_per_arm} for name, v in open_.items()},
        ),
        both("E2", "Bonferroni for 4 comparisons", "over 95 %", b.bonferroni, e.bonferroni),
        both("E2", "Holm for 4 comparisons", "over 95 %", b.holm, e.holm),
        both("E2", "Dunnett for 4 comparisons", "over 95 %", b.dunnett, e.dunnett),
    )  # fmt: skip


def peeking_claims(shares: Shares) -> tuple[Claim, ...]:
    """False winners of an A/A test among all looks that were simulated."""

    def claim(rule: str, statement: str, published: str, most: float) -> Claim:
        share = shares[rule][-1]
        return Claim("E2", statement, published, f"false winners {share}", within(share, 0, most), {"share": share})

    return (
        claim(PEEKING, "run until p < .05: wrong in at most 5 % (verdict at 6 %)", "95 %", 0.06),
        claim(PLANNED, "as often, at the level for planned looks: at most 5 % (verdict at 6 %)", "", 0.06),
        claim(VALID, "as often, with an always-valid p: at most 5 %", "", ALPHA),
    )


def peeking_table(looks: tuple[int, ...], shares: Shares) -> Table:
    rows = tuple(
        (f"{look}", f"{ARMITAGE[i]:.3f}", *(interval(shares[rule][i]) for rule in RULES))
        for i, look in enumerate(looks)
    )
    return Table("Share of A/A tests with a false winner", ("looks", "published 1969", *RULES), rows)


def peeking_figure(looks: tuple[int, ...], shares: Shares) -> Figure:
    """False winners against the number of looks: each rule with its interval, and the published values."""
    with drawing(7.0, 4.2) as figure:
        axes = figure.subplots()
        for rule, colour, marker in zip(RULES, (DEV, TRAIN, "#009e73"), "os^", strict=True):
            share = np.array([(s.estimate, s.estimate - s.low, s.high - s.estimate) for s in shares[rule]])
            axes.errorbar(looks, share[:, 0], share[:, 1:].T, color=colour, marker=marker, capsize=3, label=rule)
        axes.plot(looks, ARMITAGE[: len(looks)], "x", color="#000000", label="Armitage et al. 1969", zorder=3)
        axes.axhline(ALPHA, color=QUIET, linestyle="--", linewidth=1)
        axes.annotate("5 %", (1, ALPHA), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=QUIET)
        axes.set(xscale="log", ylim=0, xlabel=f"looks, one after every {MAILS} mails of each")
        axes.set_xticks(looks, [str(look) for look in looks])
        axes.minorticks_off()
        axes.set_ylabel("share of A/A tests with a winner")
        axes.legend(loc="upper left")
    return figure
