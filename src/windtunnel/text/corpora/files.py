"""Reading text files in chunks: UTF-8 only, and an error says where it stops being that."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from windtunnel.errors import DataError
from windtunnel.files import LFS, utf16, what_else

CHUNK_BYTES = 2**20
BINARY_PROBE_BYTES = 2**16
MOST_UNPACKED = 250
"""How many times its own size a `.gz` may hold: text is about 4 times as long, logs up to 50, gzip can pack 1,032."""
ALWAYS_UNPACKED = 2**24
"""Bytes that any `.gz` may hold, however small it is."""


def read_chunks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file, `.gz` or plain, in chunks of at most 2**20 characters.

    A leading BOM is dropped. Memory is that of one chunk, whatever the size of the file.

    Raises:
        DataError: invalid UTF-8 (with byte offset and line), a NUL byte, an unreadable file, a damaged `.gz`, one that
            holds more than 16 MiB and 250 times its own size. Offsets in a `.gz` count the decompressed bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1  # bytes read and the line reached before the present block
    for data in _blocks(path):
        if offset == 0 and (other := what_else(data)):
            raise DataError(f"{path}: {other}")
        body = data.removeprefix(codecs.BOM_UTF8) if offset == 0 else data
        text = _decode(decoder, body, path, offset + len(data) - len(body), line)
        offset += len(data)
        line += text.count("\n")
        if text:
            yield text
    _decode(decoder, b"", path, offset, line, final=True)


def skipped_as(path: Path) -> str | None:
    """Why a file among others is no text: "binary" when its first 64 KiB hold a NUL byte (the rule that git and grep
    use), "UTF-16" or "git-LFS pointer"; None for text.

    Raises:
        DataError: when the file cannot be read.
    """
    begin = next(_blocks(path, BINARY_PROBE_BYTES), b"")
    if begin.startswith(LFS):
        return "git-LFS pointer"
    return "UTF-16" if utf16(begin) else "binary" if b"\0" in begin else None


def _blocks(path: Path, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    n_bytes = 0
    try:
        with _open(path) as file:
            while data := file.read(size):
                n_bytes += len(data)
                if path.suffix == ".gz" and n_bytes > ALWAYS_UNPACKED:
                    _check_ratio(path, n_bytes)
                yield data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or not a gzip file ({error}); decompress or fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_ratio(path: Path, unpacked: int) -> None:
    packed = path.stat().st_size
    if unpacked > MOST_UNPACKED * packed:
        raise DataError(
            f"{path}: holds more than {MOST_UNPACKED} times its own {packed:,} bytes, as no text does; "
            "if all of it is wanted, decompress it (gunzip) and give the plain file"
        )


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb")


def _decode(
    decoder: codecs.IncrementalDecoder, data: bytes, path: Path, offset: int, line: int, final: bool = False
) -> str:
    if b"\0" in data:
        place = offset + data.index(b"\0")
        raise DataError(f"{path}: a binary file (NUL byte at byte {place}), expected UTF-8 text")
    waiting = len(decoder.getstate()[0])  # bytes of a character that the last block cut in two
    try:
        return decoder.decode(data, final)
    except UnicodeDecodeError as error:
        place = offset - waiting + error.start
        line += error.object[: error.start].count(b"\n")
        raise DataError(
            f"{path}: not valid UTF-8 at byte {place}, line {line} ({error.reason}); "
            "convert it, for example from Latin-1: iconv -f ISO-8859-1 -t UTF-8"
        ) from None
