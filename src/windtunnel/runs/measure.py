"""What is measured once of a finished run: the metrics' columns of every held-out unit, and how much memory it took.

RUN/measured/
    documents.safetensors    summed loss in nats (U,) and number of targets (U,) of the dev split's U units, and so on
    manifest.json            of which last step, which step's model was chosen, and the peak memory

It is derived from the run and can be thrown away.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from windtunnel.errors import ArtifactError
from windtunnel.training.checkpoint import newest_step
from windtunnel.training.data import open_task
from windtunnel.training.disk import read_files, read_manifest, write_folder
from windtunnel.training.evaluate import unit_sums
from windtunnel.training.run import load

FOLDER = "measured"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """The columns of the task's metrics by name (`nats`, `targets`, ...), of each unit of the dev split: (U,)."""

    sums: dict[str, np.ndarray]
    peak_memory: int | None
    """Bytes that training took beyond the process itself; None when it was not measured."""


def measure(folder: Path, peak_memory: int | None = None, change: str | None = None) -> None:
    """Write what `read_measured` reads, unless the run's newest model was measured before.

    Args:
        change: what the run was begun with, as `load` needs it.
    """
    newest = newest_step(folder)
    if newest is not None and _step(folder) == newest:
        return
    trained = load(folder, change)
    sums = unit_sums(trained.model, open_task(trained.run.config, trained.run.store()), "dev")
    files = {"documents.safetensors": safetensors.numpy.save(sums)}
    facts = {"kind": "measured", "step": newest, "chosen": trained.step, "peak_memory": peak_memory}
    write_folder(folder / FOLDER, files, facts, replace=True)


def is_measured(folder: Path, step: int) -> bool:
    """Whether the model of this step has been measured, and what was written is whole; what is not is told."""
    return _step(folder) == step


def read_measured(folder: Path) -> Measured:
    """What was measured of a run. Raises ArtifactError when it is missing or was altered."""
    manifest = read_manifest(folder / FOLDER)
    files = read_files(folder / FOLDER, manifest)
    columns = safetensors.numpy.load(files["documents.safetensors"])
    older = {"losses": "nats", "tokens": "targets"}
    return Measured({older.get(name, name): column for name, column in columns.items()}, manifest["peak_memory"])


def _step(folder: Path) -> int | None:
    if not os.path.lexists(folder / FOLDER):
        return None
    try:
        manifest = read_manifest(folder / FOLDER)
        read_files(folder / FOLDER, manifest)
        return int(manifest["step"])
    except (ArtifactError, KeyError) as error:
        log.warning("what was measured of a run is damaged and is measured again: %s", error)
        return None
