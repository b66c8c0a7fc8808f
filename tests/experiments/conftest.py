"""Quick outcomes of the experiments, each run once for all tests."""

import pytest

from windtunnel.experiments import EXPERIMENTS
from windtunnel.experiments.frame import Setting, collect


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """The outcome of an experiment by name and seed, and the progress that it showed."""
    ran = {}

    def run(name, seed=0):
        if (name, seed) not in ran:
            shown = []
            setting = Setting(quick=True, seed=seed, out=tmp_path_factory.mktemp("experiment"))
            ran[name, seed] = collect(EXPERIMENTS[name], setting, shown.append), shown
        return ran[name, seed]

    return run


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
