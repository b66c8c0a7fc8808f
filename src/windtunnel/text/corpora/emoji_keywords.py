"""The corpus `emoji-keywords`: the emoji with the keywords of a file that the user has, that of emojibase-data.

No package of Python's index holds this file; the npm package emojibase-data does, as en/data.json (MIT).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from windtunnel.errors import DataError
from windtunnel.files import read_given, write_text
from windtunnel.text.corpora.cache import cache_folder, writing
from windtunnel.text.corpora.corpus import Corpus, lines
from windtunnel.text.corpora.emoji import CAPTIONS, caption_line, emoji_corpus, fetch_emoji, unlike
from windtunnel.text.corpora.files import read_chunks

NAME, FILE = "emoji-keywords", "emoji-keywords.captions.txt"
MOST_BYTES = 2**24
EXPECTED = 'a list of {"emoji": "🐟", "tags": ["fish", "food"]}, as en/data.json of the npm package emojibase-data'


def keywords_corpus() -> Corpus:
    """The captions of emoji, and its keywords as further captions; `read` raises DataError until it was made."""
    return emoji_corpus(NAME, "the pictures of emoji, with the keywords of a file of emojibase-data", FILE)


def make_keywords(file: Path, folder: Path | None = None) -> Path:
    """Write the captions and keywords of all emoji into `folder` (by default `corpora` in the cache folder).

    Args:
        file: `en/data.json` of emojibase-data, of any version.

    Raises:
        DataError: the file cannot be read or is another; as `fetch_emoji` does.
        SaveError: the folder cannot be written.
    """
    tags = read_tags(file)
    folder = folder or cache_folder() / "corpora"
    fetch_emoji(folder)
    written = []
    for line in lines(read_chunks(folder / CAPTIONS)):
        if line:
            picture, caption, group = line.split("\t")
            more = unlike((caption, *tags.get(plain(picture), ())))
            written += [caption_line(picture, one, group) for one in more]
    with writing(folder):
        write_text(folder / FILE, "".join(written))
    return folder / FILE


def read_tags(file: Path) -> dict[str, list[str]]:
    """The keywords of each emoji, by its characters without U+FE0F.

    Raises:
        DataError: the file cannot be read or is another.
    """
    try:
        found: Any = json.loads(read_given(file, MOST_BYTES))
        tags = {plain(one["emoji"]): [" ".join(tag.split()) for tag in one.get("tags", ())] for one in found}
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); expected {EXPECTED}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: it is something else ({error!r}); expected {EXPECTED}") from None
    if not any(tags.values()):
        raise DataError(f"{file}: it has no keywords; expected {EXPECTED}")
    return tags


def plain(emoji: str) -> str:
    """An emoji without the mark that asks for colour, which some files leave out."""
    return emoji.replace("\ufe0f", "")
