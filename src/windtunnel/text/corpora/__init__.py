"""Corpora: bundled, generated and fetched ones by name, and any path.

`open_corpus` is the door; `CORPORA` lists what has a name; `FETCHED` what must first be got with
`windtunnel corpora get NAME`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from windtunnel.errors import DataError
from windtunnel.text.corpora.corpus import Corpus, Truth, Unit
from windtunnel.text.corpora.emoji import EMOJI, fetch_emoji
from windtunnel.text.corpora.emoji_keywords import keywords_corpus, make_keywords
from windtunnel.text.corpora.labelled import LABELLED
from windtunnel.text.corpora.mixes import mix_corpus, parse_mix
from windtunnel.text.corpora.names import names_corpus
from windtunnel.text.corpora.paths import expand, is_path, path_corpus
from windtunnel.text.corpora.pets import pets_corpus
from windtunnel.text.corpora.pig_latin import PIG_LATIN
from windtunnel.text.corpora.pronunciations import fetch_pronunciations, pronunciations_corpus
from windtunnel.text.corpora.python_source import python_corpus
from windtunnel.text.corpora.shakespeare import fetch_shakespeare, shakespeare_corpus
from windtunnel.text.corpora.tables import KINDS, kind_of

__all__ = ["CORPORA", "FETCHED", "Corpus", "Truth", "Unit", "listing", "open_corpus", "truth_of"]


def open_corpus(
    name_or_path: str, unit: Unit | Literal["auto"] = "auto", columns: Mapping[str, str] | None = None
) -> Corpus:
    """The corpus with that name, or of that file, folder or glob; a name wins (write ./names for a file). Several with
    weights are a mix: `a.txt:0.7,b.txt:0.3`, see `mix_corpus`.

    `auto` takes the corpus's own unit: for a path `text` when it is one file and `file` when there are
    several. A .tsv, .csv or .jsonl file with the columns `source` and `target` is a corpus of pairs, by line. A folder
    of pictures with captions.csv, or with captions as file names, is a corpus of captions. The first document is read,
    so that a corpus that is empty or not there is told here.

    Args:
        columns: the column of each field of such a file, where they have other names: {"source": "en", "target":
            "de"}; the first decides the split. {"text": "body"} alone makes each row a document.

    Raises:
        DataError: nothing of that name (near matches are offered), no text in it, text that is not UTF-8,
            a unit that does not fit, a corpus that has not been fetched yet, columns that are not there.
        ConfigError: a mix that is not as `parse_mix` and `mix_corpus` expect.
    """
    if (parts := parse_mix(name_or_path)) is not None:
        return mix_corpus(
            name_or_path, parts, lambda name: open_corpus(name, unit, columns if _has_columns(name) else None)
        )
    if columns is not None and (name_or_path in CORPORA or (len(columns) < 2 and "text" not in columns)):
        raise DataError(f"columns={dict(columns)}: expected text, or two fields or more, of a file: {', '.join(KINDS)}")
    if name_or_path in CORPORA:
        corpus = _named(name_or_path, unit)
    elif is_path(name_or_path):
        corpus = path_corpus(name_or_path, unit, columns)
    else:
        raise DataError(f"there is no corpus or path {_short(name_or_path)}{_nearest(name_or_path)}")
    if next(corpus.read(), None) is None:
        raise DataError(f"{name_or_path} holds no text; expected at least one character of UTF-8 text")
    return corpus


def _has_columns(path: str) -> bool:
    return path not in CORPORA and (kind_of(expand(path)) in KINDS or expand(path).is_dir())


def truth_of(name_or_path: str, unit: Unit | Literal["auto"]) -> Truth | None:
    """The truth of a corpus in this unit, where it is known; the corpus is not read."""
    return _named(name_or_path, unit).truth if name_or_path in CORPORA else None


def listing() -> list[dict[str, str]]:
    """Every corpus that has a name, with its size in characters or pictures, licence and origin."""
    return [_listed(make()) for make in CORPORA.values()]


def _listed(corpus: Corpus) -> dict[str, str]:
    try:
        size = _size(corpus)
    except DataError:
        size = f"not fetched yet: windtunnel corpora get {corpus.name}"
    facts = {"unit": corpus.unit, "size": size, "licence": corpus.licence}
    return {"name": corpus.name, **facts, "description": corpus.description, "origin": corpus.origin}


def _size(corpus: Corpus) -> str:
    if corpus.pictures is None:
        return f"{sum(len(piece) for piece in corpus.read()) / 1e6:.2f} M characters"
    names = [document.partition("\t")[0] for document in corpus.read()]
    return f"{len({*names}):,} pictures, {len(names):,} captions"


def _named(name: str, unit: Unit | Literal["auto"]) -> Corpus:
    corpus = CORPORA[name]()
    if unit in ("auto", corpus.unit):
        return corpus
    if len(corpus.fields) > 1:
        kind = " and ".join(corpus.fields[:2])
        raise DataError(f"{name} is {kind}, one a line, which unit={unit} cannot hold; use unit=line or leave it out")
    if unit == "text" and corpus.unit == "file":
        raise DataError(f"{name} is many files, and the unit text is one running text; use unit=file or unit=line")
    if unit == "file":
        raise DataError(f"{name} is a single text, which unit=file cannot split; use unit=text or unit=line")
    return CORPORA[name](unit)


def _short(given: str) -> str:
    return repr(given if len(given) <= 80 else f"{given[:79]}…")


def _nearest(given: str) -> str:
    if "," in given:
        return "; several corpora need a weight each: a.txt:0.7,b.txt:0.3"
    path = expand(given)
    candidates = {name: name for name in CORPORA}
    try:
        siblings = (path.parent if path.parent.is_dir() else Path()).iterdir()
        candidates |= {entry.name.lower(): str(entry) for entry in siblings if entry.name not in CORPORA}
    except OSError:  # a folder that may not be listed offers nothing
        pass
    close = difflib.get_close_matches(path.name.lower(), candidates, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(candidates[key] for key in close)}?"
    return f"; known are {', '.join(CORPORA)}, and the path of any file, folder or glob of UTF-8 text"


MADE_FROM_FILE: dict[str, Callable[[Path], Path]] = {"emoji-keywords": make_keywords}
"""Corpora that are made once from a file that the user has, with `windtunnel corpora get NAME --file PATH`."""

FETCHED: dict[str, Callable[[], Path]] = {
    "shakespeare": fetch_shakespeare,
    "pronunciations": fetch_pronunciations,
    **{name: one.fetch for name, one in LABELLED.items()},
    **dict.fromkeys(EMOJI, fetch_emoji),
}

CORPORA: dict[str, Callable[..., Corpus]] = {
    "names": names_corpus,
    "python": python_corpus,
    "pets": pets_corpus,
    "shakespeare": shakespeare_corpus,
    **PIG_LATIN,
    "pronunciations": pronunciations_corpus,
    **{name: one.corpus for name, one in LABELLED.items()},
    **EMOJI,
    "emoji-keywords": keywords_corpus,
}
