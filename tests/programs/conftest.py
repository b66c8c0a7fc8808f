"""Real programs for the tests of `windtunnel.programs`, and a way to judge them without the command line."""

from __future__ import annotations

import pytest

from windtunnel.programs.arms import make_plan
from windtunnel.programs.judge import conclude, exit_code, prepare, run_arms
from windtunnel.runs.execute import open_executor


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """judge(arms, **settings) -> (comparison, exit status, what each run said as it ended)."""
    monkeypatch.chdir(tmp_path)

    def run(arms=None, executor="local", again=False, **settings):
        settings = {"metrics": [{"where": "loss ([0-9.]+)"}], "seeds": 4, "arms": arms or {}, **settings}
        plan = make_plan(settings)
        judged = prepare(plan, tmp_path / "runs")
        with open_executor(executor, plan.jobs) as workers:
            said = list(run_arms(judged, workers, again=again))
        measured = judged.measured()
        found = conclude(judged, measured)
        return found, exit_code(found, judged, measured), said

    return run
