"""One safetensors file: a header we check ourselves, and arrays that MLX reads only after that.

MLX trusts the header of a file: negative offsets, overlapping tensors and sizes beyond 32 bits pass its
checks and give wrong numbers or a crash. So `read_header` parses the header first, by the letter of the
format (https://huggingface.co/docs/safetensors), and nothing that fails it is ever shown to MLX.

This module knows nothing about models: names and shapes mean nothing here.
"""

from __future__ import annotations

import os
import reprlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import mlx.core as mx

from qwen_mlx.checkpoints.foreign import HEAD, quote, refuse_foreign
from qwen_mlx.checkpoints.strict_json import parse_object
from qwen_mlx.errors import CheckpointError, NotFound
from qwen_mlx.paths import atomic_write

MAX_HEADER = 100_000_000  # bytes; the limit of the format
MAX_TENSORS = 200_000
MAX_AXES = 32

# Bits per element of every type the format knows.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}
# What MLX makes of them. Types that are missing here have a valid header but cannot be loaded; the 8-bit
# floats arrive as their bytes, for whoever knows the scales that belong to them.
MLX_DTYPES: Mapping[str, mx.Dtype] = {
    "BOOL": mx.bool_,
    "F8_E4M3": mx.uint8,
    "F8_E8M0": mx.uint8,
    "U8": mx.uint8,
    "I8": mx.int8,
    "U16": mx.uint16,
    "I16": mx.int16,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "U32": mx.uint32,
    "I32": mx.int32,
    "F32": mx.float32,
    "U64": mx.uint64,
    "I64": mx.int64,
    "C64": mx.complex64,
}

