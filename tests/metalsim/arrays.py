"""Arrays of MLX and numpy, in and out.

A kernel's buffer is the memory of a numpy array. bfloat16, which numpy does not have, is kept as uint16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

# MLX type -> (its name in generated Metal text, numpy type that stores it)
_TYPES: dict[mx.Dtype, tuple[str, Any]] = {
    mx.bool_: ("bool", np.bool_),
    mx.uint8: ("uint8_t", np.uint8),
    mx.uint16: ("uint16_t", np.uint16),
    mx.uint32: ("uint32_t", np.uint32),
    mx.uint64: ("uint64_t", np.uint64),
    mx.int8: ("int8_t", np.int8),
    mx.int16: ("int16_t", np.int16),
    mx.int32: ("int32_t", np.int32),
    mx.int64: ("int64_t", np.int64),
    mx.float16: ("float16_t", np.float16),
    mx.float32: ("float", np.float32),
    mx.bfloat16: ("bfloat16_t", np.uint16),
    mx.complex64: ("complex64_t", np.complex64),
}


def metal_type(dtype: mx.Dtype) -> str:
    """What generated Metal text calls an MLX type.

    Raises:
        ValueError: Metal has no such type (float64).
    """
    if dtype not in _TYPES:
        raise ValueError(f"{dtype} does not exist in Metal")
    return _TYPES[dtype][0]


@dataclass(frozen=True)
class Operand:
    """An input: its elements in storage form, with the strides that the kernel is told."""

    array: np.ndarray
    dtype: mx.Dtype

    @property
    def type(self) -> str:
        return metal_type(self.dtype)

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        return tuple(stride // self.array.itemsize for stride in self.array.strides)

    def memory(self) -> np.ndarray:
        """The elements that the strides reach, one after the other from the first."""
        if self.array.flags.c_contiguous:
            return self.array
        if any(stride < 0 for stride in self.strides):
            raise ValueError("an input with a negative stride: its first element is not the first in memory")
        reach = sum((length - 1) * stride for length, stride in zip(self.array.shape, self.strides))
        size = reach + 1 if self.array.size else 0
        return np.lib.stride_tricks.as_strided(self.array, (size,), (self.array.itemsize,))


def operand(value: Any, contiguous: bool) -> Operand:
    """An argument of a call as MLX takes it: a bool, int or float becomes a 0-d array.

    Args:
        value: a number, an MLX array (evaluated here) or a numpy array.
        contiguous: copy it if it is not row-contiguous, as `ensure_row_contiguous` does.
    """
    array = value if isinstance(value, mx.array) else mx.array(value)
    dtype = array.dtype
    if dtype not in _TYPES:
        raise ValueError(f"{dtype} does not exist in Metal")
    if isinstance(value, np.ndarray) and not contiguous:
        stored = value  # MLX would have copied it
    else:
        stored = np.array(array.view(mx.uint16) if dtype == mx.bfloat16 else array, copy=False)
    if contiguous and not stored.flags.c_contiguous:
        stored = np.ascontiguousarray(stored).reshape(stored.shape)
    return Operand(stored, dtype)


def empty(shape: Any, dtype: mx.Dtype) -> np.ndarray:
    """Memory for an output, all bits set: NaN, or -1."""
    metal_type(dtype)
    array = np.empty(shape, _TYPES[dtype][1])
    array.reshape(-1).view(np.uint8).fill(1 if dtype == mx.bool_ else 0xFF)
    return array


def full(shape: Any, value: Any, dtype: mx.Dtype) -> np.ndarray:
    """Memory for an output that begins as `value`."""
    return np.array(operand(mx.full(tuple(shape), value, dtype), contiguous=True).array)


def result(array: np.ndarray, dtype: mx.Dtype) -> mx.array:
    """The MLX array of an output."""
    made = mx.array(array)
    return made.view(mx.bfloat16) if dtype == mx.bfloat16 else made
