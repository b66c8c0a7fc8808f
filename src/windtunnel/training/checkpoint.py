"""Checkpoints: folders `step-N` inside a run, each with the weights, the optimizer's state and a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt
from safetensors import SafetensorError
from torch import Tensor, nn

from windtunnel.errors import ArtifactError
from windtunnel.files import discard
from windtunnel.training.disk import (
    MANIFEST,
    NewerFormat,
    check,
    read_files,
    read_manifest,
    saving,
    write_folder,
)

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


class Facts(BaseModel):
    """What the manifest of a checkpoint must state beside its files."""

    model_config = ConfigDict(strict=True)
    step: NonNegativeInt
    first_loss: float | None
    """Loss of the run's first step in nats, from which the guard knows an explosion; None before that step."""
    metrics_size: NonNegativeInt
    """How many bytes of `metrics.jsonl` belong to this state."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, and what was found wrong with others on the way to it."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    facts: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file of its weights."""
        return str(self.facts["files"][WEIGHTS]["sha256"])


def save_checkpoint(
    run: Path,
    step: int,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> Path:
    """Write `step-N` whole or not at all. One that is there and holds the same weights and state is left alone.

    Raises:
        SaveError: when the disk refuses; what was there before is intact.
    """
    target = run / f"step-{step}"
    files = {WEIGHTS: _pack(weights), OPTIMIZER: _pack(optimizer)}
    if not _holds(target, files):
        write_folder(target, files, {**facts, "step": step}, replace=True)
    return target


def prune(run: Path, keep: int, spared: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints, and the one of the step `spared`."""
    with saving(run):
        for step, folder in checkpoints(run)[keep:]:
            if step != spared:
                discard(folder)


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The run's checkpoint folders with their steps, newest first, unverified."""
    found = [(path.name.removeprefix("step-"), path) for path in run.glob("step-*")]
    return sorted(((int(step), path) for step, path in found if step.isascii() and step.isdecimal()), reverse=True)


def newest_checkpoint(run: Path, wanted: int | None = None) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None when the run has none yet.

    Args:
        wanted: the step of the checkpoint that is preferred, where it verifies.

    Every checkpoint is verified; what is wrong with one that is passed over is in the result's warnings.

    Raises:
        ArtifactError: when there are checkpoints and none of them verifies, or one is of a newer format.
    """
    best: Checkpoint | None = None
    faults: list[tuple[int, str]] = []
    for step, folder in checkpoints(run):
        try:
            manifest = _manifest(folder, step)
            contents = read_files(folder, manifest)
            if best is None or step == wanted:
                weights, optimizer = (_unpack(folder / name, contents[name]) for name in (WEIGHTS, OPTIMIZER))
                best = Checkpoint(step, weights, optimizer, manifest, ())
        except NewerFormat:
            raise
        except ArtifactError as error:
            faults.append((step, str(error)))
    if best is None and faults:
        told = "; ".join(message for _, message in faults)
        raise ArtifactError(f"no checkpoint of {run} can be used: {told}; delete the folder and train again")
    if best is None:
        return None
    if best.step == wanted:
        return best
    back = f"; going back to step {best.step}, the newest checkpoint that verifies"
    return replace(best, warnings=tuple(message + back * (step > best.step) for step, message in faults))


def newest_step(run: Path) -> int | None:
    """The step of the newest checkpoint whose files are as its manifest states them; older ones are not read."""
    for step, folder in checkpoints(run):
        with suppress(ArtifactError):
            read_files(folder, _manifest(folder, step))
            return step
    return None


def saved_log_size(run: Path) -> int:
    """How many bytes of the log belong to the newest checkpoint whose manifest is whole; 0 when there is none."""
    for step, folder in checkpoints(run):
        with suppress(ArtifactError):
            return int(_manifest(folder, step)["metrics_size"])
    return 0


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy saved weights into a model, every tensor exactly once.

    Raises:
        ArtifactError: listing what is missing, unexpected or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'no such tensor')}, given {given.get(name, 'nothing')}"
        for name in sorted({**expected, **given})
        if expected.get(name) != given.get(name)
    ]
    if wrong:
        raise ArtifactError("the saved weights do not fit the model: " + "; ".join(wrong))
    model.load_state_dict(dict(weights))


def check_finite(run: Path, step: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights with a NaN or an infinity: whatever is computed with them means nothing.

    Raises:
        ArtifactError: naming the first such tensor and the checkpoint before.
    """
    wrong = next((name for name, tensor in weights.items() if not torch.isfinite(tensor).all()), None)
    if wrong is None:
        return
    before = next((folder for older, folder in checkpoints(run) if older < step), None)
    earlier = f"to use {before.name}, the checkpoint before, move step-{step} away; or " if before else ""
    raise ArtifactError(
        f"{run / f'step-{step}' / WEIGHTS} cannot be used: {wrong} holds numbers that are not finite, as when training "
        f"diverges; {earlier}train again, with a lower learning rate (--set optimizer.lr=...)"
    )


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights as they are stored."""
    return hashlib.sha256(_pack(weights)).hexdigest()


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})


def _unpack(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a safetensors file that can be read ({error})") from None


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    """The manifest of a checkpoint, with all that a checkpoint must state."""
    manifest, path = read_manifest(folder), folder / MANIFEST
    check(Facts, manifest, path)
    if manifest["step"] != step:
        raise ArtifactError(f"{path} is of step {manifest['step']}; rename the folder back to step-{manifest['step']}")
    missing = {WEIGHTS, OPTIMIZER} - manifest["files"].keys()
    if missing:
        raise ArtifactError(f"{path} was not made by windtunnel: it does not list {', '.join(sorted(missing))}")
    return manifest


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether a checkpoint is there, verifies, and has exactly these files."""
    try:
        return folder.exists() and read_files(folder, read_manifest(folder)) == files
    except ArtifactError:
        return False
