"""Files and folders, read so that a link or a pipe does no harm, and written whole or not at all."""

from __future__ import annotations

import codecs
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from windtunnel.errors import ArtifactError

LEFTOVERS = ".tmp-windtunnel-*"
"""What a kill can leave in any folder that is written to; nobody else's files are named so."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. It follows no link out of the folder, and waits for no pipe.

    Raises:
        ArtifactError: when there is something else in its place.
        OSError: as `os.open` does.
    """
    odd = f"{path} is not a regular file, but a link, a folder, a pipe or a device; put the file back in its place"
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise ArtifactError(odd) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError(odd)
    return descriptor


def read_file(path: Path, largest: int | None = None, size: int | None = None) -> bytes:
    """What a regular file holds.

    Args:
        largest: how many bytes it may have; None is any number.
        size: how many bytes it must have; None is any number.

    Raises:
        ArtifactError: when it is no regular file, or has another size; nothing has been read then.
        OSError: as `os.open` does.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if largest is not None and there > largest:
            raise ArtifactError(f"{path} was altered: {there} bytes, expected at most {largest}")
        if size is not None and there != size:
            raise ArtifactError(f"{path} was truncated or altered: {there} bytes, expected {size}")
        return file.read(there)


def open_given(path: Path) -> int:
    """A descriptor of a file that a user names: links are followed, but no pipe is waited for and no device read.

    Raises:
        OSError: also for what is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, and a file is expected", str(path))
    return descriptor


def read_given(path: Path, largest: int) -> str:
    """The UTF-8 text of a file that a user names, without a mark (BOM), with ends of lines as Python has them.

    Raises:
        OSError: also for what is no regular file, has more than `largest` bytes, or is a git-LFS pointer or UTF-16.
        UnicodeDecodeError: when it is not UTF-8.
    """
    with os.fdopen(open_given(path), "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if there > largest:
            raise OSError(errno.EFBIG, f"it has {there:,} bytes, and at most {largest:,} are expected", str(path))
        data = file.read()
    if other := what_else(data):
        raise OSError(errno.EINVAL, other, str(path))
    return data.removeprefix(codecs.BOM_UTF8).decode().replace("\r\n", "\n").replace("\r", "\n")


LFS = b"version https://git-lfs."


def what_else(data: bytes) -> str | None:
    """What the first bytes of a file are that should be UTF-8 text or weights, with the cure, where it can be told."""
    if data.startswith(LFS):
        return "it is a git-LFS pointer and not the file itself; fetch that: git lfs pull"
    if kind := utf16(data):
        return f"it is {kind} text, and UTF-8 is expected; convert it: iconv -f {kind} -t UTF-8"
    return None


def utf16(data: bytes) -> str | None:
    """The kind of UTF-16 that the first bytes of a text are in, with its mark or without; None for any other text.

    Without a mark it is told by NUL: in most scripts that computers write, white space and marks alone have one each.
    """
    if len(data) > 2 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    head = data[:4096]
    halves = {"UTF-16BE": (head[::2], head[1::2]), "UTF-16LE": (head[1::2], head[::2])}
    for kind, (high, low) in halves.items():
        if high and low and high.count(0) > 0.1 * len(high) and not low.count(0):
            with suppress(UnicodeDecodeError):
                text = head[: len(head) // 2 * 2].decode(kind, errors="surrogatepass")
                return kind if all(c.isprintable() or c.isspace() for c in text) else None
    return None


def write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all: a kill leaves what was there before. The mode of the file stays."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as `write_text` does."""
    with temporary(path) as new:
        with suppress(FileNotFoundError):
            new.chmod(stat.S_IMODE(path.stat().st_mode))
        write_file(new, data)
        os.rename(new, path)
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data; the operating system may take it in parts."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(path: Path) -> None:
    """Wait until the disk has the folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary(path: Path, folder: bool = False) -> Iterator[Path]:
    """A new, empty file or folder beside `path`, to be filled and then renamed to it; deleted at the end if it is not.

    It is locked meanwhile. The operating system releases the lock when the process ends, however it ends, so that a
    lock that can be had says on every machine that shares the folder that the owner is gone. What other owners left is
    cleared first.
    """
    clear_leftovers(path.parent)
    lock: int | None = None
    while lock is None:
        new = _beside(path)
        if folder:
            os.mkdir(new)
        else:
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            lock = _lock(new)
        except (BlockingIOError, FileNotFoundError):  # another process took it for a leftover in this very instant
            continue
        except OSError:  # the file system has no such locks, so nobody takes it for a leftover
            break
    try:
        yield new
    finally:
        with suppress(OSError):
            delete(new)
        if lock is not None:
            os.close(lock)


def clear_leftovers(folder: Path, pattern: str = LEFTOVERS) -> None:
    """Delete the temporary files and folders in a folder whose owner is gone; what cannot be deleted stays."""
    for path in folder.glob(pattern):
        with suppress(OSError):
            lock = _lock(path)
            try:
                delete(path)
            finally:
                os.close(lock)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock of a file or folder.

    The lock is one of flock: unlike one of fcntl it outlives that this process opens the file once more and closes it.

    Raises:
        BlockingIOError: when somebody holds it.
        FileNotFoundError: when it is gone.
        OSError: when it is neither a file nor a folder, or the file system has no such locks.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.lstat(path)  # it was renamed if the owner finished between the two lines above
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _beside(path: Path) -> Path:
    return path.parent / f".tmp-windtunnel-{path.name}-{uuid4().hex}"


def discard(path: Path) -> None:
    """Delete a folder or file, if it is there; it vanishes at once, even when a kill interrupts the deleting."""
    doomed = _beside(path)
    with suppress(FileNotFoundError):  # it is not there, or another process already clears it away
        os.rename(path, doomed)
        delete(doomed)


def delete(path: Path) -> None:
    """Delete a folder with all that is in it, or a file, or nothing when nothing is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
