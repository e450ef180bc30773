"""The metadata and the list of tensors of a GGUF file, from a stranger: every count, length and offset is checked.

Nothing is mapped, and nothing is allocated by a number in the file before it is known that so many bytes follow.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qwen_mlx.checkpoints.foreign import HEAD, quote, recognise, refuse_foreign
from qwen_mlx.checkpoints.formats.gguf.types import ALIGNMENT, MAGIC, TYPES, BlockType
from qwen_mlx.errors import CheckpointError, NotFound, UnsupportedModel

MAX_KEYS = 65_536
MAX_KEY = 65_535  # bytes of a key, by the specification
MAX_TENSORS = 200_000
MAX_NAME = 256  # bytes of a tensor's name; the specification says 64
MAX_AXES = 4
MAX_STRING = 4 << 20
MAX_ARRAY = 4 << 20  # numbers in a list
MAX_TEXTS = 1 << 20  # in all lists together; the largest vocabulary of the family has 250 thousand tokens
MAX_METADATA = 48 << 20  # bytes of everything before the data; that vocabulary takes 10 million

_WANTED = "a GGUF file"
_DAMAGED = "The file is damaged or was made by a faulty program; download it again."
_INCOMPLETE = "The download is incomplete; fetch the file again."
_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, str] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL = 7
_SIZES = {kind: np.dtype(code).itemsize for kind, code in _SCALARS.items()}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor; `shape` is as numpy has it (the file counts axes the other way round), `start` from the beginning."""

    name: str
    kind: BlockType
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) // self.kind.values * self.kind.nbytes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, which is a whole number of blocks."""
        return self.shape[-1] // self.kind.values * self.kind.nbytes


@dataclass(frozen=True)
class GGUFHeader:
    """Everything before the data. `metadata` has numbers, texts, lists of texts, and numpy arrays of numbers."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor] = field(default_factory=dict)


def read_header(path: Path) -> GGUFHeader:
    """Read and check everything before the data of a GGUF file.

    Raises:
        NotFound: there is no such file.
        UnsupportedModel: a version, byte order or type that is not read.
        CheckpointError: it is no GGUF file, is damaged, incomplete, or contradicts itself.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise CheckpointError(f"{path} cannot be read", expected=_WANTED, found="no regular file")
        with path.open("rb") as file:
            return _Parser(path, file).header()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing", hint="Check the path.") from None
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path} cannot be read", found=getattr(problem, "strerror", None) or str(problem)
        ) from None


