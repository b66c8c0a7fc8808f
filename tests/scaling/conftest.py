"""What the tests of studies share: a corpus of words, a design that is tiny, and an executor without processes."""

import itertools
import random
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

from windtunnel.models import TransformerConfig
from windtunnel.runs.measure import measure
from windtunnel.scaling.study import open_base
from windtunnel.text.store import TextConfig
from windtunnel.training.events import Stopped
from windtunnel.training.loop import resume
from windtunnel.training.optimizer import OptimizerConfig
from windtunnel.training.run_config import RunConfig, TrainConfig
from windtunnel.training.schedule import ScheduleConfig


class Here(Executor):
    """Trains in this very process, so that a run takes milliseconds and not the start of a process."""

    def __init__(self, at_most=-1):
        self.trained, self.at_most = [], at_most  # -1: never

    def submit(self, train_runs, folders, patience, wanted, change):
        future = Future()
        future.set_result([self._train(Path(folder)) for folder in folders])
        return future

    def _train(self, folder):
        if len(self.trained) == self.at_most:
            return Stopped(0, "interrupted", "not begun")
        self.trained.append(folder)
        ended = list(resume(folder))[-1]
        measure(folder)
        return ended


@pytest.fixture(scope="session")
def here():
    """The class of the executor; `at_most` is after how many runs it stops."""
    return Here


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """A file of 300,000 letters of an alphabet of 6, each drawn by the two before it."""
    draw, letters = random.Random(0), "abcdef"
    likely = {pair: draw.choices(letters, k=2) for pair in itertools.product(letters, repeat=2)}
    text = ["a", "b"]
    while len(text) < 300_000:
        text.append(draw.choice([*likely[text[-2], text[-1]], *likely[text[-2], text[-1]], draw.choice(letters)]))
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("".join(text))
    return path


@pytest.fixture(scope="session")
def config(words):
    """A run config whose sizes are tiny."""
    return RunConfig(
        corpus=str(words),
        text=TextConfig(unit="text"),
        model=TransformerConfig(
            context_length=8, n_layers=1, n_heads=2, d_model=16, position="rope", dropout=0.0, bias=False
        ),
        optimizer=OptimizerConfig(lr=3e-3),
        schedule=ScheduleConfig(warmup=100),
        train=TrainConfig(steps=100, batch_size=8, threads=1, precision="fp32"),
    )


@pytest.fixture(scope="session")
def base(config):
    """The config, resolved."""
    return open_base(config)
