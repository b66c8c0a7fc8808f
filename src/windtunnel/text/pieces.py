"""Cut a long text where no token crosses, to encode it in bounded memory and on several cores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# GPT-2's pre-tokenisation joins no character to white space that follows it, so a cut there changes no
# token. Python's \S leaves out a superset of what Rust calls white space; these four are white space to both.
GPT2_CUT = re.compile(r"(?<=\S)(?=[ \t\n\r])")

# An unknown pre-tokeniser may join punctuation to a newline; between words the usual ones cut before a space.
WORD_CUT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")

LONGEST = 1 << 22  # characters: a run without any place to cut is cut here, wherever that is


def cut_pieces(chunks: Iterable[str], cut: re.Pattern[str], size: int, longest: int = LONGEST) -> Iterator[str]:
    """Join the chunks of a text and cut it again: at the first match of `cut` from `size` characters on.

    Where the cuts lie does not depend on the chunks. Without a match a piece ends at `longest` characters.
    """
    rest, scanned = "", 0
    for chunk in chunks:
        rest += chunk
        start = 0
        while len(rest) - start > size:
            match = cut.search(rest, max(start + size, scanned), start + longest + 2)
            if match is None and len(rest) - start < longest + 2:
                break
            end = match.start() if match and match.start() <= start + longest else start + longest
            yield rest[start:end]
            start, scanned = end, 0
        # The next search starts where this one ended, less the two characters that a match looks ahead.
        scanned = max(0, len(rest) - start - 2)
        rest = rest[start:]
    if rest:
        yield rest


LONGEST_WORD = 2048

# Letters and digits; other characters; white space: no word of GPT-2's goes from one to another, but for one space
# before it. Four separators are white space to Python only.
_RUN = re.compile(r"[^\W_]+|(?:[^\w\s]|[_\x1c-\x1f])+|[^\S\x1c-\x1f]+")
_LONG_SPACE = re.compile(rf"\s{{{LONGEST_WORD + 1}}}")


def cut_words(texts: Iterable[str]) -> Iterator[str]:
    """The texts, cut inside every word of more than 2,048 characters; a text without one stays whole.

    The time to train a BPE grows with the square of the longest word, and in a file without spaces that is the file.
    """
    for text in texts:
        if max(map(len, text.split(" "))) <= LONGEST_WORD and not _LONG_SPACE.search(text):
            yield text
            continue
        start = 0
        for run in _RUN.finditer(text):
            for end in range(run.start() + LONGEST_WORD, run.end(), LONGEST_WORD):
                yield text[start:end]
                start = end
        yield text[start:]
