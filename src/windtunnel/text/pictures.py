"""The pictures of a corpus of captions: what draws them, and all of them as pixels, drawn once into the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL

from windtunnel.errors import ArtifactError
from windtunnel.files import discard, read_file, sync_folder, temporary
from windtunnel.text.corpora.cache import cache_folder, writing
from windtunnel.text.corpora.picture_files import PictureFiles
from windtunnel.text.store import LARGEST_MANIFEST, FileEntry, TokenStore, map_values, verify_once
from windtunnel.text.store_build import Column

DRAWING = 1
"""Changes when the same picture is drawn to other pixels."""
PIXELS = "pixels.bin"


class Pictures(Protocol):
    """What draws the pictures of a corpus."""

    @property
    def credit(self) -> str:
        """Whose pictures they are and under which licence, shown wherever one is shown; "" for the user's own."""

    def draw(self, name: str, size: int) -> np.ndarray:
        """The picture on white, the same on every call: (size, size, 3) uint8, RGB.

        Raises:
            DataError: names the file that cannot be read, and what to do.
        """

    def sha256(self, name: str) -> str:
        """The SHA-256 of what the picture is drawn from, in hex.

        Raises:
            DataError: names the file that cannot be read, and what to do.
        """


def drawn_as(pictures: Pictures, cropped: bool) -> Pictures:
    """The pictures as a model reads them: of files the middle square alone, where that is asked for."""
    return replace(pictures, cropped=True) if cropped and isinstance(pictures, PictureFiles) else pictures


def pixels(
    store: TokenStore,
    size: int,
    progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
    cropped: bool = False,
) -> np.ndarray:
    """All pictures of a store, memory-mapped: (len(store.pictures), size, size, 3) uint8, RGB on white.

    They are drawn once, into the cache, by the SHA-256 of each; a file that is damaged is drawn again.

    Args:
        progress: called after each picture that is drawn with how many are done and how many there are.
        cache: the cache folder; None is $WINDTUNNEL_CACHE or the user's cache folder.
        cropped: as in `PictureFiles`.

    Raises:
        DataError: a picture cannot be read; it names the file.
        SaveError: the cache folder cannot be written.
    """
    pictures, names = store.corpus.pictures, store.pictures
    if pictures is None or not names:
        raise ValueError(f"{store.corpus.name} has no pictures; expected a store of captions")
    pictures = drawn_as(pictures, cropped)
    key = drawing_key(pictures, names, size)
    folder = (cache or cache_folder()).expanduser() / "pictures" / key
    shape = (len(names), size, size, 3)
    try:
        return _opened(folder, shape)
    except ArtifactError:
        _draw(folder, pictures, names, size, progress)
    return _opened(folder, shape)


def drawing_key(pictures: Pictures, names: Sequence[str], size: int) -> str:
    """What decides the pixels of these pictures, hashed; raises DataError as `Pictures.sha256` does."""
    parts = [DRAWING, PIL.__version__, size, [pictures.sha256(name) for name in names]]
    parts += ["cropped"] * (isinstance(pictures, PictureFiles) and pictures.cropped)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _opened(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        entry = FileEntry.model_validate_json(read_file(folder / "manifest.json", largest=LARGEST_MANIFEST))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: no readable manifest of pixels ({error})") from None
    verify_once(folder, [PIXELS], {PIXELS: entry})
    return map_values(folder / PIXELS, "|u1", int(np.prod(shape))).reshape(shape)


def _draw(
    folder: Path, pictures: Pictures, names: tuple[str, ...], size: int, progress: Callable[[int, int], None] | None
) -> None:
    """Draw into a temporary folder and rename it; of several processes the first to rename wins."""
    with writing(f"pictures in {folder.parent}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        discard(folder)
        with temporary(folder, folder=True) as new, ExitStack() as held:
            column = Column(new / PIXELS, "|u1", held)
            for done, name in enumerate(names, start=1):
                column.append(pictures.draw(name, size).reshape(-1))
                if progress:
                    progress(done, len(names))
            written = Column(new / "manifest.json", "u1", held)
            written.append(np.frombuffer(column.close().model_dump_json().encode(), np.uint8))
            written.close()
            sync_folder(new)
            try:
                new.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
