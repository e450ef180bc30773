"""What `mx.quantize` makes of weights in the affine mode, to the bit, in numpy: several times faster on a CPU.

The rule is MLX's: a group's scale stretches the codes from its smallest to its largest weight, is moved a little so
that the end of larger magnitude is hit exactly, and codes are rounded to even. MLX's CPU kernel walks through the
weights one after the other. Here a piece of the matrix is laid out so that every operation runs over long rows:

    (parity, eight, group, pair): of group g, weight `8 * eight + 2 * pair + parity`

Eight weights of 16 bits are 16 bytes, and moving those is all it takes to bring the groups side by side; even and odd
weights part when they are widened to float32, where the codes of a pair are put together again with one multiplication.
"""

from __future__ import annotations

import threading

import numpy as np

from qwen_mlx.checkpoints.quantizers.packing import squeeze
from qwen_mlx.checkpoints.quantizers.stored_types import NotFinite, as_stored

# Weights of a piece: its arrays fit a core's cache, and are long enough for what a call of numpy costs.
PIECE = 1 << 18
_EPSILON = np.float32(1e-7)  # the smallest scale before it is moved; MLX's
_own = threading.local()


class TooWide(ValueError):
    """A group whose scale is no number: its ends are too far apart for float32, or too far from zero for MLX's rule."""


class _Buffers:
    """The arrays of a piece, which are used again: fresh memory costs as much as the work that is done in it."""

    def __init__(self, eights: int, groups: int) -> None:
        count = eights * groups
        if not hasattr(_own, "memory") or len(_own.memory[0]) < count:
            size = max(count, PIECE // 8)
            _own.memory = (np.empty(size, np.complex128), np.empty(8 * size, np.float32), np.empty(4 * size, np.uint16))
        gathered, wide, pairs = _own.memory
        self.gathered = gathered[:count].reshape(eights, groups)
        self.wide = wide[: 8 * count].reshape(2, eights, groups, 4)
        self.pairs = pairs[: 4 * count].reshape(eights, groups, 4)


def minmax(weight: np.ndarray, dtype: str, bits: int, group_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and biases of some rows of a matrix, as `mx.quantize` has them.

    Args:
        weight: (rows, columns), contiguous; bfloat16 as uint16, float16 and float32 as such. `columns` is a multiple
            of `group_size`, and the whole best not larger than `PIECE`.
        dtype: "BF16", "F16" or "F32": what `weight` is, and what scales and biases are stored in.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: 32, 64 or 128.

    Returns:
        uint32 (rows, columns * bits / 32); scales and biases (rows, columns / group_size), of bfloat16 as uint16.

    Raises:
        NotFinite: a weight is NaN or infinite.
        TooWide: MLX itself has to be asked about these.
    """
    rows = len(weight)
    eights, groups = group_size // 8, weight.size // group_size
    buffers = _Buffers(eights, groups)
    wide, top = buffers.wide, np.float32((1 << bits) - 1)
    _spread(weight, dtype, buffers)
    flat = wide.reshape(2 * eights, groups * 4)
    high, low = _across(np.maximum, flat), _across(np.minimum, flat)
    with np.errstate(all="ignore"):
        if not np.isfinite(high - high + low - low).all():
            raise NotFinite
        low_end = np.abs(low) > np.abs(high)
        scale = np.maximum((high - low) / top, _EPSILON)
        scale = np.where(low_end, scale, -scale)
        edge = np.where(low_end, low, high)
        code = np.rint(edge / scale)
        moved = code != 0
        scale = np.where(moved, edge / code, scale)
        if not (np.isfinite(scale) & (scale != 0)).all():
            raise TooWide
    bias = np.where(moved, edge, np.float32(0))
    np.subtract(flat, np.repeat(bias, 4), out=flat)
    np.divide(flat, np.repeat(scale, 4), out=flat)
    np.rint(flat, out=flat)
    np.clip(flat, 0, top, out=flat)
    even, odd = wide
    np.multiply(odd, np.float32(1 << bits), out=odd)
    np.add(even, odd, out=even)
    np.copyto(buffers.pairs, even, casting="unsafe")
    words = squeeze(buffers.pairs.view("<u8").reshape(eights, groups), bits, 2)
    packed = np.ascontiguousarray(words.swapaxes(0, 1)).reshape(rows, -1).view("<u4")
    return packed, as_stored(scale, dtype).reshape(rows, -1), as_stored(bias, dtype).reshape(rows, -1)


def _spread(weight: np.ndarray, dtype: str, buffers: _Buffers) -> None:
    """The weights in float32, in the order above."""
    eights, groups = buffers.gathered.shape
    wide = buffers.wide
    if dtype == "F32":
        halves = weight.view(np.complex128).reshape(groups, eights, 2)  # two times four weights
        together = np.ascontiguousarray(halves.swapaxes(0, 1)).view(np.float32).reshape(-1, 2)
        wide[:] = together.T.reshape(wide.shape)
        return
    np.copyto(buffers.gathered, weight.view(np.complex128).reshape(groups, eights).T)
    if dtype == "BF16":
        two = buffers.gathered.view("<u4").reshape(-1)
        even, odd = wide.view("<u4").reshape(2, -1)
        np.left_shift(two, 16, out=even)
        np.bitwise_and(two, 0xFFFF0000, out=odd)
    else:
        wide[:] = buffers.gathered.view(np.float16).reshape(-1, 2).T.reshape(wide.shape)


def _across(choose: np.ufunc, flat: np.ndarray) -> np.ndarray:
    """The largest or smallest of each group, (groups,), out of (.., groups * 4)."""
    first, second, third, fourth = choose.reduce(flat, axis=0).reshape(-1, 4).T
    return choose(choose(first, second), choose(third, fourth))
