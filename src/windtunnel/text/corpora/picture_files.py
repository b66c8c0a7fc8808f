"""Pictures that are the user's files: decoded within limits, and an error names the file and what to do."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from windtunnel.errors import DataError
from windtunnel.files import LFS, open_given

KINDS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
MOST_BYTES = MOST_PIXELS = 2**26
"""Of one picture; a file of few bytes can claim any number of pixels, which would be memory when it is decoded."""
CURE = "replace it by a whole picture, or take it out"


@dataclass(frozen=True)
class PictureFiles:
    """Pictures by the path of their file below a folder. Of an animation the first frame alone is decoded.

    cropped: whether the middle square is drawn, by bicubic interpolation as CLIP has it, and not the whole.
    """

    folder: Path
    credit: str = ""
    cropped: bool = False

    def draw(self, name: str, size: int) -> np.ndarray:
        """The picture as a camera meant it to be seen, whole and centred on white, or cropped: (size, size, 3) uint8.

        Raises:
            DataError: names the file that is missing, no picture, damaged or too large.
        """
        path = self.folder / name
        with _opened(path) as picture:
            if self.cropped:
                return _middle(on_white(ImageOps.exif_transpose(picture)), size)
            picture.draft(None, (size, size))  # a JPEG is decoded at about the size that is wanted
            shown = on_white(ImageOps.exif_transpose(picture))
            width, height = (max(1, round(side * size / max(shown.size))) for side in shown.size)
            fitted = shown.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        square = Image.new("RGB", (size, size), "white")
        square.paste(fitted, ((size - width) // 2, (size - height) // 2))
        return np.array(square)

    def sha256(self, name: str) -> str:
        """The SHA-256 of the file, in hex; a process reads a file that does not change once.

        Raises:
            DataError: names the file that is missing, no picture or too large.
        """
        path = self.folder / name
        with _told(path):
            state = path.stat()
        return _sha256(path, state.st_size, state.st_mtime_ns, state.st_ino)


def _middle(picture: Image.Image, size: int) -> np.ndarray:
    """The shorter side made `size`, then the middle square, (size, size, 3): CLIP's own preparation to the bit."""
    short = min(picture.size)
    width, height = (size if side == short else int(size * side / short) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    fitted = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(fitted.crop((left, top, left + size, top + size)))


def on_white(picture: Image.Image) -> Image.Image:
    """Any picture as RGB; what is transparent becomes white, and 16 bits of grey become 8."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, whose head has been read; what goes wrong then is a DataError, too."""
    with _told(path), os.fdopen(open_given(path), "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
            raise DataError(f"{path}: {size:,} bytes, and a picture has at most {MOST_BYTES:,} here; make it smaller")
        if file.read(len(LFS)) == LFS:
            raise DataError(f"{path}: it is a git-LFS pointer and not the picture itself; fetch that: git lfs pull")
        file.seek(0)
        with Image.open(file, formats=KINDS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise DataError(
                    f"{path}: {width} x {height} pixels, and at most {MOST_PIXELS:,} are read here; make it smaller"
                )
            yield picture


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What Pillow and the disk say of a file, as a DataError; a warning of Pillow's is none of the user's business."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnidentifiedImageError:
        raise DataError(f"{path}: no picture, whatever its name says; expected {', '.join(KINDS)}; {CURE}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: more than {MOST_PIXELS:,} pixels; make it smaller") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such picture; put it there, or delete the row that names it") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read as a picture ({reason}); {CURE}") from None
    except (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        raise DataError(f"{path}: damaged ({error}); {CURE}") from None


@lru_cache(maxsize=1 << 20)
def _sha256(path: Path, size: int, changed: int, inode: int) -> str:
    """Of a picture of this size, time of change and place on the disk, whose head is read, too."""
    with _opened(path), os.fdopen(open_given(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
