"""One run in the processes that torchrun started: each of them calls these, rank 0 writes the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

from windtunnel.config import flatten
from windtunnel.errors import ConfigError, NumericsError
from windtunnel.generation.write import write_sample
from windtunnel.runs.measure import measure
from windtunnel.runs.seeds import create_seeds, find_seeds
from windtunnel.training import machine
from windtunnel.training.data import open_store
from windtunnel.training.disk import locked
from windtunnel.training.distributed import Ranks, code_sha256
from windtunnel.training.events import Event, Step, Stopped
from windtunnel.training.loop import resume
from windtunnel.training.run import open_run
from windtunnel.training.run_config import RunConfig


def create_distributed(settings: Callable[[], RunConfig], folder: Path | None, ranks: Ranks) -> Path:
    """The run's folder, which rank 0 creates or finds again, once all ranks want the same run.

    Raises:
        ConfigError: on every rank, when settings, corpus or code of one differ from those of rank 0, or when there are
            more ranks than rows.
    """
    with ranks.barrier():
        config = settings()
        ranks.check(config)
    # One after another, because rank 0's tokens are kept and need not be made again.
    with ranks.barrier():
        store = open_store(config) if ranks.rank == 0 else None
    with ranks.barrier():
        store = store or open_store(config)
    _agree(config, store.sha256, ranks)
    with ranks.barrier():
        made = create_seeds(config, [config.seed], folder)[0] if ranks.rank == 0 else Path()
    return Path(ranks.from_first(str(made)))


def find_distributed(name: str, ranks: Ranks) -> Path:
    """The one run of this name, as rank 0 finds it. Raises ConfigError on every rank when there are several."""
    with ranks.barrier():
        found = find_seeds(name) if ranks.rank == 0 else [Path()]
        if len(found) > 1:
            raise ConfigError(
                f"--parallel trains one run, {name} has {len(found)}; name one of them, such as {found[0]}"
            )
    return Path(ranks.from_first(str(found[0])))


def train_distributed(folder: Path, should_stop: Callable[[], bool], ranks: Ranks) -> Iterator[Event]:
    """Train the run in a folder to its end; rank 0 measures a finished one.

    Raises:
        ConfigError: on every rank, when the runs or the code of two of them differ.
        LostRank: when another rank is gone.
    """
    with ranks.barrier():
        run = open_run(folder)
    _agree(run.config, run.record["corpus_sha256"], ranks)
    trained, finished, before = False, False, machine.peak_memory()
    with suppress(NumericsError):  # told by the Stopped event before it
        for event in resume(folder, should_stop, write_sample, ranks):
            trained = trained or isinstance(event, Step)
            finished = isinstance(event, Stopped) and event.reason == "finished"
            yield event
    if finished:
        with ranks.barrier():
            if ranks.rank == 0:
                with locked(folder):
                    measure(folder, machine.peak_memory() - before if trained else None)


def _agree(config: RunConfig, corpus_sha256: str, ranks: Ranks) -> None:
    facts = {"the corpus' SHA-256": corpus_sha256[:12], "windtunnel's code": code_sha256()[:12]}
    ranks.agree({"--parallel": ranks.mode, **flatten(config), **facts, "torch": torch.__version__})
