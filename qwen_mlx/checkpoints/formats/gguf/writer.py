"""Writing a GGUF file: everything before the data is known first, then each tensor comes in blocks of rows."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from qwen_mlx.checkpoints.formats.gguf.types import ALIGNMENT, MAGIC, NUMBERS, TYPES

VERSION = 3
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _UINT64 = 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class GGUFOutput:
    """A tensor to be written; `kind` is a name out of `types.py`, `shape` as numpy has it; a row is whole blocks."""

    name: str
    kind: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        kind = TYPES[NUMBERS[self.kind]]
        return prod(self.shape) // kind.values * kind.nbytes


def head(metadata: Mapping[str, Any], tensors: Sequence[GGUFOutput]) -> bytes:
    """Everything before the data, padded so that the data begins at a multiple of the alignment."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    offset = 0
    for tensor in tensors:
        axes = tuple(reversed(tensor.shape))
        parts += [_text(tensor.name), struct.pack(f"<I{len(axes)}Q", len(axes), *axes)]
        parts.append(struct.pack("<IQ", NUMBERS[tensor.kind], offset))
        offset += tensor.nbytes + _padding(tensor.nbytes)
    text = b"".join(parts)
    return text + bytes(_padding(len(text)))


def file_size(metadata: Mapping[str, Any], tensors: Sequence[GGUFOutput]) -> int:
    """Bytes of the whole file."""
    return len(head(metadata, tensors)) + sum(t.nbytes + _padding(t.nbytes) for t in tensors)


def data(tensors: Sequence[GGUFOutput]) -> Iterator[tuple[GGUFOutput, bytes]]:
    """All that comes after the head, in order, with the tensor it belongs to.

    Raises:
        ValueError: a tensor yields more or less than was planned.
    """
    for tensor in tensors:
        written = 0
        for block in tensor.blocks():
            written += len(block)
            yield tensor, block
        if written != tensor.nbytes:
            raise ValueError(f"{written} of {tensor.nbytes} bytes were given for {tensor.name}")
        if padding := _padding(written):
            yield tensor, bytes(padding)


def _padding(size: int) -> int:
    return -size % ALIGNMENT


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    """A value with its type: whole numbers as uint32 (larger ones uint64), floats float32, lists of texts or int32."""
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value) if value < 2**32 else struct.pack("<IQ", _UINT64, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if (value and isinstance(value[0], str)) or not len(value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", _ARRAY, _INT32, len(value)) + np.asarray(value, "<i4").tobytes()
