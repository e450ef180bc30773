"""The rounding "mlx": what `mx.quantize` writes, by the fastest way this machine has.

A GPU runs `mx.quantize` itself. On a CPU affine codes come from `minmax.py`, a piece of rows per core at a time, and
the formats with 8-bit scales from `mx.quantize` on one stream per core, because MLX works off the operations of a
stream one after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from qwen_mlx import device
from qwen_mlx.checkpoints.quantizers.minmax import PIECE, TooWide, minmax
from qwen_mlx.checkpoints.quantizers.rounding import cores, workers
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite, finite
from qwen_mlx.models.spec import QuantizationSpec

import mlx.core as mx  # isort: skip

_MLX = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
Parts = tuple[np.ndarray | mx.array, ...]


def quantize(rows: np.ndarray, dtype: str, form: QuantizationSpec) -> Iterator[Parts]:
    """Codes, scales and, in the affine mode, biases of rows, in parts of consecutive rows.

    Args:
        rows: (rows, columns), contiguous; bfloat16 as uint16. Looked at until the last part was taken.
        dtype: "BF16", "F16" or "F32": of the rows, and of what belongs to the codes.

    Raises:
        NotFinite: a weight is NaN or infinite.
    """
    if form.mode == "affine" and device.backend() == "cpu":
        yield _affine(rows, dtype, form)
        return
    check = workers().submit(finite, rows)  # meanwhile
    shares = [_by_mlx(rows[own], dtype, form, stream) for own, stream in _shares(len(rows))]
    mx.eval(shares)
    if not check.result():
        raise NotFinite
    yield from shares


def _affine(rows: np.ndarray, dtype: str, form: QuantizationSpec) -> Parts:
    """All cores fill the same three arrays: a few large writes to the disk are cheaper than many small ones."""
    count, columns = rows.shape
    groups = columns // form.group_size
    parts = (
        np.empty((count, columns * form.bits // 32), np.uint32),
        np.empty((count, groups), rows.dtype),
        np.empty((count, groups), rows.dtype),
    )

    pieces = -(-count * columns // PIECE)
    step = -(-count // pieces)

    def work(first: int) -> None:
        for start in range(first * step, count, hands * step):
            own = slice(start, start + step)
            for part, found in zip(parts, _piece(rows[own], dtype, form)):
                part[own] = found

    hands = min(pieces, cores())
    for _ in workers().map(work, range(hands)):
        pass
    return parts


def _piece(piece: np.ndarray, dtype: str, form: QuantizationSpec) -> Parts:
    try:
        return minmax(piece, dtype, form.bits, form.group_size)
    except TooWide:
        parts = _by_mlx(piece, dtype, form, mx.default_stream(mx.cpu))
        mx.eval(parts)
        found = tuple(np.array(part.view(mx.uint16) if part.dtype == mx.bfloat16 else part) for part in parts)
        del parts
        mx.synchronize()
        mx.clear_streams()  # this thread is not the one that owns MLX
        return found


def _by_mlx(rows: np.ndarray, dtype: str, form: QuantizationSpec, stream: mx.Stream) -> tuple[mx.array, ...]:
    array = mx.array(rows)
    array = array.view(mx.bfloat16, stream=stream) if dtype == "BF16" else array
    return tuple(mx.quantize(array, form.group_size, form.bits, form.mode, stream=stream))


def _shares(rows: int) -> list[tuple[slice, mx.Stream]]:
    """Rows for each core; a GPU has one share."""
    if device.backend() != "cpu":
        return [(slice(0, rows), mx.default_stream(mx.default_device()))]
    streams = _streams()
    step = -(-rows // len(streams))
    return [(slice(i * step, (i + 1) * step), stream) for i, stream in enumerate(streams) if i * step < rows]


_own = threading.local()


def _streams() -> list[mx.Stream]:
    """Streams of this thread, to which they belong; made once."""
    if not hasattr(_own, "streams"):
        _own.streams = [mx.new_stream(mx.cpu) for _ in range(min(cores(), 4))]
    return _own.streams
