"""Which codes, scales and biases stand for a group of weights in MLX's affine format: `w = scale * code + bias`.

`mx.quantize` stretches the codes from the smallest to the largest weight of a group, chooses them, and rounds scale and
bias to the stored type afterwards, when it is too late for the codes. `search` does better in the same format:

1. Narrower ranges are tried too: what is lost at the ends of a group is gained in between. For the codes of each, the
   scale and bias of least squares are computed.
2. The best of them is rounded to the stored type, and the codes are chosen again for what the reader will multiply.
3. Scale and bias, and codes, are improved in turns, and a turn that does not help a group is not taken.

Errors are squared and summed, over columns that count by their `importance` if there is one: the mean square of what
the column is multiplied with, so that the sum is the expected squared error of the output (correlations left out).

It works in numpy on all cores, on pieces that stay near a core, in which every group is a column: what is done to the
weights then runs over long rows, and sums over groups are made one row after the other, which gives the same numbers on
every machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qwen_mlx.checkpoints.quantizers.packing import pack_columns
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite, as_stored, rounded, widen

# Weights of a piece: some arrays of float32 that stay in a cache, and are long enough for what a call of numpy costs.
_PIECE = 1 << 18
# Ranges that are tried, as parts of the whole one, by bits. Found by trying on normal and t5 distributed weights: more
# of them lower the error by less than a hundredth.
_RANGES = {
    2: (1.0, 0.88, 0.76, 0.64),
    3: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75),
    4: (1.0, 0.97, 0.94, 0.91, 0.88, 0.85),
    5: (1.0, 0.98, 0.96, 0.94, 0.92, 0.9),
    6: (1.0, 0.99, 0.98, 0.97, 0.96),
    8: (1.0,),
}
_TURNS = {2: 3, 3: 3, 4: 3, 5: 2, 6: 2, 8: 2}
# Columns without input get this share of the mean, so that their weights are not rounded at random.
_FLOOR = 1e-3
# The smallest scale of each stored type that has an inverse.
_SMALLEST = {"BF16": 1e-30, "F16": 6e-8, "F32": 1e-30}


@dataclass(frozen=True)
class Packed:
    """Rows of a matrix in the affine format, as numpy arrays; scales and biases of bfloat16 are seen as uint16.

    Attributes:
        weight: uint32 (rows, columns * bits / 32).
        scales, biases: (rows, columns / group_size).
        error: the sum over all weights of the squared error, each times its importance.
        power: the same of the weights themselves.
    """

    weight: np.ndarray
    scales: np.ndarray
    biases: np.ndarray
    error: float
    power: float


def search(weight: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None = None) -> Packed:
    """The codes, scales and biases of least squared error that are found for rows of a matrix.

    Args:
        weight: (rows, columns), finite; float32, float16, or bfloat16 as uint16; columns is a multiple of `group_size`.
        bits: 2, 3, 4, 5, 6 or 8.
        dtype: of scales and biases: "BF16", "F16" or "F32".
        importance: (columns,), positive; None for all alike.

    Raises:
        NotFinite: a weight is NaN or infinite.
    """
    rows, columns = weight.shape
    pieces = -(-rows * columns // _PIECE)
    step = -(-rows // pieces) if pieces else 1

    def one(row: int) -> Packed:
        return search_piece(weight[row : row + step], bits, group_size, dtype, importance)

    starts = range(0, rows, step)
    if min(len(starts), cores()) < 2:
        return join([one(row) for row in starts])
    return join(list(workers().map(one, starts)))


def as_importance(mean_squares: np.ndarray) -> np.ndarray:
    """The mean square of what each column is multiplied with, (columns,), as `search` can use it: none is zero."""
    level = float(mean_squares.mean())
    if level <= 0:
        return np.ones(mean_squares.shape, np.float32)
    return np.maximum(mean_squares, _FLOOR * level).astype(np.float32)


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))  # type: ignore[attr-defined,unused-ignore]  # not on macOS
    except AttributeError:
        return os.cpu_count() or 1


@lru_cache(maxsize=1)
def workers() -> ThreadPoolExecutor:
    """A thread per core; none of them keeps anything but buffers."""
    return ThreadPoolExecutor(cores(), thread_name_prefix="quantize")


def join(parts: Sequence[Packed]) -> Packed:
    """Rows, one below the other."""
    if len(parts) == 1:
        return parts[0]
    weight, scales, biases = (np.concatenate([getattr(p, f) for p in parts]) for f in ("weight", "scales", "biases"))
    return Packed(weight, scales, biases, sum(p.error for p in parts), sum(p.power for p in parts))


def search_piece(x: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None) -> Packed:
    """`search` in this thread alone."""
    rows = len(x)
    group = _Groups(x, bits, group_size, dtype, importance)
    middle, half = group.range()
    best_gain = scale = bias = None
    for part in _RANGES[bits]:
        s = np.maximum(half * np.float32(2 * part / group.top), group.smallest)
        gain, s, b = group.fit(group.codes(s, middle - half * np.float32(part)), s)
        if best_gain is None or scale is None or bias is None:
            best_gain, scale, bias = gain, s, b
        else:
            better = gain > best_gain
            best_gain, scale, bias = (np.where(better, a, c) for a, c in ((gain, best_gain), (s, scale), (b, bias)))
    assert scale is not None and bias is not None
    scale, bias = group.stored(scale), rounded(bias, dtype)
    codes = group.codes(scale, bias)
    error = group.error(codes, scale, bias)
    for _ in range(_TURNS[bits]):
        # Where the last turn did not help, these are the codes of a scale that was not taken: one more to try.
        _, s, b = group.fit(codes, scale, refit_bias=True)
        codes = group.codes(s, b)
        e = group.error(codes, s, b)
        better = e < error
        error, scale, bias = (np.where(better, a, c) for a, c in ((e, error), (s, scale), (b, bias)))
    return Packed(
        pack_columns(group.codes(scale, bias), bits).reshape(rows, -1),
        as_stored(scale, dtype).reshape(rows, -1),
        as_stored(bias, dtype).reshape(rows, -1),
        float(error.sum(dtype=np.float64)),
        group.power(),
    )


class _Groups:
    """The groups of some rows, each a column of an array (group_size, groups), and buffers that are used again.

    What there is one of for each group is an array (groups,).
    """

    def __init__(self, x: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None) -> None:
        self.x, self._codes, self._other = _buffers(group_size, x.size // group_size)
        widen(x, self._codes.reshape(x.shape))
        np.copyto(self.x, self._codes.reshape(-1, group_size).T)
        self.top = (1 << bits) - 1
        self.dtype, self.smallest = dtype, np.float32(_SMALLEST[dtype])
        self._h: np.ndarray | None = None
        if importance is not None:
            h = np.asarray(importance, np.float32).reshape(-1, group_size)
            h = h / np.maximum(h.mean(axis=1, keepdims=True), np.float32(1e-30))  # so that no sum can overflow
            self._h = np.tile(h.T, (1, len(x)))
            self._level = np.tile(importance.reshape(-1, group_size).mean(axis=1), len(x))
        self._sum_h = np.float32(group_size) if self._h is None else _sum(self._h)
        self._sum_x = _sum(self.x) if self._h is None else self._dot(self._h, self.x)

    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle and half of the range of each group. Raises `NotFinite`."""
        high, low = self.x.max(axis=0), self.x.min(axis=0)
        if not (np.isfinite(high) & np.isfinite(low)).all():
            raise NotFinite
        return high * np.float32(0.5) + low * np.float32(0.5), high * np.float32(0.5) - low * np.float32(0.5)

    def codes(self, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The nearest codes, as floats. The array is a buffer: the next call overwrites it."""
        q = self._codes
        np.subtract(self.x, bias, out=q)
        np.multiply(q, 1 / scale, out=q)
        np.rint(q, out=q)
        np.clip(q, 0, self.top, out=q)
        return q

    def fit(
        self, q: np.ndarray, before: np.ndarray, refit_bias: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scale and bias of least squares for these codes.

        Args:
            before: scales to keep where all codes of a group are the same, or run backwards.
            refit_bias: round the scale to the stored type first, choose the bias for that, and round it too.

        Returns:
            How much of the weights' variance they explain, scales and biases.
        """
        if self._h is None:
            sum_q, sum_qq, sum_xq = _sum(q), self._dot(q, q), self._dot(q, self.x)
        else:
            hq = np.multiply(q, self._h)
            sum_q, sum_qq, sum_xq = _sum(hq), self._dot(hq, q), self._dot(hq, self.x)
        variance = np.maximum(sum_qq - sum_q * sum_q / self._sum_h, np.float32(1e-9))
        covariance = sum_xq - self._sum_x * sum_q / self._sum_h
        scale = np.where(covariance > 0, covariance / variance, before)
        if refit_bias:
            scale = self.stored(scale)
        bias = (self._sum_x - scale * sum_q) / self._sum_h
        return covariance * covariance / variance, scale, rounded(bias, self.dtype) if refit_bias else bias

    def stored(self, scale: np.ndarray) -> np.ndarray:
        """Scales as they will be read; none is zero."""
        return rounded(np.maximum(scale, self.smallest), self.dtype)

    def error(self, q: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The squared error of each group."""
        d = np.multiply(q, scale, out=self._other)
        np.add(d, bias, out=d)
        np.subtract(d, self.x, out=d)
        np.multiply(d, d, out=d)
        return _sum(d) if self._h is None else self._dot(d, self._h) * self._level

    def power(self) -> float:
        """The squared weights, each times its importance."""
        square = self._dot(self.x, self.x)
        if self._h is not None:
            np.multiply(self.x, self.x, out=self._codes)
            square = self._dot(self._codes, self._h) * self._level
        return float(square.sum(dtype=np.float64))

    def _dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _sum(np.multiply(a, b, out=self._other))


def _sum(x: np.ndarray) -> np.ndarray:
    return np.add.reduce(x, axis=0)


_own = threading.local()


def _buffers(group_size: int, groups: int) -> list[np.ndarray]:
    """Three arrays (group_size, groups) of this thread, which are used again: fresh memory costs as much as work."""
    count = group_size * groups
    if not hasattr(_own, "memory") or _own.memory.shape[1] < count:
        _own.memory = np.empty((3, max(count, _PIECE)), np.float32)
    return [part[:count].reshape(group_size, groups) for part in _own.memory]
