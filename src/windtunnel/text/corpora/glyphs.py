"""Pictures that are glyphs of a colour font, drawn by Pillow."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from windtunnel.errors import DataError

MARGIN = 0.04
"""White on each side of a picture, as a share of it."""
SHARP = 192
"""Pixels: a glyph is drawn at this size, or at 5/4 of the picture's where that is more, and then reduced."""
CURE = "use a font that has this character"
JOINERS = {0x200D, 0xFE0F}
USUAL, WIDE = "😀", 1.5
"""An emoji of the usual width, and from which multiple of it on characters are drawn side by side, not as one."""


@dataclass(frozen=True)
class Glyphs:
    """The glyphs of a font as pictures, by their characters. strike: the one size of a font of bitmaps, or None."""

    path: Path
    credit: str
    strike: int | None = None

    def draw(self, name: str, size: int) -> np.ndarray:
        """The glyph, cut out and centred on white: (size, size, 3) uint8.

        Raises:
            DataError: the font cannot be read or draws nothing, or Pillow cannot join characters to one glyph.
        """
        font = _font(self.path, self.strike or max(SHARP, size + size // 4))
        page = _page(font, name, self.path)
        box = page.convert("L").point(lambda value: 255 * (value < 255)).getbbox()
        if box is None:
            raise DataError(f"{self.path} draws nothing for {name!r}; {CURE}")
        left, top, right, bottom = box
        side = round(max(right - left, bottom - top) / (1 - 2 * MARGIN))
        square = Image.new("RGB", (side, side), "white")
        square.paste(page.crop(box), ((side - right + left) // 2, (side - bottom + top) // 2))
        return np.array(square.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))

    def has(self, name: str) -> bool:
        """Whether the font has all the characters, and draws them as one glyph. Raises DataError as `draw` does."""
        return _has(self.path, self.strike or SHARP, name)

    def sha256(self, name: str) -> str:
        """The SHA-256 of the font's file and the characters, in hex. Raises DataError when it cannot be read."""
        try:
            stamp = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from None
        font = _file_sha256(self.path, stamp.st_size, stamp.st_mtime_ns)
        return hashlib.sha256(f"{font} {name}".encode()).hexdigest()


@dataclass(frozen=True)
class Styles:
    """The glyphs of several fonts as pictures, each by its style, a space and its characters: `Noto 🐟`."""

    fonts: tuple[tuple[str, Glyphs], ...]

    @property
    def credit(self) -> str:
        """Those of all of them."""
        return "; ".join(glyphs.credit for _, glyphs in self.fonts)

    def draw(self, name: str, size: int) -> np.ndarray:
        """As `Glyphs.draw`."""
        glyphs, characters = self._of(name)
        return glyphs.draw(characters, size)

    def sha256(self, name: str) -> str:
        """As `Glyphs.sha256`."""
        glyphs, characters = self._of(name)
        return glyphs.sha256(characters)

    def _of(self, name: str) -> tuple[Glyphs, str]:
        style, _, characters = name.partition(" ")
        return dict(self.fonts)[style], characters


def _page(font: ImageFont.FreeTypeFont, name: str, path: Path) -> Image.Image:
    """The glyph in the middle of a white page; Pillow's refusal of a text that is all joiners is a DataError."""
    try:
        width = math.ceil(font.getbbox(name)[2] + font.size / 2)
        page = Image.new("RGB", (width, math.ceil(2 * font.size)), "white")
        start = (font.size / 4, font.size / 2)
        ImageDraw.Draw(page).text(start, name, fill="black", font=font, embedded_color=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot draw {name!r} ({error}); {CURE}") from None
    return page


@lru_cache(maxsize=8)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    if not features.check("raqm"):
        raise DataError(
            f"{path}: drawing emoji of several characters needs Pillow's Raqm, which needs the library FriBiDi; "
            "install it (apt-get install libfribidi0, brew install fribidi)"
        )
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.RAQM)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a font ({error})") from None


@lru_cache(maxsize=1 << 14)
def _has(path: Path, size: int, name: str) -> bool:
    font = _font(path, size)
    if not {*map(ord, name)} - JOINERS <= _characters(path):
        return False
    return font.getlength(name) < WIDE * font.getlength(USUAL)


@lru_cache(maxsize=8)
def _characters(path: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(path, lazy=True) as font:
        return frozenset(font.getBestCmap())


@lru_cache(maxsize=8)
def _file_sha256(path: Path, size: int, changed: int) -> str:
    """Of a file of this size and time of change, which is read once."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
