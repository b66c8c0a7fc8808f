"""Verdicts against numbers worked out by hand, and their error rates by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from windtunnel.comparison.verdict import FEWEST_SEEDS, Rule, judge, seeds_to_decide
from windtunnel.stats.power import power_paired

LOOKS = tuple(range(4, 17))


def words(differences, rule):
    return {v.arm: v.word for v in judge(differences, rule)}


def test_each_word():
    arms = {
        "lower": [-0.10, -0.12, -0.09, -0.11],
        "higher": [0.10, 0.12, 0.09, 0.11],
        "equal": [0.001, -0.001, 0.002, 0.0],
        "noisy": [0.05, -0.06, 0.03, -0.01],
    }
    assert words(arms, Rule(0.01)) == {
        "lower": "better",
        "higher": "worse",
        "equal": "no difference that matters",
        "noisy": "undecided",
    }


def test_a_real_but_tiny_difference_does_not_matter():
    tiny = {"a": [-0.0010, -0.0011, -0.0009, -0.0010]}
    (verdict,) = judge(tiny, Rule(0.01))
    assert verdict.p < 0.001
    assert verdict.word == "no difference that matters"
    assert words(tiny, Rule(0.0005)) == {"a": "better"}


@pytest.mark.parametrize("n", range(1, FEWEST_SEEDS))
def test_few_seeds_never_decide(n):
    assert words({"a": [-1.0 - 1e-6 * i for i in range(n)]}, Rule(0.01)) == {"a": "undecided"}
    assert words({"a": [1e-9 * i for i in range(n)]}, Rule(0.01)) == {"a": "undecided"}


def test_the_interval_says_what_the_verdict_says():
    rng = np.random.default_rng(1)
    for correction in ("holm", "bonferroni", "none", "dunnett"):
        for _ in range(25):
            arms = {name: rng.normal(effect, 1, 6) for name, effect in (("a", 0), ("b", 1.5), ("c", 2.5))}
            for v in judge(arms, Rule(1e-6, correction=correction)):
                if correction != "dunnett":  # its spread is pooled over the arms, the interval's is the arm's own
                    assert (v.difference.low <= 0 <= v.difference.high) == (v.word == "undecided")


def test_holm_steps_down():
    # p-values .012, .02, .04 (two-sided t, 5 degrees of freedom): Holm's levels are .05/3, .05/2, .05/1.
    arms = {name: _with_p(p) for name, p in (("a", 0.012), ("b", 0.02), ("c", 0.04))}
    found = {v.arm: v for v in judge(arms, Rule(1e-9))}
    assert [found[a].p for a in "abc"] == pytest.approx([0.012, 0.02, 0.04], rel=1e-6)
    assert [found[a].level for a in "abc"] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    assert {v.word for v in found.values()} == {"worse"}
    assert words(arms, Rule(1e-9, correction="bonferroni")) == {"a": "worse", "b": "undecided", "c": "undecided"}
    arms["b"] = _with_p(0.03)  # misses .025, so c is not tested any more
    assert words(arms, Rule(1e-9)) == {"a": "worse", "b": "undecided", "c": "undecided"}


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([INF] * 7, "worse"),  # 2 / 2^7
        ([-INF] * 7, "better"),
        ([INF] * 4, "undecided"),  # 2 / 2^4 = .125
        ([NAN] * 12, "undecided"),  # both diverge always
        ([INF, -INF, *[0.0001, -0.0001] * 5], "undecided"),  # as often, and equal where both finish
        ([INF, *[0.0001, -0.0001] * 5], "undecided"),  # equal where both finish
        ([INF, *[-0.10, -0.12, -0.09, -0.11]], "undecided"),  # lower where it finishes, and diverges more often
        ([-INF, *[0.10, 0.12, 0.09, 0.11]], "undecided"),
        ([INF, *[0.10, 0.12, 0.09, 0.11]], "worse"),
        ([-INF, *[-0.10, -0.12, -0.09, -0.11]], "better"),
    ],
)
def test_an_arm_that_diverges_more_often_is_never_better_and_never_equal(differences, word):
    (verdict,) = judge({"a": differences}, Rule(0.01))
    assert verdict.word == word
    assert verdict.n == len(differences)
    assert verdict.difference.n == sum(map(math.isfinite, differences))
    for correction in ("dunnett", "bonferroni"):
        assert words({"a": differences, "b": [0.3] * len(differences)}, Rule(0.01, correction=correction))["a"] in (
            word,
            "undecided",
        )


def test_without_a_difference_a_winner_is_named_in_at_most_5_percent_when_runs_diverge():
    rng, named, n = np.random.default_rng(8), 0, 3000
    for _ in range(n):
        losses = rng.normal(0, 1, (2, 12))
        losses[rng.random((2, 12)) < 0.3] = INF
        with np.errstate(invalid="ignore"):
            (verdict,) = judge({"a": losses[1] - losses[0]}, Rule(1e-9))
        named += verdict.word != "undecided"
    assert stats.binom.sf(named - 1, n, 0.05) > 0.001


def test_planned_looks_keep_the_error_rate_of_divergence():
    """Under the null one of the two diverges in each seed, by a fair coin: the walks that reach the level at a look."""
    (verdict,) = judge({"a": [INF, -INF] * 8}, Rule(0.01, looks=LOOKS))
    walks, wrong = {0: 1.0}, 0.0
    for n in range(1, 17):
        walks = {k: (walks.get(k, 0) + walks.get(k - 1, 0)) / 2 for k in range(n + 1)}
        if n in LOOKS:
            ended = {k for k in walks if 2 * stats.binom.cdf(min(k, n - k), n, 0.5) <= verdict.level}
            wrong += sum(walks.pop(k) for k in ended)
    assert 0.001 < wrong <= 0.05


def test_how_many_seeds_would_show_that_an_arm_diverges():
    (verdict,) = judge({"a": [INF] * 4}, Rule(0.01))
    assert seeds_to_decide([INF] * 4, verdict, Rule(0.01)) == 6
    assert words({"a": [INF] * 5}, Rule(0.01)) == {"a": "undecided"}
    assert words({"a": [INF] * 6}, Rule(0.01)) == {"a": "worse"}


def test_the_sign_flip_p_stands_beside_the_t():
    (verdict,) = judge({"a": [-0.10, -0.12, -0.09, -0.11]}, Rule(0.01))
    assert (verdict.word, verdict.p_sign_flip) == ("better", 0.125)
    assert verdict.p < 0.001


def _with_p(p, n=6):
    """n differences whose paired t test has exactly this two-sided p."""
    row = np.arange(n) - (n - 1) / 2
    row = row / row.std(ddof=1)
    return row + stats.t.isf(p / 2, n - 1) / math.sqrt(n)


def test_dunnett_is_that_of_the_blocked_design():
    rng = np.random.default_rng(3)
    losses = rng.normal(0, 1, (3, 8)) + rng.normal(0, 5, 8)  # baseline and two arms; seeds as blocks
    losses[1] -= 1.0
    arms = {"a": losses[1] - losses[0], "b": losses[2] - losses[0]}
    found = judge(arms, Rule(1e-6, correction="dunnett"))
    residual = losses - losses.mean(1, keepdims=True) - losses.mean(0) + losses.mean()
    df = 2 * 7
    t = (losses[1:].mean(1) - losses[0].mean()) / math.sqrt(2 * (residual**2).sum() / df / 8)
    draws = np.random.default_rng(0)
    z = draws.normal(size=(400_000, 3))
    s = np.sqrt(draws.chisquare(df, 400_000) / df)
    most = np.abs(z[:, 1:] - z[:, :1]).max(1) / math.sqrt(2) / s
    assert [v.p for v in found] == pytest.approx([np.mean(most >= abs(x)) for x in t], abs=0.004)


def test_later_seeds_do_not_change_what_was_decided():
    rng = np.random.default_rng(0)
    clear = list(rng.normal(-1, 0.1, 4))
    (at_once,) = judge({"a": clear}, Rule(0.01, looks=LOOKS))
    assert (at_once.word, at_once.difference.n) == ("better", 4)
    (later,) = judge({"a": [*clear, *[5.0] * 12]}, Rule(0.01, looks=LOOKS))
    assert later == at_once


def test_seeds_to_decide_have_the_power():
    differences = [0.9, -0.6, 1.4, 0.2, -0.3]
    rule = Rule(0.01)
    (verdict,) = judge({"a": differences}, rule)
    n = seeds_to_decide(differences, verdict, rule)
    effect, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    assert power_paired(effect, sd, n) >= 0.8 > power_paired(effect, sd, n - 1)
    assert seeds_to_decide([0.1], verdict, rule) is None


def winners(n_experiments, n_arms, n_seeds, rule, effect=0.0, seed=0):
    """How often any arm is called better or worse: baseline and arms have losses with the same noise."""
    rng = np.random.default_rng(seed)
    named = 0
    for _ in range(n_experiments):
        losses = rng.normal(0, 1, (n_arms + 1, n_seeds))
        arms = {str(i): row + effect - losses[0] for i, row in enumerate(losses[1:])}
        named += any(v.word in ("better", "worse") for v in judge(arms, rule))
    return named


@pytest.mark.parametrize(
    ("n_arms", "n_seeds", "rule"),
    [
        (1, 4, Rule(1e-9)),
        (3, 6, Rule(1e-9)),
        (3, 6, Rule(1e-9, correction="dunnett")),
        (1, 16, Rule(1e-9, looks=LOOKS)),
        (2, 16, Rule(1e-9, looks=LOOKS)),
    ],
    ids=["one arm", "three arms, Holm", "three arms, Dunnett", "until decided", "until decided, two arms"],
)
def test_without_a_difference_a_winner_is_named_in_at_most_5_percent(n_arms, n_seeds, rule):
    n = 250 if rule.looks else 400  # benchmarks/calibration.py does the same at length
    named = winners(n, n_arms, n_seeds, rule)
    assert stats.binom.sf(named - 1, n, 0.05) > 0.001  # not more than 5 % by more than chance
    assert named > 0.015 * n  # and the test is not one that never fires


def test_at_the_margin_equivalence_is_claimed_in_at_most_5_percent():
    rng = np.random.default_rng(5)
    for rule, n_seeds in ((Rule(1.0), 8), (Rule(1.0, looks=LOOKS), 16)):
        n = 250 if rule.looks else 400
        claimed = sum(
            words({"a": rng.normal(1.0, 0.7, n_seeds)}, rule) == {"a": "no difference that matters"} for _ in range(n)
        )
        assert stats.binom.sf(claimed - 1, n, 0.05) > 0.001
        assert claimed > 0.015 * n


def test_power_is_what_is_predicted():
    effect, n_seeds, n = 1.5, 8, 600  # the spread of a paired difference is sqrt(2)
    named = winners(n, 1, n_seeds, Rule(1e-9), effect=effect, seed=2)
    expected = power_paired(effect, math.sqrt(2), n_seeds)
    assert abs(named / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
