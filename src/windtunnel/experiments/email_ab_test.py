"""000-Q2: which of five e-mail templates is better than A, under which correction, and what peeking does to 95 %."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtr

from windtunnel.experiments.frame import Claim, Drawing, Findings, Given, Progress, Row, Setting, draw, table
from windtunnel.report.charts import lines
from windtunnel.report.stats_figures import variants_figure
from windtunnel.report.stats_rows import chi_square, correction_rows, difference_rows
from windtunnel.stats.intervals import Estimate
from windtunnel.stats.proportions import AgainstControl, against_control, wilson
from windtunnel.stats.sequential import always_valid_p, nominal_level

Q2, E2 = Row("000-Q2"), Row("E2")
Shares = Mapping[str, list[Estimate]]

COUNTS = {"A": (100, 1000), "B": (70, 1000), "C": (85, 1000), "D": (120, 1000), "E": (140, 1000)}
ALPHA = 0.05
MAILS = 100  # of each template between two looks
RATE = 0.10  # of both templates in the A/A test
LOOKS = (1, 2, 5, 10, 20, 50, 100)
ARMITAGE = (0.050, 0.083, 0.142, 0.193, 0.248, 0.320, 0.374)
"""Chance of p < .05 at any of this number of looks at normal data: Armitage, McPherson & Rowe 1969, table 2."""
RULES = PEEKING, PLANNED, VALID = "until p < .05", "level for planned looks", "always-valid p"
EFFECT_SD = 0.5  # of always_valid_p: a difference of 2 points, in deviations of a batch's difference


def email_ab_test(at: Setting) -> Findings:
    """Five e-mail templates, and stopping when it looks good.

    Each of four templates was tested against A with every usual correction. Then tests of a template against itself
    were simulated, with a look after every 100 mails of each.
    """
    n_tests, looks = at.size((10_000, LOOKS), quick=(1000, LOOKS[:4]))
    yield Given({"counts": COUNTS, "alpha": ALPHA, "A/A tests": n_tests, "looks": looks, "mails between": MAILS})
    yield Progress("the templates")
    found = against_control(COUNTS, "A", ALPHA)
    yield from templates(found)
    yield table("Each template against A, uncorrected", *difference_rows(found))
    yield table(f"p under each correction ({chi_square(found)})", *correction_rows(found))
    yield Drawing("templates", variants_figure(found))
    p, differences = a_a_tests(n_tests, looks[-1], np.random.default_rng(at.seed))
    winners: dict[str, list[int]] = {rule: [] for rule in RULES}
    for i, last in enumerate(looks):
        yield Progress("A/A tests, numbers of looks", i, len(looks))
        level = nominal_level(tuple(MAILS * look for look in range(1, last + 1)), ALPHA)
        smallest = p[:last].min(axis=0)
        winners[PEEKING].append(int((smallest < ALPHA).sum()))
        winners[PLANNED].append(int((smallest < level).sum()))
        winners[VALID].append(sum(always_valid_p(one, EFFECT_SD) < ALPHA for one in differences[:last].T))
    yield from peeking(looks, {rule: [wilson(k, n_tests) for k in counted] for rule, counted in winners.items()})


def a_a_tests(n_tests: int, looks: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tests of two templates with the same rate: p at each look, and the difference of each batch; (looks, n_tests)."""
    opened = rng.binomial(MAILS, RATE, (2, looks, n_tests))
    a, b = opened.cumsum(axis=1)
    n = MAILS * np.arange(1, looks + 1)[:, None]
    error = np.sqrt((a + b) * (2 * n - a - b) / (2 * n))  # of b - a, pooled
    z = np.divide(b - a, error, out=np.zeros(error.shape), where=error > 0)
    return 2 * ndtr(-np.abs(z)), (opened[1] - opened[0]) / MAILS


def templates(found: AgainstControl) -> Findings:
    """The statement about B and E under each correction, and the one about C and D."""
    by_name = {variant.name: variant for variant in found.variants}
    b, e = by_name["B"], by_name["E"]

    def both(row: Row, how: str, p: str) -> Claim:
        p_b, p_e = getattr(b, p), getattr(e, p)
        right, shown = p_b < ALPHA and p_e < ALPHA and b.z < 0 < e.z, f"B p = {p_b:.4f}, E p = {p_e:.4f}"
        return row.shows(f"B is worse and E better than A, {how}", right, shown, "over 95 %", B=p_b, E=p_e)

    yield both(Q2, "no correction", "p")
    yield both(Q2, "no correction, Fisher's exact test", "fisher_p")
    more = {name: by_name[name] for name in "CD"}
    shown = ", ".join(f"{name} p = {v.p:.4f}, {v.n_per_arm:,} a template" for name, v in more.items())
    holds = all(v.p >= ALPHA and (v.n_per_arm or 0) > 1000 for v in more.values())
    needed = {name: v.n_per_arm for name, v in more.items()}
    yield Q2.shows("C and D need more mails (for 80 % power)", holds, shown, "run longer", n_per_arm=needed)
    for name in ("Bonferroni", "Holm", "Dunnett"):
        yield both(E2, f"{name} for 4 comparisons", name.lower())


def peeking(looks: Sequence[int], shares: Shares) -> Findings:
    """False winners of an A/A test among all looks that were simulated: each rule, and the published values."""
    last, shown = {rule: own[-1] for rule, own in shares.items()}, "false winners {}"
    yield E2.within("run until p < .05: wrong in at most 5 % (verdict at 6 %)", last[PEEKING], 0, 0.06, "95 %", shown)
    statement = "as often, at the level for planned looks: at most 5 % (verdict at 6 %)"
    yield E2.within(statement, last[PLANNED], 0, 0.06, shown=shown)
    yield E2.within("as often, with an always-valid p: at most 5 %", last[VALID], 0, ALPHA, shown=shown)
    published = ARMITAGE[: len(looks)]
    rows = ((f"{n}", f"{once:.3f}", *own) for n, once, *own in zip(looks, published, *shares.values(), strict=True))
    yield table("Share of A/A tests with a false winner", ("looks", "published 1969", *shares), rows)
    curves = {**{rule: (looks, own) for rule, own in shares.items()}, "Armitage et al. 1969": (looks, published)}
    panel = lines(
        curves, {"5 %": ALPHA}, ticks=looks, log="x", joined=RULES, ylim=0,
        xlabel=f"looks, one after every {MAILS} mails of each", ylabel="share of A/A tests with a winner",
    )  # fmt: skip
    yield draw("peeking", panel)
