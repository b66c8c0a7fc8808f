"""Checkpoints: folders `step-N` inside a run, each with the weights, the optimizer's state and a manifest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from windtunnel.errors import ArtifactError
from windtunnel.train.disk import read_files, read_manifest, saving, write_folder

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, and what was found wrong with others on the way to it."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    facts: dict[str, Any]
    warnings: tuple[str, ...]


def save_checkpoint(
    run: Path,
    step: int,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> Path:
    """Write `step-N` whole or not at all. Raises SaveError, after which the run is as it was before."""
    target = run / f"step-{step}"
    with saving(target):
        if target.exists():
            shutil.rmtree(target)
    files = {WEIGHTS: _pack(weights), OPTIMIZER: _pack(optimizer)}
    write_folder(target, files, {**facts, "step": step})
    return target


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what interrupted saves left behind."""
    with saving(run):
        for _, folder in checkpoints(run)[keep:]:
            shutil.rmtree(folder)
        for leftover in run.glob(".tmp-*"):
            shutil.rmtree(leftover)


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The run's checkpoint folders with their steps, newest first, unverified."""
    found = [(p.name.removeprefix("step-"), p) for p in run.glob("step-*") if p.is_dir()]
    return sorted(((int(step), path) for step, path in found if step.isdigit()), reverse=True)


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None when the run has none yet.

    Every checkpoint is verified; what is wrong with one that is passed over is in the result's warnings.

    Raises:
        ArtifactError: when there are checkpoints and none of them verifies.
    """
    best: Checkpoint | None = None
    faults: list[tuple[int, str]] = []
    for step, folder in checkpoints(run):
        try:
            manifest = read_manifest(folder)
            contents = read_files(folder, manifest)
            if best is None:
                weights, optimizer = (safetensors.torch.load(contents[name]) for name in (WEIGHTS, OPTIMIZER))
                best = Checkpoint(step, weights, optimizer, manifest, ())
        except ArtifactError as error:
            faults.append((step, str(error)))
    if best is None and faults:
        told = "; ".join(message for _, message in faults)
        raise ArtifactError(f"no checkpoint of {run} can be used: {told}; delete the folder and train again")
    if best is None:
        return None
    back = f"; going back to step {best.step}, the newest checkpoint that verifies"
    return replace(best, warnings=tuple(message + back * (step > best.step) for step, message in faults))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy saved weights into a model, every tensor exactly once.

    Raises:
        ArtifactError: listing what is missing, unexpected or of another shape.
    """
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'no such tensor')}, given {given.get(name, 'nothing')}"
        for name in sorted({**expected, **given})
        if expected.get(name) != given.get(name)
    ]
    if wrong:
        raise ArtifactError("the saved weights do not fit the model: " + "; ".join(wrong))
    model.load_state_dict(dict(weights))


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights as they are stored."""
    return hashlib.sha256(_pack(weights)).hexdigest()


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})
