"""The tensors of a model folder, read a few rows at a time, so that memory does not grow with the model.

Files are read with `pread`: pages that are mapped would count as memory of this process, and a mapped file that
shrinks would end it. All headers are checked before the first byte of data is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import mlx.core as mx
import numpy as np

from qwen_mlx.checkpoints.folder import find_weights
from qwen_mlx.checkpoints.safetensors import DTYPE_BITS, MLX_DTYPES, TensorInfo, check_types
from qwen_mlx.errors import CheckpointError

# Bytes of the source that are worked on at a time. Several copies of a block exist at once, some in float32.
BLOCK = 4 << 20

# The integer type numpy sees the bytes of a tensor as, where it has no type of its own for them.
_NUMPY_VIEWS = {"BF16": np.uint16, "F16": np.float16, "BOOL": np.bool_, "C64": np.complex64}


class RawFile:
    """A file that is read at positions, and does not push other files out of the memory of the system."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as problem:
            raise CheckpointError(f"{path} cannot be read", found=problem.strerror) from None
        _do_not_cache(self._handle)

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on.

        Raises:
            CheckpointError: the file ends before that (it was cut off while we read), or the disk fails.
        """
        data = bytearray(count)
        self.read_into(memoryview(data), start)
        return bytes(data)

    def read_into(self, view: memoryview, start: int) -> None:
        """Fill `view` with the bytes from `start` on; raises as `read`."""
        done = 0
        try:
            while done < len(view):
                got = os.preadv(self._handle, [view[done:]], start + done)
                if not got:
                    raise CheckpointError(
                        f"{self.path} shrank while it was read",
                        expected=f"at least {start + len(view)} bytes",
                        found=f"{start + done}",
                    )
                done += got
        except OSError as problem:
            gone = " (was the disk unplugged?)" if problem.errno in (errno.EIO, errno.ENXIO, errno.ENODEV) else ""
            raise CheckpointError(f"{self.path} cannot be read", found=f"{problem.strerror}{gone}") from None
        drop_from_cache(self._handle, start, len(view))

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@dataclass(frozen=True)
class Wanted:
    """The arguments of `Source.blocks`."""

    name: str
    start: int
    stop: int | None
    flat: bool


class Source:
    """The tensors of a model folder by name; use as a context manager, it holds files open.

    Attributes:
        folder: where they are.
        tensors: what the headers say, by the names of the files.
    """

    def __init__(self, folder: Path) -> None:
        """Check every header; see `Weights.headers`.

        Raises:
            NotFound, CheckpointError: missing, damaged, incomplete or hostile files; a type MLX does not have.
        """
        self.folder = Path(folder)
        self.tensors: dict[str, TensorInfo] = {}
        self._files: dict[str, Path] = {}
        self._open: dict[Path, RawFile] = {}
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._coming: tuple[Wanted, Future[memoryview]] | None = None
        self._buffers: list[bytearray] = []  # to be used again: fresh memory costs as much as reading does
        headers = find_weights(self.folder).headers()
        for path, header in headers.items():
            check_types(path, header)
            for name, tensor in header.tensors.items():
                self.tensors[name] = tensor
                self._files[name] = path
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors.values())

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._ahead.shutdown(wait=True, cancel_futures=True)
        for file in self._open.values():
            file.close()
        self._open.clear()

    def file_of(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._files[name]

    def rows(self, name: str, start: int = 0, stop: int | None = None, flat: bool = False) -> mx.array:
        """Rows `start` to `stop` (default: all) of a tensor; dtype as in `MLX_DTYPES`.

        Args:
            flat: take all axes but the last for rows: those of all experts, one after the other.
        """
        tensor = self.tensors[name]
        span = _Span.of(tensor, start, stop, flat)
        return as_array(self._raw(name).read(span.first, span.rows * span.row_bytes), tensor, span.shape(span.rows))

    def blocks(
        self, name: str, start: int = 0, stop: int | None = None, flat: bool = False, then: Wanted | None = None
    ) -> Iterator[mx.array]:
        """As `rows`, but about `BLOCK` bytes at a time; the next are read meanwhile.

        Args:
            then: what will be asked for after this, so that reading can go on there.
        """
        tensor = self.tensors[name]
        for block in self.raw_blocks(name, start, stop, flat, then):
            array = _of_type(block, tensor)
            del block
            yield array
            del array

    def raw_blocks(
        self, name: str, start: int = 0, stop: int | None = None, flat: bool = False, then: Wanted | None = None
    ) -> Iterator[np.ndarray]:
        """As `blocks`, but as numpy sees the bytes (bfloat16 as uint16), and not copied.

        What was yielded must not be looked at after the next block was asked for: its memory is used again.
        """
        wanted = Wanted(name, start, stop, flat)
        tensor, span = self.tensors[name], _Span.of(self.tensors[name], start, stop, flat)
        bounds = span.bounds()
        held, self._coming = self._coming, None
        coming = held[1] if held is not None and held[0] == wanted else self._read(name, span, *bounds[0])
        for i, (row, end) in enumerate(bounds):
            data = coming.result()
            if i + 1 < len(bounds):
                coming = self._read(name, span, *bounds[i + 1])
            elif then is not None:
                first = _Span.of(self.tensors[then.name], then.start, then.stop, then.flat)
                self._coming = then, self._read(then.name, first, *first.bounds()[0])
            yield _numpy(data, tensor, span.shape(end - row))
            self._buffers.append(data.obj)  # type: ignore[arg-type]
            del data

    def _read(self, name: str, span: _Span, row: int, end: int) -> Future[memoryview]:
        raw = self._raw(name)

        def read() -> memoryview:
            count = (end - row) * span.row_bytes
            buffer = self._buffers.pop() if self._buffers else bytearray()
            if len(buffer) < count:
                buffer = bytearray(max(count, BLOCK))
            view = memoryview(buffer)[:count]
            raw.read_into(view, span.first + row * span.row_bytes)
            return view

        return self._ahead.submit(read)

    def _raw(self, name: str) -> RawFile:
        path = self._files[name]
        if path not in self._open:
            self._open[path] = RawFile(path)
        return self._open[path]


@dataclass(frozen=True)
class _Span:
    """Some rows of a tensor: where they begin in the file, how many, of how many bytes, and the axes behind them."""

    first: int
    rows: int
    row_bytes: int
    inner: tuple[int, ...] | None

    @classmethod
    def of(cls, tensor: TensorInfo, start: int, stop: int | None, flat: bool) -> _Span:
        if not tensor.shape:
            return cls(tensor.start, 1, tensor.nbytes, None)
        rows, inner = tensor.shape[0], tensor.shape[1:]
        if flat and inner:
            rows, inner = prod(tensor.shape[:-1]), tensor.shape[-1:]
        stop = rows if stop is None else stop
        if not 0 <= start <= stop <= rows:
            raise IndexError(f"rows {start} to {stop} of {tensor.name}, which has {rows}")
        row_bytes = prod(inner) * DTYPE_BITS[tensor.dtype] // 8
        return cls(tensor.start + start * row_bytes, stop - start, row_bytes, inner)

    def bounds(self) -> list[tuple[int, int]]:
        """First and last row of each block; one block even where there is nothing."""
        step = max(1, BLOCK // max(self.row_bytes, 1))
        return [(row, min(row + step, self.rows)) for row in range(0, self.rows, step)] or [(0, 0)]

    def shape(self, rows: int) -> tuple[int, ...]:
        return () if self.inner is None else (rows, *self.inner)


def as_array(data: bytes | memoryview, tensor: TensorInfo, shape: tuple[int, ...]) -> mx.array:
    """Bytes of a safetensors file (little-endian) as an array of the tensor's type."""
    return _of_type(_numpy(data, tensor, shape), tensor)


def _numpy(data: bytes | memoryview, tensor: TensorInfo, shape: tuple[int, ...]) -> np.ndarray:
    kind = _NUMPY_VIEWS.get(tensor.dtype) or np.dtype(str(MLX_DTYPES[tensor.dtype]).removeprefix("mlx.core."))
    return np.frombuffer(data, kind).reshape(shape)


def _of_type(block: np.ndarray, tensor: TensorInfo) -> mx.array:
    array, wanted = mx.array(block), MLX_DTYPES[tensor.dtype]
    return array.view(wanted) if array.dtype != wanted else array


def drop_from_cache(handle: int, start: int, count: int) -> None:
    """Tell the system that these bytes of a file will not be needed again."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(handle, start, count, os.POSIX_FADV_DONTNEED)


def _do_not_cache(handle: int) -> None:
    """The same for a whole file on macOS, which has no advice for a part of one."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_NOCACHE, 1)