_WANTED = "a safetensors file"
_DAMAGED = "The file is damaged or was made by a faulty program; download it again (`qwen-mlx pull --repair`)."
_INCOMPLETE = "The download is incomplete; fetch the file again (`qwen-mlx pull`)."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; `start` and `end` count bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Header:
    """A header that passed every check.

    Attributes:
        tensors: by name, in the order of their bytes; together they fill `data_start` to `file_size` exactly.
        metadata: the free text entries of the file.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    file_size: int


# ---------------------------------------------------------------------------------------------------- reading


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; the data is not touched.

    Raises:
        NotFound: there is no such file.
        CheckpointError: it is not a safetensors file, is damaged, incomplete, or contradicts itself.
    """
    path = Path(path)
    text, file_size = _header_text(path)
    entries = parse_object(text, str(path), "the JSON header of a safetensors file", _DAMAGED)
    metadata = _metadata(path, entries.pop("__metadata__", None))
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{path} is refused", expected=f"at most {MAX_TENSORS} tensors", found=f"{len(entries)}")
    data_start = 8 + len(text)
    tensors = [_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_layout(path, tensors, data_start, file_size)
    return Header({tensor.name: tensor for tensor in tensors}, metadata, data_start, file_size)


def _header_text(path: Path) -> tuple[bytes, int]:
    """The JSON text, not parsed yet, and the size of the file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
            raise CheckpointError(f"{path} cannot be read", expected=_WANTED, found=kind)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEAD)
            length = int.from_bytes(head[:8], "little")
            if len(head) < 9 or head[8:9] != b"{" or length > MAX_HEADER:
                refuse_foreign(str(path), _WANTED, head)
            if len(head) < 8:
                raise CheckpointError(
                    f"{path} is not {_WANTED}",
                    expected="at least 8 bytes",
                    found=f"{size}",
                    hint=_INCOMPLETE,
                )
            if length > MAX_HEADER:
                raise CheckpointError(
                    f"{path} is not {_WANTED}",
                    expected=f"a header of at most {MAX_HEADER} bytes",
                    found=f"one of {length}",
                    hint=_DAMAGED,
                )
            if 8 + length > size:
                raise CheckpointError(
                    f"{path} ends inside its header",
                    expected=f"at least {8 + length} bytes",
                    found=f"{size}",
                    hint=_INCOMPLETE,
                )
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise NotFound(f"{path} is missing", hint=_INCOMPLETE) from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise CheckpointError(f"{path} cannot be read", found=_reason(problem)) from None
    if len(text) != length:
        raise CheckpointError(f"{path} shrank while it was read", hint=_INCOMPLETE)
    if not text.startswith(b"{"):
        raise CheckpointError(
            f"{path} is not {_WANTED}",
            expected="a header that begins with '{'",
            found=quote(text[:20].decode("latin-1")),
            hint=_DAMAGED,
        )
    return text, size


def _metadata(path: Path, entry: Any) -> dict[str, str]:
    if entry is None:  # MLX writes null where it has nothing to say
        return {}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise CheckpointError(f"{path} has damaged metadata", expected="text values under __metadata__", hint=_DAMAGED)
    return entry


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    """Check one entry by itself."""

    def error(expected: str, found: str) -> CheckpointError:
        what = f"{path} describes tensor {quote(name)} wrongly"
        return CheckpointError(what, expected=expected, found=found, hint=_DAMAGED)

    shown = reprlib.repr  # values can be huge or hold control characters
    if not name.isprintable():
        raise error("a name of printable characters", quote(name))
    if not isinstance(entry, dict):
        raise error("an object with dtype, shape and data_offsets", shown(entry))
    for key in ("dtype", "shape", "data_offsets"):
        if key not in entry:
            raise error(f"the key {key}", f"the keys {shown(list(entry))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise error(f"a dtype out of {', '.join(DTYPE_BITS)}", shown(dtype))
    if not isinstance(shape, list) or len(shape) > MAX_AXES:
        raise error(f"a shape of at most {MAX_AXES} axes", shown(shape))
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**31:
            raise error("axes that are whole numbers from 0 to 2147483647", shown(size))
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(o) is not int for o in offsets):
        raise error("data_offsets of two whole numbers", shown(offsets))
    begin, end = offsets
    if not 0 <= begin <= end:
        raise error("data_offsets that do not run backwards or start before 0", shown(offsets))
    bits = DTYPE_BITS[dtype]
    strides = 1  # Python integers: nothing here can wrap around, unlike in the programs that come after us
    for size in shape:
        strides *= max(size, 1)
    if strides * bits >= 2**63:
        raise error("a shape that 64 bits can count", shown(shape))
    total = 0 if 0 in shape else strides * bits
    if total % 8 or total // 8 != end - begin:
        raise error(f"{-(-total // 8)} bytes for {dtype} {shape}", f"data_offsets of {end - begin} bytes")
    return TensorInfo(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _check_layout(path: Path, tensors: list[TensorInfo], data_start: int, file_size: int) -> None:
    """Tensors follow each other without hole or overlap, from the header to the end of the file."""
    needed = max((tensor.end for tensor in tensors), default=data_start)
    if needed > file_size:
        raise CheckpointError(f"{path} is cut off", expected=f"{needed} bytes", found=f"{file_size}", hint=_INCOMPLETE)
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            what = "leaves a hole before" if tensor.start > position else "lets another tensor overlap"
            raise CheckpointError(
                f"{path} {what} tensor {quote(tensor.name)}",
                expected=f"its data at byte {position}",
                found=f"byte {tensor.start}",
                hint=_DAMAGED,
            )
        position = tensor.end
    if position != file_size:
        raise CheckpointError(
            f"{path} is longer than its tensors",
            expected=f"{position} bytes",
            found=f"{file_size}",
            hint=_DAMAGED,
        )


def check_types(path: Path, header: Header) -> None:
    """Raises `CheckpointError` for the first tensor of a type that MLX does not have."""
    for tensor in header.tensors.values():
        if tensor.dtype not in MLX_DTYPES:
            raise CheckpointError(
                f"{path} holds tensor {quote(tensor.name)} in a type MLX does not have",
                expected=f"one of {', '.join(MLX_DTYPES)}",
                found=tensor.dtype,
                hint="Convert the model to bfloat16 or float16 first.",
            )


def load_tensors(path: Path) -> dict[str, mx.array]:
    """Load every tensor of a file, lazily: bytes are read when an array is evaluated.

    Returns:
        Arrays by name, dtypes as in `MLX_DTYPES`.

    Raises:
        NotFound, CheckpointError: as `read_header`; or a dtype that MLX does not have.
    """
    path = Path(path)
    header = read_header(path)
    check_types(path, header)
    if not header.tensors:
        return {}
    try:
        arrays = mx.load(str(path), format="safetensors")
    except (RuntimeError, ValueError, OSError) as problem:
        raise CheckpointError(f"{path} cannot be loaded", found=_reason(problem), hint=_DAMAGED) from None
    assert isinstance(arrays, dict)
    described = {t.name: (t.shape, MLX_DTYPES[t.dtype]) for t in header.tensors.values()}
    loaded = {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
    if described != loaded:  # the file changed in between, or the two parsers disagree
        names = [name for name in {**described, **loaded} if described.get(name) != loaded.get(name)]
        raise CheckpointError(
            f"{path} is read differently by MLX",
            expected=f"tensor {quote(names[0])} as {described.get(names[0])}",
            found=f"{loaded.get(names[0])}",
            hint=_DAMAGED,
        )
    return arrays


# ---------------------------------------------------------------------------------------------------- writing


def save_tensors(path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to one file, so that after a crash either the old file or the whole new one is there.

    Args:
        metadata: free text entries; None writes `{"format": "mlx"}`, which transformers asks for.

    Raises:
        CheckpointError: a dtype the format lacks, a disk that is full or not writable.
    """
    path = Path(path)
    entries = {"format": "mlx"} if metadata is None else dict(metadata)
    if "__metadata__" in arrays:
        raise CheckpointError(f"{path} cannot be written", found="a tensor with the name __metadata__")
    try:
        with atomic_write(path, "wb") as file:
            mx.save_safetensors(cast(BinaryIO, file), dict(arrays), entries)
    except (OSError, RuntimeError, ValueError) as problem:
        raise CheckpointError(f"{path} cannot be written", found=_reason(problem)) from problem


def _reason(problem: Exception) -> str:
    """The short form of an exception of the system or of MLX."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or type(problem).__name__
