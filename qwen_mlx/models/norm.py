"""RMSNorm, plain and zero-centred."""

from __future__ import annotations

import functools

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx import device
from qwen_mlx.kernels.launch import scalar

# Up to this many elements the time of a norm on a CPU is that of starting its operations, not of computing.
_FEW = 1 << 14


class RMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x^2) + eps) * weight`, with the mean in float32; gives the type of `x`.

    Zero-centred families store `weight - 1`. The one is added when the weight is loaded, and the sum kept in
    float32: in bfloat16 it would lose bits, and the product is taken before the cast in the reference too.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., size) -> the same shape and type."""
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis, with the mean in float32; gives the type of `x`.

    Args:
        x: (..., size).
        weight: (size,), or of any shape that multiplies `x`; None for ones.
    """
    if x.dtype == mx.float32 and x.size <= _FEW and x.ndim > 1 and device.backend() == "cpu":
        return _in_few_operations(x, weight, eps)
    if weight is not None and weight.ndim > 1:
        return (mx.fast.rms_norm(x, None, eps) * weight).astype(x.dtype)
    return mx.fast.rms_norm(x, weight, eps).astype(x.dtype)


def _in_few_operations(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    """MLX's CPU build makes eleven operations of a norm; the sum of squares as a product of matrices needs seven."""
    size = x.shape[-1]
    if x.shape[-2] == 1:
        mean = mx.addmm(scalar(eps), x, x.swapaxes(-1, -2), alpha=1 / size)
    else:
        mean = mx.addmm(scalar(eps), x * x, _averaging(size))
    return (x if weight is None else x * weight) * mx.rsqrt(mean)


@functools.lru_cache(maxsize=64)
def _averaging(size: int) -> mx.array:
    """A column that makes the mean of what it is multiplied with."""
    column = mx.full((size, 1), 1 / size)
    mx.eval(column)  # so that any thread may use it
    return column
