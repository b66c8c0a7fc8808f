"""The scalars of a TensorBoard file, read and written without TensorBoard.

A file is a row of records: length (8 bytes), its checksum (4), an Event as protocol buffer, its checksum (4). Of an
Event (tensorflow/core/util/event.proto) the step is field 2 and the summary field 5; its values (field 1) have a tag
(1) and a number: simple_value (2), or a tensor (8) with one element as bytes (4) or as floats (5) or doubles (6).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from windtunnel.errors import DataError

KINDS = {1: "<f", 2: "<d"}
"""struct's form of DT_FLOAT and DT_DOUBLE."""


def read_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of every scalar, in the order of the file; a last record that is still being written is left.

    Raises:
        DataError: when it is no such file.
    """
    data, at = path.read_bytes(), 0
    while at + 12 <= len(data):
        (length,), (checksum,) = struct.unpack_from("<Q", data, at), struct.unpack_from("<I", data, at + 8)
        if masked_crc32c(data[at : at + 8]) != checksum:
            raise DataError(f"{path} is no file of TensorBoard, or damaged at byte {at:,}")
        if at + 16 + length > len(data):
            return
        try:
            yield from _scalars(data[at + 12 : at + 12 + length])
        except (IndexError, struct.error, UnicodeDecodeError):
            raise DataError(f"{path} is damaged in the record at byte {at:,}") from None
        at += 16 + length


def scalars_file(rows: Iterable[tuple[float, int, Mapping[str, float]]]) -> bytes:
    """A file of (time in seconds since 1970, step, number by tag), as `read_scalars` and TensorBoard read it."""
    parts = [_record(_bytes(3, b"brain.Event:2"))]
    for time, step, numbers in rows:
        values = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", number)) for tag, number in numbers.items()
        )
        parts.append(_record(b"\x09" + struct.pack("<d", time) + b"\x10" + _as_varint(step) + _bytes(5, values)))
    return b"".join(parts)


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
    return length + sums[0] + event + sums[1]


def _bytes(number: int, value: bytes) -> bytes:
    return _as_varint(number << 3 | 2) + _as_varint(len(value)) + value


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _checks() -> Iterator[int]:
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        yield crc


CHECKS = tuple(_checks())
"""CRC-32C of each byte."""


def masked_crc32c(data: bytes) -> int:
    """The checksum of a record: CRC-32C, rotated and shifted as TensorFlow's files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CHECKS[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _scalars(event: bytes) -> Iterator[tuple[str, int, float]]:
    fields = list(_fields(event))
    step = next((value for number, value in fields if number == 2 and isinstance(value, int)), 0)
    for number, summary in fields:
        if number != 5 or not isinstance(summary, bytes):
            continue
        for inner, value in _fields(summary):
            if inner == 1 and isinstance(value, bytes):
                yield from ((tag, step, found) for tag, found in _value(value))


def _value(value: bytes) -> Iterator[tuple[str, float]]:
    fields = dict(_fields(value))
    tag, simple, tensor = fields.get(1, b""), fields.get(2), fields.get(8)
    if isinstance(tag, bytes) and isinstance(simple, bytes):
        yield tag.decode(), struct.unpack("<f", simple)[0]
    elif isinstance(tag, bytes) and isinstance(tensor, bytes):
        own = dict(_fields(tensor))
        kind = own.get(1)
        held = own.get(4) or own.get(5) or own.get(6)
        form = KINDS.get(kind) if isinstance(kind, int) else None
        if form and isinstance(held, bytes) and len(held) == struct.calcsize(form):
            yield tag.decode(), struct.unpack(form, held)[0]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of the fields of a protocol buffer; fixed-size values as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise IndexError(f"kind {kind}")
        if at + size > len(message):
            raise IndexError("cut short")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
        shift += 7
