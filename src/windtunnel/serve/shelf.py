"""The models of a folder by name; those that were used last stay in memory."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import torch

from windtunnel.errors import ArtifactError, ConfigError
from windtunnel.generation.compiled import ONE_THREAD
from windtunnel.models import Model
from windtunnel.runs.seeds import find_run, find_runs
from windtunnel.training import machine
from windtunnel.training.checkpoint import checkpoints
from windtunnel.training.run import TrainedModel, is_run, load, open_run

Stamp = tuple[int, int, int] | None
LAST = "last"
FRESH = 2.0
"""Seconds for which a listing of the folder is believed."""


class UnknownModel(ArtifactError):
    """There is no run of this name below the folder."""


def half_of_memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Names:
    """The runs below a folder by the names that a client may say; a name is looked up, never made a path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, Path] = {}
        self._listed = -FRESH

    def runs(self) -> dict[str, Path]:
        """Every run by its path below the folder, the most recently changed first."""
        if is_run(self.root):
            return {self.root.absolute().name: self.root}
        return {str(folder.relative_to(self.root)): folder for folder in find_runs(self.root)}

    def find(self, name: str) -> Path:
        """The run of a name: its own, that of the folder around several seeds, or `last`.

        Raises:
            UnknownModel: when there is none.
        """
        if time.monotonic() - self._listed >= FRESH:
            self._known, self._listed = self._names(), time.monotonic()
        folder = self._known.get(name)
        if folder is None or not folder.is_dir():
            raise UnknownModel(f"there is no model {name[:200]!r}; GET /v1/models lists those there are")
        return folder if is_run(folder) else find_run(str(folder))

    def _names(self) -> dict[str, Path]:
        runs = self.runs()
        around = {name.partition("/")[0]: folder.parent for name, folder in runs.items() if "/" in name}
        newest = next(iter(runs), "")
        last = {LAST: around.get(newest.partition("/")[0], runs[newest])} if runs else {}
        return {**last, **around, **runs}


class Shelf:
    """Loaded models, up to so many bytes of weights; the least recently used leave first.

    Args:
        limit: bytes. A model that alone is larger is refused.
    """

    def __init__(self, names: Names, limit: int) -> None:
        self.names, self.limit = names, limit
        self.loaded: OrderedDict[Path, TrainedModel] = OrderedDict()
        self._stamps: dict[Path, Stamp] = {}

    def get(self, name: str) -> TrainedModel:
        """The newest model of a run; one that has been trained further or anew since it was loaded is loaded again.

        Raises:
            UnknownModel: for a name that the folder has not.
            ConfigError: for a model that is larger than the limit.
            ArtifactError: as `windtunnel.training.run.load` does.
        """
        folder = self.names.find(name)
        stamp = _stamp(folder)
        if folder in self.loaded and self._stamps[folder] == stamp:
            self.loaded.move_to_end(folder)
        else:
            self.loaded.pop(folder, None)
            self._make_room(open_run(folder).config.model.n_parameters() * 4, name)
            self.loaded[folder], self._stamps[folder] = load(folder), stamp
        trained = self.loaded[folder]
        torch.set_num_threads(1 if trained.run.config.model.n_parameters() < ONE_THREAD else machine.cores())
        return trained

    def n_bytes(self) -> int:
        """Of the weights of all loaded models."""
        return sum(map(size_of, (trained.model for trained in self.loaded.values())))

    def _make_room(self, size: int, name: str) -> None:
        if size > self.limit:
            given = f"the weights of {name} take {size / 1e6:,.0f} MB, and models may take {self.limit / 1e6:,.0f} MB"
            raise ConfigError(f"{given}; start windtunnel serve with a larger --memory")
        while self.loaded and self.n_bytes() + size > self.limit:
            self.loaded.popitem(last=False)


def _stamp(folder: Path) -> Stamp:
    """What tells the newest checkpoint from any other, also from one of the same step in a run that was made anew."""
    for step, path in checkpoints(folder):
        with suppress(OSError):  # it was removed meanwhile
            found = path.stat()
            return step, found.st_ino, found.st_mtime_ns
    return None


def size_of(model: Model) -> int:
    """Bytes of a model's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
