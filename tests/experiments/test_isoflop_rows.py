"""The rows of 004-2.3: the published points, and the runs that are made again."""

import json
import math

import numpy as np
import pytest

from windtunnel.errors import DataError
from windtunnel.experiments import EXPERIMENTS
from windtunnel.experiments.frame import Setting, collect
from windtunnel.experiments.isoflop_rates import over_budgets, rule_of
from windtunnel.experiments.isoflop_runs import (
    CORPUS,
    Design,
    Kind,
    cost_of,
    ending,
    fresh_words,
    passing,
    points_at_ends,
    read_off,
)
from windtunnel.experiments.isoflop_translators import difference
from windtunnel.experiments.published_isoflop import (
    LOSSES,
    SIZES,
    SPENT,
    example_flops,
    plain_line,
    published_points,
    read_curves,
    tokens_of,
    width_of,
)
from windtunnel.scaling.curves import Curve
from windtunnel.scaling.points import Points
from windtunnel.text.corpora.pig_latin import N_SMALL, words

# -------------------------------------------------------------------------------------------------- published-isoflop


def test_the_source_s_formulas():
    assert example_flops(128) == pytest.approx(33.56e6, rel=1e-4)
    assert [width_of(n) for n in SIZES.values()] == pytest.approx([*SIZES])
    assert tokens_of(8.6307e12, 268_062) == pytest.approx(5.027e6, rel=1e-3)


def test_points_on_a_known_law_give_it_back():
    """Loss = (ln N - ln N*)^2 with N* = 50,000 (C / 3.2e11)^.5 at every budget."""
    published = published_points()
    best = 50_000 * np.sqrt(published.nominal / 3.2e11)
    loss = 1 + np.log(published.parameters / best) ** 2
    points = Points(published.parameters, published.tokens, published.flops, loss, published.seed,
                    budget=published.budget)  # fmt: skip
    found, exponent, far = plain_line(points)
    assert found == pytest.approx([50_000 * math.sqrt(budget / 3.2e11) for budget in LOSSES])
    assert exponent == pytest.approx(0.5)
    assert far == pytest.approx(50_000 * math.sqrt(1e15 / 3.2e11))


def test_published_isoflop(claims_of):
    found = claims_of("published-isoflop")
    wrong = {statement for (_, statement), claim in found.items() if claim.verdict == "does not hold"}
    assert {part for part in WRONG if not any(part in statement for statement in wrong)} == set()
    assert len(wrong) == len(WRONG)
    assert {claim.verdict for claim in found.values()} == {"holds", "does not hold"}
    inside = found.one("004-2.3.p", "is inside the band").values["estimate"]
    assert inside.low < 1.94e6 < 3.7e6 < inside.high
    left_out = found.one("004-2.3.p", "one model left out").values["far"]
    assert [*left_out] == [16, 32, 48, 64]
    assert (min(left_out.values()), max(left_out.values())) == pytest.approx((1.08e6, 2.71e6), rel=0.01)
    assert found.one("004-2.3.p", "whichever model").values["lost"] == [96, 128]
    assert found.one("E31", "6.6 million").values["flops"] == pytest.approx(11.3e12, rel=0.005)


WRONG = (
    "larger is always better", "6.6 million tokens cost", "by the plain line, is 3.7 million",
    "best size is determined", "the parametric law fits", "within a factor of two either way",
    "is not compute-optimal", "stays within a factor of two", "whichever model is left out",
)  # fmt: skip


@pytest.fixture
def curves_file(tmp_path):
    """Curves 3 - .1 log(FLOPs / 1e9) a width, straight in log FLOPs."""
    data = {}
    for h, n in SIZES.items():
        flops = np.linspace(SPENT[h] / 100, SPENT[h], 100)
        data[h] = {"N": n, "flops": flops.tolist(), "val": (3 - 0.1 * np.log(flops / 1e9)).tolist()}
    path = tmp_path / "curves.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_curves_of_a_file_are_read_in_three_ways(curves_file, tmp_path):
    curve = read_curves(curves_file)[0]
    assert (curve.parameters, len(curve.loss), curve.epochs_at_end) == (4862, 100, 100)
    assert curve.tokens[-1] == pytest.approx(0.2216e12 / example_flops(16) * 19.55)
    outcome = collect(EXPERIMENTS["published-isoflop"], Setting(True, 0, tmp_path, str(curves_file)))
    [claim] = [claim for claim in outcome.claims if "given curves" in claim.statement]
    assert claim.verdict == "does not hold"  # they are other ones
    rows = {row[0]: row[3] for table in outcome.tables for row in table.rows if "read otherwise" in table.title}
    assert list(rows)[:4] == ["the points", "curves, polynomial of degree 5 in FLOPs", "curves, interpolated",
                              "curves, cubic in log FLOPs"]  # fmt: skip
    assert "curves" in outcome.figures