class _Parser:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._size = file.seek(0, 2)
        file.seek(0)
        self._at = 0
        self._texts = 0

    def header(self) -> GGUFHeader:
        self._check_magic()
        tensors, keys = self._integer(8, "the number of tensors"), self._integer(8, "the number of keys")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise self._error(f"at most {MAX_TENSORS} tensors and {MAX_KEYS} keys", f"{tensors} and {keys}")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text(MAX_KEY, "a key")
            if not name.isprintable() or not name:
                raise self._error("keys of printable characters", quote(name))
            if name in metadata:
                raise self._error("every key once", f"{quote(name)} twice")
            metadata[name] = self._value(name)
        described = [self._tensor() for _ in range(tensors)]
        return GGUFHeader(self._path, metadata, self._placed(described, metadata))

    def _check_magic(self) -> None:
        head = self._file.read(HEAD)
        self._file.seek(0)
        if head[:4] != MAGIC:
            if head[:4] == MAGIC[::-1]:
                raise UnsupportedModel(f"{self._path} is a GGUF file for big-endian machines, which is not read")
            if recognise(head) is not None:
                refuse_foreign(str(self._path), _WANTED, head)
            raise self._error("the letters GGUF at the beginning", quote(head[:8].decode("latin-1")))
        self._take(4, "the beginning")
        version = self._integer(4, "the version")
        if version & 0xFFFF == 0:
            raise UnsupportedModel(f"{self._path} is a GGUF file for big-endian machines, which is not read")
        if version not in (2, 3):
            raise UnsupportedModel(
                f"{self._path} is a GGUF file of version {version}",
                expected="version 2 or 3",
                hint="Take a newer file.",
            )

    # --------------------------------------------------------------------------------------------- pieces

    def _take(self, count: int, what: str) -> bytes:
        """The next bytes.

        Raises:
            CheckpointError: the file, or what we read of it at most, ends before.
        """
        if self._at + count > self._size:
            raise CheckpointError(
                f"{self._path} ends inside {what}",
                expected=f"at least {self._at + count} bytes",
                found=f"{self._size}",
                hint=_INCOMPLETE,
            )
        if self._at + count > MAX_METADATA:
            raise self._error(f"at most {MAX_METADATA} bytes before the data", f"more, at {what}")
        data = self._file.read(count)
        if len(data) != count:
            raise CheckpointError(f"{self._path} shrank while it was read", hint=_INCOMPLETE)
        self._at += count
        return data

    def _integer(self, size: int, what: str) -> int:
        return int.from_bytes(self._take(size, what), "little")

    def _text(self, limit: int, what: str) -> str:
        length = self._integer(8, what)
        if length > limit:
            raise self._error(f"{what} of at most {limit} bytes", f"one of {length}")
        try:
            return self._take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self._error(f"{what} in UTF-8", "other bytes") from None

    def _value(self, key: str) -> Any:
        kind = self._integer(4, "a value")
        if kind == _STRING:
            return self._text(MAX_STRING, f"the text of {quote(key, 60)}")
        if kind == _ARRAY:
            return self._array(key)
        return self._scalars(kind, 1, key)[0].item()

    def _array(self, key: str) -> list[str] | np.ndarray:
        kind, count = self._integer(4, "a list"), self._integer(8, "a list")
        if count > MAX_ARRAY:
            raise self._error(f"at most {MAX_ARRAY} values in {quote(key, 60)}", str(count))
        if kind == _STRING:
            self._texts += count
            if self._texts > MAX_TEXTS:
                raise self._error(f"at most {MAX_TEXTS} texts in lists", "more")
            if self._at + 8 * count > self._size:
                self._take(8 * count, f"the list {quote(key, 60)}")
            return [self._text(MAX_STRING, f"a text of {quote(key, 60)}") for _ in range(count)]
        if kind == _ARRAY:
            raise UnsupportedModel(f"{self._path} has lists of lists in {quote(key, 60)}, which are not read")
        return self._scalars(kind, count, key)

    def _scalars(self, kind: int, count: int, key: str) -> np.ndarray:
        if kind not in _SCALARS:
            raise self._error(f"a known type for {quote(key, 60)}", f"type {kind}")
        data = self._take(_SIZES[kind] * count, f"the value of {quote(key, 60)}")
        values = np.frombuffer(data, _SCALARS[kind])
        if kind == _BOOL:
            if (values > 1).any():
                raise self._error(f"true or false for {quote(key, 60)}", str(values.max()))
            return values.astype(np.bool_)
        return values

    def _tensor(self) -> tuple[str, BlockType, tuple[int, ...], int]:
        name = self._text(MAX_NAME, "the name of a tensor")
        if not name.isprintable() or not name:
            raise self._error("names of printable characters", quote(name))
        axes = self._integer(4, "a tensor")
        if not 1 <= axes <= MAX_AXES:
            raise self._error(f"1 to {MAX_AXES} axes for tensor {quote(name)}", str(axes))
        sizes = struct.unpack(f"<{axes}Q", self._take(8 * axes, "a tensor"))
        number, offset = self._integer(4, "a tensor"), self._integer(8, "a tensor")
        if number not in TYPES:
            raise UnsupportedModel(
                f"{self._path} holds tensor {quote(name)} in a type that is not known",
                found=f"type {number}",
                hint="The file was made by a newer program; take another quantization, or the original model.",
            )
        kind = TYPES[number]
        if any(not 1 <= size < 2**31 for size in sizes) or prod(sizes) >= 2**48:
            raise self._error(f"axes of tensor {quote(name)} from 1 to 2147483647", str(list(sizes)))
        if sizes[0] % kind.values:
            raise self._error(f"rows of whole blocks of {kind.values} in tensor {quote(name)}", str(sizes[0]))
        return name, kind, tuple(reversed(sizes)), offset

    def _placed(
        self, described: list[tuple[str, BlockType, tuple[int, ...], int]], metadata: Mapping[str, Any]
    ) -> dict[str, GGUFTensor]:
        """Tensors at their places in the file, which must hold them all, aligned and apart."""
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & alignment - 1:
            raise self._error("a general.alignment that is a power of two from 8 on", str(alignment)[:40])
        data_start = -(-self._at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, kind, shape, offset in described:
            if name in tensors:
                raise self._error("every tensor once", f"{quote(name)} twice")
            if offset % alignment:
                raise self._error(f"tensor {quote(name)} at a multiple of {alignment} bytes", f"byte {offset}")
            tensors[name] = GGUFTensor(name, kind, shape, data_start + offset)
        position = data_start
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
            if tensor.start < position:
                raise self._error(f"tensor {quote(tensor.name)} from byte {position} on", f"byte {tensor.start}")
            position = tensor.start + tensor.nbytes
        if position > self._size:
            raise CheckpointError(
                f"{self._path} is cut off", expected=f"{position} bytes", found=f"{self._size}", hint=_INCOMPLETE
            )
        return tensors

    def _error(self, expected: str, found: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged", expected=expected, found=found, hint=_DAMAGED)
