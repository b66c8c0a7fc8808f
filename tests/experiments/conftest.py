"""Quick outcomes of the experiments, each run once for all tests."""

import pytest

from windtunnel.experiments import EXPERIMENTS, gpt2_report
from windtunnel.experiments.frame import Setting, collect
from windtunnel.report.outcome_page import save_outcome


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """The outcome of an experiment by name and seed, and the progress that it showed."""
    ran, base = {}, tmp_path_factory.mktemp("experiments")

    def run(name, seed=0):
        if (name, seed) not in ran:
            for part in gpt2_report.PARTS if name == "gpt2-report" else ():
                save_outcome(run(part)[0], base / f"{part}-quick")
            shown = []
            setting = Setting(quick=True, seed=seed, out=base / f"{name}-of-seed-{seed}")
            setting.out.mkdir()
            ran[name, seed] = collect(EXPERIMENTS[name], setting, shown.append), shown
        return ran[name, seed]

    return run


@pytest.fixture
def outcome_of(quick):
    """The outcome of an experiment."""
    return lambda name, seed=0: quick(name, seed)[0]


class Claims(dict):
    """The claims of an experiment, by row and statement."""

    def one(self, id, part):
        """The only claim of this row whose statement has this part."""
        [claim] = [claim for (row, statement), claim in self.items() if row == id and part in statement]
        return claim


@pytest.fixture
def claims_of(outcome_of):
    """The claims of an experiment, by row and statement."""
    return lambda name: Claims({(claim.id, claim.statement): claim for claim in outcome_of(name).claims})


@pytest.fixture
def drained():
    """What a part of an experiment found, and what it returned."""

    def run(steps):
        found = []
        while True:
            try:
                found.append(next(steps))
            except StopIteration as end:
                return found, end.value

    return run