@pytest.mark.parametrize(
    ("text", "said"),
    [("no json", "cannot be read as curves: it is no JSON"), ("[1]", "holds no curves"), ('{"16": {}}', "no curves"),
     ('{"16": {"N": 1, "flops": [1, 2], "val": [NaN, 2]}}', "no curves"),
     ('{"16": {"N": 1, "flops": [2, 1], "val": [1, 2]}}', "FLOPs that rise"),
     ('{"16": {"N": "x", "flops": [1, 2], "val": [1, 2]}}', "no curves")],
)  # fmt: skip
def test_a_file_that_holds_no_curves(tmp_path, text, said):
    (tmp_path / "given.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_curves(tmp_path / "given.json")


def test_a_file_of_curves_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_curves(tmp_path / "none.json")


# ------------------------------------------------------------------------------------------------- isoflop-translators


def test_the_rule_of_the_rate():
    alike = rule_of({16: 4e-3, 48: 6e-3, 96: 4e-3})
    assert [alike(h) for h in (16, 48, 128)] == pytest.approx([96e-9 ** (1 / 3)] * 3)
    falls = rule_of({h: 0.16 / h for h in (16, 48, 96)})
    assert [falls(h) for h in (16, 64, 96)] == pytest.approx([0.16 / h for h in (16, 64, 96)])
    assert [falls(h) for h in (4, 128)] == pytest.approx([0.16 / 16, 0.16 / 96])  # no further than was swept
    rates = over_budgets(falls, 1e9, 1e11, 0.25)
    assert [rates(16, budget) for budget in (1e9, 1e10, 1e11)] == [1e-2, 5e-3, 2.5e-3]
    assert rates(24, 1e9) == 6.7e-3  # two digits


def test_fresh_words_are_new_and_alike():
    made = list(fresh_words(20_000))
    assert made == list(fresh_words(20_000))
    assert len(set(made)) == len(made)
    assert not set(made) & set(words())
    real = list(words(N_SMALL))
    assert np.mean([*map(len, made)]) == pytest.approx(np.mean([*map(len, real)]), abs=1)
    assert {letter for word in made for letter in word} == {letter for word in real for letter in word}


@pytest.fixture
def full(tmp_path):
    at = Setting(False, 0, tmp_path)
    return Design(at, {4e10: (16, 32)}, {h: cost_of(at, CORPUS, h) for h in (16, 32)})


def test_runs_end_at_their_budget_or_pass_it(full):
    kind, kept = Kind(CORPUS, 16, lambda *_: 1e-3), Kind(CORPUS, 16, lambda *_: 1e-3, decays=False)
    assert [cost.parameters for cost in full.costs.values()] == [4845, 17_853]  # 29 tokens, the source has 30
    for place in full.places:
        cost = full.costs[place[0]]
        own, long = ending(full.at, place, cost, kind).config, passing(full.at, place, cost, kept, source=True).config
        a_step = 16 * cost.flops
        assert own.train.steps * a_step <= 4e10 < (own.train.steps + 1) * a_step
        assert (long.train.steps - 1) * a_step < 4e10 <= long.train.steps * a_step
        assert (own.train.eval_every, long.train.eval_every) == (own.train.steps, long.train.steps // 20)
        epochs = long.train.steps * 16 / 2572
        assert long.schedule.final_fraction == pytest.approx(0.99**epochs)
        assert (long.optimizer.beta_2, long.optimizer.weight_decay) == (0.999, 0)


def test_points_of_runs(full):
    """What is read off at a budget is the curve there, of the widths that the budget has; an end is the last loss."""
    flops = np.linspace(1e9, 8e10, 20)
    curves = {h: [Curve(full.costs[h].parameters, flops, flops / 1e5, 3 - flops / 8e10 * h / 32, seed, None, 2.0)
                  for seed in (0, 1)] for h in (16, 32)}  # fmt: skip
    read = read_off(full, curves)
    assert read.parameters.tolist() == [4845, 4845, 17_853, 17_853]
    assert read.loss.tolist() == pytest.approx([2.75, 2.75, 2.5, 2.5])
    assert read.epochs.tolist() == pytest.approx([1] * 4)
    ends = points_at_ends({((h, 4e10), seed): curves[h][seed] for h in curves for seed in (0, 1)})
    assert ends.loss.tolist() == pytest.approx([2.5, 2.5, 2, 2])
    assert set(ends.nominal) == {4e10}
    gap = difference((ends, 4845), (ends, 17_853), 4e10)
    assert (gap.estimate, gap.n) == (pytest.approx(-0.5), 2)
    few = Design(full.at, {4e10: (32,)}, full.costs)
    assert set(read_off(few, curves).parameters) == {17_853}


def test_isoflop_translators(quick, claims_of):
    found = claims_of("isoflop-translators")
    best = found.one("004-2.3.2", "one learning rate").values["best"]
    assert best == {8: 4e-3, 16: 4e-3}  # of two rates the larger
    assert found.one("004-2.3.2", "h 8: the source's rate").verdict in ("does not hold", "undecided")
    rate = found.one("004-2.3.2", "the rule's rate and batch: a lower loss at 4e+08 FLOPs, h 8").values["estimate"]
    assert rate.estimate < -0.1  # 5e-4 is far too low for so few steps
    repeated, fresh = found.one("E32", "the runs repeat").values["times"]
    assert repeated > fresh > 0
    outcome, _ = quick("isoflop-translators")
    titles = {table.title: table for table in outcome.tables}
    line = titles["The line, and what it says of 1e15 FLOPs"]
    assert [row[0] for row in line.rows] == [
        "the source's rate, read off", "the rule's rate, read off", "ending at the budget",
        "the source's rate, read off, interpolated", "the rule's rate, read off, interpolated",
    ]  # fmt: skip
    budgets = [float(row[1]) for row in titles["The best size of a budget, 95 %"].rows]
    assert budgets == [1e8, 2e8, 4e8] * 3
    assert list(outcome.figures) == ["isoflop-fresh", "curves", *(f"{what}-{how}" for how in ("source", "long", "own")
                                     for what in ("isoflop", "optimum"))]  # fmt: skip
