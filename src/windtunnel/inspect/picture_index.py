"""The pictures of a folder as vectors of a model, kept in the cache: the model reads each picture once.

A picture is known again by its size, time of change and place on the disk, or else by its content, wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import safetensors.numpy
from safetensors import SafetensorError

from windtunnel.errors import ArtifactError, DataError
from windtunnel.files import read_file, write_bytes
from windtunnel.inspect.clip_vectors import clip_of, encoded
from windtunnel.models.clip import CLIP
from windtunnel.tasks.vectors import pictures_of
from windtunnel.text.corpora.cache import cache_folder, writing
from windtunnel.text.corpora.paths import pictures_in
from windtunnel.text.corpora.picture_files import PictureFiles
from windtunnel.text.kept import Vectors
from windtunnel.text.pictures import DRAWING
from windtunnel.training.checkpoint import weights_sha256
from windtunnel.training.run import TrainedModel

AT_ONCE = 64
"""Pictures that are drawn and read at once."""
Progress = Callable[[int, int], None]
"""Called with how many pictures have been read, and how many there are to be read."""
Stamp = tuple[int, int, int, int]
"""Of a file its size, time of change in nanoseconds, place on the disk, and disk."""


@dataclass(frozen=True)
class Indexed:
    """The pictures of a folder.

    names: of those that can be read, below the folder; vectors: (N, D), one each, of length 1.
    n_new, seconds: how many the model had to read, and how long that took.
    left_out: why, of each that cannot be read.
    """

    names: tuple[str, ...]
    vectors: Vectors
    n_new: int
    seconds: float
    left_out: tuple[str, ...]


def index_folder(trained: TrainedModel, folder: Path, progress: Progress | None = None) -> Indexed:
    """The pictures below a folder; those that this model has not read yet are read now, and kept.

    Raises:
        ConfigError: for a run that finds no pictures.
        DataError: when there is no such folder, or no picture in it that can be read.
        SaveError: when the cache cannot be written.
    """
    model, began = clip_of(trained), time.perf_counter()
    config = model.config.picture
    pictures = PictureFiles(folder, cropped=config.cropped)
    names = pictures_in(folder)
    key = [weights_sha256(model.state_dict()), config.model_dump(mode="json"), DRAWING, PIL.__version__]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    rows = _Rows(cache_folder() / "features" / f"pictures-{digest}.safetensors", model.config.d_shared)
    stamps = [_stamp(folder / name) for name in names]
    new, left_out = [], []
    for name, stamp in zip(names, stamps, strict=True):
        if stamp not in rows.of_stamp:
            try:
                if not rows.know(stamp, pictures.sha256(name)):
                    new.append((name, stamp))
            except DataError as error:
                left_out.append(str(error))
    try:
        for at in range(0, len(new), AT_ONCE):
            left_out += _read(model, pictures, new[at : at + AT_ONCE], rows)
            if progress:
                progress(min(at + AT_ONCE, len(new)), len(new))
    finally:
        rows.save()
    there = [(name, rows.of_stamp[stamp]) for name, stamp in zip(names, stamps, strict=True) if stamp in rows.of_stamp]
    if not there:
        raise DataError(f"no picture in {folder} can be read; the first: {left_out[0]}")
    vectors = np.stack([rows.vectors[row] for _, row in there])
    return Indexed(
        tuple(name for name, _ in there), vectors, len(new), time.perf_counter() - began if new else 0.0,
        tuple(left_out),
    )  # fmt: skip


def _read(model: CLIP, pictures: PictureFiles, some: Sequence[tuple[str, Stamp]], rows: _Rows) -> list[str]:
    """Add the rows of some pictures; why, of those that cannot be drawn."""
    drawn, of, wrong = [], [], []
    for name, stamp in some:
        try:
            drawn.append(pictures.draw(name, model.config.picture.size))
            of.append((stamp, pictures.sha256(name)))
        except DataError as error:
            wrong.append(str(error))
    if drawn:
        for (stamp, sha256), vector in zip(of, encoded(model, pictures_of(model.config, np.stack(drawn))), strict=True):
            rows.add(stamp, sha256, vector)
    return wrong


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116, ten thousand of them
    except OSError:
        return (0, 0, 0, 0)  # which no picture has; the error comes with its cause where it is read
    return (found.st_size, found.st_mtime_ns, found.st_ino & (2**63 - 1), found.st_dev & (2**63 - 1))


class _Rows:
    """What is kept of a model: vectors, and of what each is; a damaged file is as one that is not there."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.changed = path, False
        self.vectors: list[Vectors] = []
        self.sha256: list[str] = []
        self.of_stamp: dict[Stamp, int] = {}
        try:
            kept = safetensors.numpy.load(read_file(path))
            vectors, sha256, stamps = kept["vectors"], kept["sha256"], kept["stamps"]
        except (OSError, ArtifactError, SafetensorError, KeyError):
            vectors, sha256, stamps = np.zeros((0, width), np.float32), np.zeros((0, 32)), np.zeros((0, 4), np.int64)
        n = len(vectors)
        if (vectors.shape, sha256.shape, stamps.shape) == ((n, width), (n, 32), (n, 4)) and np.isfinite(vectors).all():
            self.vectors, self.sha256 = list(vectors), [row.tobytes().hex() for row in sha256]
            self.of_stamp = {(a, b, c, d): row for row, (a, b, c, d) in enumerate(stamps.tolist())}
        self.of_content = {sha256: row for row, sha256 in enumerate(self.sha256)}

    def know(self, stamp: Stamp, sha256: str) -> bool:
        """Whether a picture of this content is there; the file is known by its stamp from now on."""
        if sha256 not in self.of_content:
            return False
        self.add(stamp, sha256, self.vectors[self.of_content[sha256]])
        return True

    def add(self, stamp: Stamp, sha256: str, vector: Vectors) -> None:
        self.of_stamp[stamp] = self.of_content[sha256] = len(self.vectors)
        self.vectors.append(vector)
        self.sha256.append(sha256)
        self.changed = True

    def save(self) -> None:
        """Write what has been added; of one place on a disk the newest row is kept."""
        if not self.changed:
            return
        newest = {(inode, disk): row for (_, _, inode, disk), row in self.of_stamp.items()}
        kept = sorted(set(newest.values()) | set(self.of_content.values()))
        stamp_of = {row: stamp for stamp, row in self.of_stamp.items()}
        arrays: dict[str, np.ndarray] = {
            "vectors": np.stack([self.vectors[row] for row in kept]),
            "sha256": np.array([list(bytes.fromhex(self.sha256[row])) for row in kept], np.uint8),
            "stamps": np.array([stamp_of[row] for row in kept], np.int64),
        }
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, safetensors.numpy.save(arrays))
