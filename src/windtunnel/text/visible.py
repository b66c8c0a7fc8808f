r"""Text as a person may see it: a character that would steer the terminal is written out, as \x1b or \u202e."""

from __future__ import annotations

import re

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but newline and tab, those that turn the direction of writing, and halves of a character."""


def visible(text: str) -> str:
    r"""The text with each character of `STEERING` written out; a byte of a file name that is not UTF-8 as \xff.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return STEERING.sub(lambda found: _written_out(found[0]), text)


def one_line(text: str) -> str:
    r"""The text on one line: whatever has no picture of its own is written out, also a newline, as \n."""
    return "".join(c if c.isprintable() else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    code = ord(character)
    byte = 0xDC80 <= code <= 0xDCFF  # Python's stand-in for a byte that it could not decode, PEP 383
    return f"\\x{code - 0xDC00:02x}" if byte else character.encode("unicode_escape").decode()
