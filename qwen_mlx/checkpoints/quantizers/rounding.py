"""Which codes, scales and biases stand for a group of weights in MLX's affine format: `w = scale * code + bias`.

`mx.quantize` stretches the codes from the smallest to the largest weight of a group, chooses them, and rounds scale and
bias to the stored type afterwards, when it is too late for the codes. `search` does better in the same format:

1. Narrower ranges are tried too: what is lost at the ends of a group is gained in between. For the codes of each, the
   scale and bias of least squares are computed.
2. The best of them is rounded to the stored type, and the codes are chosen again for what the reader will multiply.
3. Scale and bias, and codes, are improved in turns, and a turn that does not help a group is not taken.

Errors are squared and summed, over columns that count by their `importance` if there is one: the mean square of what
the column is multiplied with, so that the sum is the expected squared error of the output (correlations left out).

It is elementwise and bound by memory, so it works on pieces that stay in the cache of a core, in numpy, on all cores,
and gives the same numbers on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from qwen_mlx.checkpoints.quantizers.packing import pack

# Weights of a piece: some arrays of float32 that together fit a core's cache.
_PIECE = 1 << 17
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
# The smallest scale of each stored type that has an inverse.
_SMALLEST = {"BF16": 1e-30, "F16": 6e-8, "F32": 1e-30}


@dataclass(frozen=True)
class Packed:
    """Rows of a matrix in the affine format, as numpy arrays; scales and biases of bfloat16 are seen as uint16.

    Attributes:
        weight: uint32 (rows, columns * bits / 32).
        scales, biases: (rows, columns / group_size).
        error: the sum over all weights of the squared error, each times its importance.
    """

    weight: np.ndarray
    scales: np.ndarray
    biases: np.ndarray
    error: float


def search(weight: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None = None) -> Packed:
    """The codes, scales and biases of least squared error that are found for rows of a matrix.

    Args:
        weight: float32 (rows, columns), finite; columns is a multiple of `group_size`.
        bits: 2, 3, 4, 5, 6 or 8.
        dtype: of scales and biases: "BF16", "F16" or "F32".
        importance: (columns,), positive; None for all alike.
    """
    rows, columns = weight.shape
    step = max(1, _PIECE // columns)
    pieces = [weight[row : row + step] for row in range(0, rows, step)]

    def one(piece: np.ndarray) -> Packed:
        return _search(np.ascontiguousarray(piece, np.float32), bits, group_size, dtype, importance)

    workers = min(len(pieces), cores())
    if workers < 2:
        done = [one(piece) for piece in pieces]
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="quantize") as pool:
            done = list(pool.map(one, pieces))
    return _join(done)


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))  # type: ignore[attr-defined,unused-ignore]  # not on macOS
    except AttributeError:
        return os.cpu_count() or 1


def _join(parts: Sequence[Packed]) -> Packed:
    if len(parts) == 1:
        return parts[0]
    weight, scales, biases = (np.concatenate([getattr(p, f) for p in parts]) for f in ("weight", "scales", "biases"))
    return Packed(weight, scales, biases, sum(p.error for p in parts))


def _search(x: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None) -> Packed:
    rows, columns = x.shape
    group = _Groups(x, bits, group_size, dtype, importance)
    middle, half = group.range()
    best_gain = scale = bias = None
    for part in _RANGES[bits]:
        s = np.maximum(half * (2 * part / group.top), group.smallest)
        gain, s, b = group.fit(group.codes(s, middle - half * np.float32(part)), s)
        if best_gain is None or scale is None or bias is None:
            best_gain, scale, bias = gain, s, b
        else:
            better = gain > best_gain
            best_gain, scale, bias = (np.where(better, a, c) for a, c in ((gain, best_gain), (s, scale), (b, bias)))
    assert scale is not None and bias is not None
    scale, bias = group.stored(scale), _round(bias, dtype)
    error = group.error(group.codes(scale, bias), scale, bias)
    for _ in range(_TURNS[bits]):
        _, s, b = group.fit(group.codes(scale, bias), scale, refit_bias=True)
        e = group.error(group.codes(s, b), s, b)
        better = e < error
        error, scale, bias = (np.where(better, a, c) for a, c in ((e, error), (s, scale), (b, bias)))
    codes = group.codes(scale, bias).astype(np.uint8).reshape(rows, columns)
    return Packed(
        pack(codes, bits),
        _as_stored(scale, dtype).reshape(rows, -1),
        _as_stored(bias, dtype).reshape(rows, -1),
        float(error.sum(dtype=np.float64)),
    )


class _Groups:
    """The groups of some rows, one per row of an array (groups, group_size), and buffers that are used again."""

    def __init__(self, x: np.ndarray, bits: int, group_size: int, dtype: str, importance: np.ndarray | None) -> None:
        self.x = x.reshape(-1, group_size)
        self.top = (1 << bits) - 1
        self.dtype, self.smallest = dtype, np.float32(_SMALLEST[dtype])
        self._codes, self._other = np.empty_like(self.x), np.empty_like(self.x)
        self._h: np.ndarray | None = None
        if importance is not None:
            h = np.asarray(importance, np.float32).reshape(-1, group_size)
            h = h / np.maximum(h.mean(axis=1, keepdims=True), np.float32(1e-30))  # so that no sum can overflow
            self._h = np.ascontiguousarray(np.tile(h, (x.shape[0], 1)))
            self._hx = self._h * self.x
            self._level = np.tile(importance.reshape(-1, group_size).mean(axis=1, keepdims=True), (x.shape[0], 1))
        self._sum_h = _sum(self._h) if self._h is not None else np.float32(group_size)
        self._sum_x = _sum(self.x if self._h is None else self._hx)

    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle and half of the range of each group, (groups, 1)."""
        high, low = self.x.max(axis=1, keepdims=True), self.x.min(axis=1, keepdims=True)
        return (high + low) * np.float32(0.5), (high - low) * np.float32(0.5)

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
            How much of the weights' variance they explain, scales and biases, all (groups, 1).
        """
        hq = q if self._h is None else np.multiply(q, self._h, out=self._other)
        sum_q = _sum(hq)
        sum_qq, sum_xq = _dot(hq, q), _dot(hq, self.x)
        variance = np.maximum(sum_qq - sum_q * sum_q / self._sum_h, np.float32(1e-9))
        covariance = sum_xq - self._sum_x * sum_q / self._sum_h
        scale = np.where(covariance > 0, covariance / variance, before)
        if refit_bias:
            scale = self.stored(scale)
        bias = (self._sum_x - scale * sum_q) / self._sum_h
        return covariance * covariance / variance, scale, _round(bias, self.dtype) if refit_bias else bias

    def stored(self, scale: np.ndarray) -> np.ndarray:
        """Scales as they will be read; none is zero."""
        return _round(np.maximum(scale, self.smallest), self.dtype)

    def error(self, q: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The squared error of each group, (groups, 1)."""
        d = np.multiply(q, scale, out=self._other)
        np.add(d, bias, out=d)
        np.subtract(d, self.x, out=d)
        if self._h is None:
            return _dot(d, d)
        np.multiply(d, d, out=d)
        return _dot(d, self._h) * self._level


def _sum(x: np.ndarray) -> np.ndarray:
    return np.einsum("ij->i", x)[:, None]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)[:, None]


# -------------------------------------------------------------------------------------------- stored types


def _bfloat16_bits(x: np.ndarray) -> np.ndarray:
    """float32 -> the upper 16 bits of the nearest bfloat16, ties to even; not for NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def _round(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as the stored type will give it back."""
    if dtype == "BF16":
        return (_bfloat16_bits(x).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float16).astype(np.float32) if dtype == "F16" else np.asarray(x, np.float32)


def _as_stored(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return _bfloat16_bits(x)
    return x.astype(np.float16 if dtype == "F16" else np.float32)
