"""Where windtunnel keeps what it can make or fetch again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from windtunnel.errors import ConfigError, DataError, SaveError
from windtunnel.files import discard


def cache_folder() -> Path:
    """`$WINDTUNNEL_CACHE`, else `$XDG_CACHE_HOME/windtunnel`, else `~/.cache/windtunnel`; not yet made."""
    own = os.environ.get("WINDTUNNEL_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and is to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "windtunnel"


def fetched_corpus(name: str, file: str) -> Path:
    """Where the text of a corpus that was fetched is.

    Raises:
        DataError: when it has not been fetched; it says how.
    """
    path = cache_folder() / "corpora" / file
    if not path.exists():
        raise DataError(f"the corpus {name} is not on this machine; get it: windtunnel corpora get {name}")
    return path


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Around what writes into the cache: the disk's refusal is a SaveError that names `what`, with the cure."""
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"cannot write {what} ({error.strerror or error}); free some space there, or set WINDTUNNEL_CACHE to "
            "another folder"
        ) from None


def private_folder(name: str) -> Path:
    """The cache's folder of this name, made where it is missing, for what is run as code when it is read.

    Nobody else may write to it or put another in its place. So it is no link, it belongs to this user, and no other may
    write to it (0700 when it is made here). Each folder above it belongs to this user or root, and not everybody may
    write there, unless only the owner of an entry may replace it, as in /tmp. Whoever shares a group that may write to
    a folder above is trusted.

    Raises:
        SaveError: when it cannot be made, or is not such a folder.
    """
    path, me = cache_folder() / name, os.geteuid()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = path.lstat()
        above = [(folder, folder.stat()) for folder in sorted({*path.parents, *path.resolve().parents})]
    except OSError as error:
        why = error.strerror or error
        raise SaveError(f"cannot use {path} ({why}); set WINDTUNNEL_CACHE to a folder that you may write") from None
    exposed = [
        folder
        for folder, state in above
        if state.st_uid not in (0, me) or (state.st_mode & stat.S_IWOTH and not state.st_mode & stat.S_ISVTX)
    ]
    if exposed:
        cure = "set WINDTUNNEL_CACHE to a folder of your own"
    elif not stat.S_ISDIR(own.st_mode) or own.st_uid != me or own.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        exposed, cure = [path], "delete it, or set WINDTUNNEL_CACHE to another folder"
    else:
        return path
    raise SaveError(f"nothing is run from {path}: others own {exposed[-1]} or may write to it; {cure}")


KEPT = {
    "models": "pretrained models that were fetched",
    "corpora": "corpora that were fetched",
    "tokens": "texts as ids",
    "pictures": "pictures as pixels",
    "features": "what frozen trunks made of texts",
    "decoding": "compiled steps of decoding",
    "compiler": "what torch's compiler made",
    "speed": "what this machine was measured to be fastest with",
    "dask": "files of workers on many machines",
}
"""What the cache holds, by the name of its folder; all of it can be made or fetched again."""


@dataclass(frozen=True)
class Kept:
    """A folder of the cache: its name, what it holds, how many files and bytes."""

    name: str
    what: str
    n_files: int
    n_bytes: int


def listing() -> list[Kept]:
    """Every folder of the cache that there is, in the order of `KEPT`."""
    return [kept(name) for name in KEPT if (cache_folder() / name).is_dir()]


def kept(name: str) -> Kept:
    """What a folder of the cache holds; nothing where there is none."""
    files = (cache_folder() / name).rglob("*")
    sizes = [path.lstat().st_size for path in files if path.is_file() and not path.is_symlink()]
    return Kept(name, KEPT[name], len(sizes), sum(sizes))


def clear(name: str) -> int:
    """Delete a folder of the cache; how many bytes that were.

    Raises:
        ConfigError: for a name that is not in `KEPT`.
        SaveError: when it cannot be deleted.
    """
    if name not in KEPT:
        raise ConfigError(f"the cache has no folder {name!r}; known are {', '.join(KEPT)}")
    n_bytes = kept(name).n_bytes
    try:
        discard(cache_folder() / name)
    except OSError as error:
        raise SaveError(f"{cache_folder() / name} cannot be deleted ({error.strerror}); delete it yourself") from None
    return n_bytes
