"""The ledger of verdicts with its false discovery rate, and how many seeds a margin takes."""

import json
import math
from pathlib import Path

import pytest
from scipy import stats
from shell_programs import prints
from statsmodels.stats.power import TTestPower

from windtunnel.errors import DataError
from windtunnel.programs.arms import make_plan
from windtunnel.programs.judge import prepare
from windtunnel.programs.ledger import keep_verdicts, read_ledger
from windtunnel.programs.power import needs

BASE = prints("2 + x")


def test_verdicts_are_kept_and_weighed_together(judge):
    path = Path("kept/ledger.jsonl")
    found, _, _ = judge({"base": BASE, "a": prints("1.9 + x + x / 99"), "b": prints("2.5 - x")})
    kept = keep_verdicts(found, path)
    p = [j.verdict.p for j in found.judgements]
    assert list(kept.q.values()) == pytest.approx(list(stats.false_discovery_control(p)))
    more, _, _ = judge({"base": BASE, "c": prints("1.9 + x + x * x / 99")})
    kept = keep_verdicts(more, path)
    assert kept.q["c"] == pytest.approx(stats.false_discovery_control([*p, more.judgements[0].verdict.p])[2])
    assert (kept.n, kept.winners, kept.stand) == (3, 2, 2)
    assert len(path.read_text().splitlines()) == 3
    assert "3 verdicts, 2 named a winner; 2 of these stand" in kept.lines[-1]


def test_an_arm_that_is_judged_again_counts_once(judge):
    path, arms = Path("ledger.jsonl"), {"base": BASE, "a": prints("1.9 + x + x / 99")}
    keep_verdicts(judge(arms)[0], path)
    kept = keep_verdicts(judge(arms, seeds=6)[0], path)
    assert (kept.n, len(read_ledger(path))) == (1, 2)
    assert read_ledger(path)[-1].n == 6


def test_the_p_of_many_looks_is_that_of_all_of_them(judge):
    path, arms = Path("ledger.jsonl"), {"base": BASE, "a": prints("1 + x + x / 99")}
    found, _, _ = judge(arms, until_decided=True, max_seeds=12)
    keep_verdicts(found, path)
    (one,) = read_ledger(path)
    p = found.judgements[0].verdict.p
    assert p < one.p <= 9 * p or p == 0.0


def test_another_file_is_no_ledger_and_is_left_alone(judge):
    found, _, _ = judge({"base": BASE, "a": prints("1.9 + x + x / 99")})
    for text in ("hello\n", '{"a": 1}\n', '{"time": '):
        Path("notes").write_text(text)
        with pytest.raises(DataError, match="notes"):
            keep_verdicts(found, Path("notes"))
        assert Path("notes").read_text() == text


def test_what_a_margin_takes(judge, tmp_path):
    rows = [2.5, 2.0, 2.25], [2.5, 2.25, 2.375]  # differences 0, .25, .125: they spread by .125
    for name, own in zip("ab", rows, strict=True):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"seed": i, "loss": v}) + "\n" for i, v in enumerate(own)))
    plan = {"results": {"A": "a.jsonl", "B": "b.jsonl"}, "metrics": [{"where": "loss"}], "margin_in_units": 0.1}
    judged = prepare(make_plan(plan), tmp_path)
    (need,) = needs(judged.plan, judged.measured())
    assert (need.pilot, need.sd, need.margin, need.hours) == (3, 0.125, 0.1, None)
    assert need.seeds == math.ceil(TTestPower().solve_power(0.1 / 0.125, alpha=0.05, power=0.8))
    low, high = (math.sqrt(2 * 0.125**2 / stats.chi2.ppf(q, 2)) for q in (0.975, 0.025))
    assert (need.low, need.high) == pytest.approx((low, high))
    assert need.least <= need.seeds <= need.most
    assert need.most == math.ceil(TTestPower().solve_power(0.1 / high, alpha=0.05, power=0.8))
    assert "15 seeds find a difference of the margin, 0.1000, at 80% power" in need.sentence


def test_hours_are_of_all_arms(judge, tmp_path):
    judge({"base": BASE, "a": prints("2 + x * x")}, seeds=2)
    plan = make_plan(
        {"arms": {"base": BASE, "a": prints("2 + x * x")}, "seeds": 2, "metrics": [{"where": "loss ([0-9.]+)"}],
         "margin": 0.05}
    )  # fmt: skip
    judged = prepare(plan, tmp_path / "runs")
    measured = judged.measured()
    (need,) = needs(plan, measured)
    took = [sorted(one.seconds for one in arm.runs) for arm in measured]
    assert need.hours == pytest.approx(need.seeds * sum(sum(own) / 2 for own in took) / 3600)
