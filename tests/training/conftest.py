"""The run that the tests of training compare with."""

from __future__ import annotations

import pytest
from tiny_runs import config_of, final_hashes, finish, names_file

from windtunnel.training.run_config import RunConfig


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """AdamW, dropout, accumulation over unequal micro-batches, epochs that end inside a batch."""
    return config_of(names_file(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="session")
def reference(config: RunConfig, tmp_path_factory: pytest.TempPathFactory):
    """(folder, per-step losses, hashes) of the run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, finish(config, folder), final_hashes(folder)
