"""One cache and one thread for the tests of training; nothing is written to the user's own cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_runs import config_of, final_hashes, finish, names_file

from windtunnel.train.run_config import RunConfig


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WINDTUNNEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """AdamW, dropout, accumulation over unequal micro-batches, epochs that end inside a batch."""
    return config_of(names_file(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="session")
def reference(config: RunConfig, tmp_path_factory: pytest.TempPathFactory):
    """(folder, per-step losses, hashes) of the run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, finish(config, folder), final_hashes(folder)
