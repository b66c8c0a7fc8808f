"""Pictures on a page: small, inside of the page itself, with what is said of them below."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

SIDE = 224
"""Pixels of a picture that is shown as large or a little smaller."""
STYLE = """
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(13rem, 44%), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.pictures figure { margin: 0; }
.pictures img { display: block; width: 100%; max-width: 14rem; aspect-ratio: 1; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; }
.pictures figcaption { font-size: .9rem; overflow-wrap: anywhere; margin-top: .25rem; }
.sheet td, .sheet th { padding: .2rem; text-align: left; vertical-align: top; }
.sheet td:first-child { font: .85rem/1.3 system-ui, sans-serif; white-space: normal; max-width: 6.4rem; }
.sheet img { display: block; width: 6rem; aspect-ratio: 1; background: #fff;
  border: 1px solid var(--line); }
"""


def image(drawn: np.ndarray, said: str) -> str:
    """A picture (S, S, 3) uint8 as an <img> that holds its own PNG; `said` is read where it is not seen."""
    return f'<img alt="{escape(said)}" src="data:image/png;base64,{base64.b64encode(png(drawn)).decode()}">'


def png(drawn: np.ndarray) -> bytes:
    """The bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG", optimize=True)
    return file.getvalue()


def grid(pictures: Iterable[tuple[np.ndarray, str, Sequence[str]]]) -> str:
    """Pictures side by side; each with what it is, and lines about it."""
    figures = [
        f"<figure>{image(drawn, said)}<figcaption>{escape(said)}"
        + "".join(f'<br><span class="quiet">{escape(line)}</span>' for line in lines)
        + "</figcaption></figure>"
        for drawn, said, lines in pictures
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'
