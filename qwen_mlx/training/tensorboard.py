"""Event files of TensorBoard, without TensorBoard: scalars and texts.

A file is a sequence of records (length, its checksum, bytes, their checksum: TFRecord), and each record an `Event`
message in protobuf's wire format (tensorboard/compat/proto/event.proto, summary.proto, tensor.proto).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

_POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), reversed


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C of `data` (RFC 3720, appendix B.4 has examples)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as TFRecord stores it: rotated and shifted, so that data may hold checksums of its own."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(crc32c(length))) + data + struct.pack("<I", masked(crc32c(data)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _event(step: int, body: bytes, when: float) -> bytes:
    return _varint(1 << 3 | 1) + struct.pack("<d", when) + _varint(2 << 3) + _varint(step) + body


def scalar_event(step: int, values: Mapping[str, float], when: float) -> bytes:
    """An `Event` with one simple value per name."""
    summary = b"".join(
        _bytes(1, _bytes(1, name.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", value))
        for name, value in values.items()
    )
    return _event(step, _bytes(5, summary), when)


def text_event(step: int, name: str, text: str, when: float) -> bytes:
    """An `Event` with a text, which the text plugin shows as Markdown."""
    tensor = _varint(1 << 3) + _varint(7) + _bytes(2, b"") + _bytes(8, text.encode())  # DT_STRING, no dimensions
    metadata = _bytes(1, _bytes(1, b"text"))
    value = _bytes(1, name.encode()) + _bytes(9, metadata) + _bytes(8, tensor)
    return _event(step, _bytes(5, _bytes(1, value)), when)


class EventFile:
    """A new event file in `folder`; what is written is there at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO = (folder / name).open("wb")
        version = _varint(1 << 3 | 1) + struct.pack("<d", time.time()) + _bytes(3, b"brain.Event:2")
        self._file.write(record(version))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(scalar_event(step, values, time.time()))

    def text(self, step: int, name: str, text: str) -> None:
        self._write(text_event(step, name, text, time.time()))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        self._file.write(record(event))
        self._file.flush()
