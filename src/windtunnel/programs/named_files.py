"""The files of code and settings that a shell command names: they are a part of what it is."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

SOURCES = frozenset(
    f".{ending}"
    for ending in (
        *("py", "ipynb", "sh", "bash", "zsh", "pl", "r", "R", "jl", "lua", "js", "ts", "c", "cc", "cpp", "cu", "go"),
        *("rs", "java", "toml", "yaml", "yml", "json", "cfg", "ini", "conf", "gin"),
    )
)
"""Endings of files that are a part of an arm when its command names them; others may be what it writes."""
WRITES = re.compile(r"--?(?:o|out|output|save|log|results?)(?:[-_].*)?")
"""Options whose files a program writes."""


def named_files(command: str) -> dict[str, Path]:
    """Files by the name that the command gives them: code, settings, and programs that lie below the working folder.

    Found are words, what follows `=` in a word (--config=a.yaml), the module of `-m`, names below the folder of a `cd`,
    and all of that inside of a quoted command (sh -c '...'). What it writes to (> a.json, --out a.json) is left out.

    Raises:
        ValueError: for quotes that are not closed.
    """
    folders = [Path()]
    found: dict[str, Path] = {}
    for before, word in _words(command):
        if "{" in word or "\0" in word or len(word) >= 4096:
            continue
        path = Path(os.path.expandvars(word)).expanduser()
        if before == "cd":
            folders.append(folders[-1] / path)
            continue
        module = Path(*word.split("."))
        tried = [module.with_suffix(".py"), module / "__main__.py"] if before == "-m" else [path]
        for one in (folder / name for folder in folders for name in tried):
            if _is_part(one):
                found[str(one)] = one
    return found


def _words(command: str) -> Iterator[tuple[str, str]]:
    """(the word before, a word) of a command, without what it writes to."""
    lexer = shlex.shlex(command.replace("{here}/", ""), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    before = ""
    for word in lexer:
        name, equals, value = word.partition("=")
        if not (before.startswith(">") or WRITES.fullmatch(before) or (equals and WRITES.fullmatch(name))):
            yield before, word
            yield from (("", part) for part in re.split("[=,]", value) if equals and part)
            if re.search(r"\s", word):
                yield from _inside(word)
        before = word


def _inside(word: str) -> Iterator[tuple[str, str]]:
    """The words of a quoted command; none where it is something else, such as a program of awk."""
    try:
        yield from list(_words(word))
    except ValueError:
        return


def _is_part(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
    except (OSError, ValueError):
        return False
    below = not path.is_absolute() or path.is_relative_to(Path.cwd())
    return path.suffix in SOURCES or (below and os.access(path, os.X_OK))
