"""Run folders on disk: every file is fsynced, every folder appears whole or not at all, and a lock says who writes.

A manifest is canonical JSON that carries the SHA-256 of its own content and of every file beside it, so any flipped bit
is found and named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from windtunnel.errors import ArtifactError, BusyError, SaveError
from windtunnel.files import clear_leftovers, discard, open_regular, read_file, sync_folder, temporary, write_file

FORMAT = 1
"""Number of the run folder's format; a folder with a higher number was made by a newer windtunnel."""

MANIFEST = "manifest.json"


LARGEST_MANIFEST = 64 << 20
"""Bytes; a manifest that is larger is none, and is not read into memory."""


class NewerFormat(ArtifactError):
    """A folder that is whole but was written by a newer windtunnel; nobody is to pass it over as damaged."""


class FileEntry(BaseModel):
    """What a manifest says of one file."""

    model_config = ConfigDict(extra="forbid", strict=True)
    size: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What every manifest holds; the facts of its folder stand beside it."""

    model_config = ConfigDict(strict=True)
    format: Annotated[int, Field(ge=1)]
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], FileEntry]


_CURES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "permission was denied: make the folder writable or choose another with --out",
    errno.EPERM: "permission was denied: make the folder writable or choose another with --out",
    errno.ENOTEMPTY: "the folder holds other files: choose another with --out",
    errno.EROFS: "the disk is read-only: choose another folder with --out",
    errno.EIO: "the disk reports an input/output error: check the disk",
}


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an OSError while writing below `path` into a SaveError that says the cure."""
    try:
        yield
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "see the message of the operating system")
        raise SaveError(
            f"could not write {path} ({error.strerror or error}); {cure}, then resume. "
            "What had been saved before is intact"
        ) from error


def write_folder(target: Path, files: Mapping[str, bytes], facts: Mapping[str, Any], replace: bool = False) -> None:
    """Create a folder with these files and a manifest, whole or not at all.

    The files go into a temporary folder beside the target, the manifest last; then one rename makes it visible.

    Args:
        replace: whether a target that is there gives way, once the new one is safely on disk.

    Raises:
        SaveError: when the disk refuses; nothing that existed before is changed.
    """
    with saving(target), temporary(target, folder=True) as new:
        for name, data in files.items():
            write_file(new / name, data)
        write_file(new / MANIFEST, manifest_bytes(files, facts))
        sync_folder(new)
        if replace:
            discard(target)
        os.rename(new, target)
        sync_folder(target.parent)


def manifest_bytes(files: Mapping[str, bytes], facts: Mapping[str, Any]) -> bytes:
    """The manifest of these files: canonical JSON with the sizes and SHA-256 of the files, the facts, and its own."""
    body = {
        "format": FORMAT,
        **facts,
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    return sealed(body)


def sealed(body: Mapping[str, Any]) -> bytes:
    """Canonical JSON of the body with its own SHA-256; `read_sealed` is the inverse."""
    return _canonical({**body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed` made a file of.

    Raises:
        FileNotFoundError: when it is missing.
        ArtifactError: when it was altered.
    """
    try:
        raw = read_file(path, largest=LARGEST_MANIFEST)
        body = dict(json.loads(raw))
        stated = body.pop("sha256")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise ArtifactError(f"{path} is damaged: it cannot be read as a manifest") from None
    if raw != _canonical({**body, "sha256": stated}) or hashlib.sha256(_canonical(body)).hexdigest() != stated:
        raise ArtifactError(f"{path} was altered: its content does not have the SHA-256 that it states")
    return body


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, after checking its own SHA-256.

    Raises:
        ArtifactError: when it is missing, altered, incomplete or of a newer format.
    """
    path = folder / MANIFEST
    try:
        body = read_sealed(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; this is not a complete windtunnel folder") from None
    version = body.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormat(
            f"{folder} has format {version}, this windtunnel reads up to {FORMAT}; install a newer windtunnel"
        )
    check(Manifest, body, path)
    return body


def check(kind: type[BaseModel], data: object, path: Path) -> None:
    """Whether the data of a file have the fields and types that they must have.

    Raises:
        ArtifactError: naming the file and the first field that is missing or wrong.
    """
    try:
        kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "its content"
        raise ArtifactError(f"{path} was not made by windtunnel: {field}: {first['msg']}") from None


def read_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that a manifest lists, each checked by size, before it is read, and by SHA-256.

    Raises:
        ArtifactError: naming the file that is missing, truncated or altered.
    """
    contents = {}
    for name, stated in manifest["files"].items():
        path = folder / name
        try:
            contents[name] = read_file(path, size=stated["size"])
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error.strerror})") from None
        if hashlib.sha256(contents[name]).hexdigest() != stated["sha256"]:
            raise ArtifactError(f"{path} was altered: its SHA-256 is not the one in {folder / MANIFEST}")
    return contents


GLANCES = 5
"""How often a lock is tried that somebody may only be looking at."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the operating system releases when the process ends, however it ends.

    What killed processes left in the folder is cleared first.

    Raises:
        BusyError: when another process holds it.
        ArtifactError: when the lock is no regular file.
    """
    import fcntl

    with saving(folder):
        descriptor = open_regular(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        with saving(folder / "lock"):
            for _ in range(GLANCES):
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.02)  # `is_locked` may be looking
            else:
                raise BusyError(
                    f"{folder} is being written by another process; wait for it, or choose another folder with --out"
                )
        clear_leftovers(folder, ".tmp-*")  # also those that older versions named
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether somebody holds the folder's lock; False also for what is no folder. Nothing is written."""
    import fcntl

    try:
        descriptor = open_regular(folder / "lock")
    except (OSError, ArtifactError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _canonical(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, sort_keys=True, indent=1) + "\n").encode()
