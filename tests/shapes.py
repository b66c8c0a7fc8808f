"""Pictures that need no file: coloured shapes with captions, "red square", drawn by a few lines of numpy."""

import csv
import hashlib

import numpy as np
from PIL import Image

from windtunnel.text.corpora.corpus import Corpus

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (40, 70, 220), "yellow": (235, 205, 40),
    "purple": (150, 50, 190), "orange": (245, 140, 30), "black": (20, 20, 20), "pink": (250, 130, 180),
}  # fmt: skip
FORMS = {
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.6,
    "circle": lambda x, y: x**2 + y**2 < 0.5,
    "triangle": lambda x, y: (abs(x) < (y + 0.6) / 2) & (y < 0.6),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.18) & (np.maximum(abs(x), abs(y)) < 0.7),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.55) < 0.14,
    "bar": lambda x, y: (abs(y) < 0.2) & (abs(x) < 0.8),
}
SIZES = {"small": 0.6, "large": 1.1}


class Shapes:
    """Draws a picture by its name, "small red square"; grey is another colour of every one of these names."""

    credit = "drawn for the tests"

    def __init__(self, grey=False):
        self.grey = grey

    def draw(self, name, size):
        how_large, colour, form = name.split()
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j] / SIZES[how_large]
        picture = np.full((size, size, 3), 255, np.uint8)
        picture[FORMS[form](x, y)] = 128 if self.grey else COLOURS[colour]
        return picture

    def sha256(self, name):
        return hashlib.sha256(f"{name} {self.grey}".encode()).hexdigest()


NAMES = [f"{size} {colour} {form}" for size in SIZES for colour in COLOURS for form in FORMS]
"""96 of them."""


def shapes_corpus(captions=lambda name: [name], names=NAMES, grey=False):
    """A corpus of pictures and captions; `captions` gives those of a name, the main one first."""
    lines = [f"{name}\t{caption}" for name in names for caption in captions(name)]
    return Corpus(
        "shapes", "line", "coloured shapes", "none", "tests", lambda: iter(lines), ("picture", "caption"),
        pictures=Shapes(grey),
    )  # fmt: skip


def draw_shapes(folder, names=NAMES, size=32):
    """Shapes as files of a folder, "small_red_square.png": their names are their captions."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(Shapes().draw(name, size)).save(folder / f"{name.replace(' ', '_')}.png")
    return folder


def captioned_shapes(folder, heads, rows_of):
    """All shapes as 0.png, 1.png and so on, with captions.csv; (i, name) -> the cells of each row behind the file."""
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", *heads])
        for i, name in enumerate(NAMES):
            Image.fromarray(Shapes().draw(name, 32)).save(folder / f"{i}.png")
            writer.writerows([f"{i}.png", *cells] for cells in rows_of(i, name))
    return str(folder)
