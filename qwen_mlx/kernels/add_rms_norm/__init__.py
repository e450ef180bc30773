"""Residual addition and the RMSNorm that follows it, in one launch.

Equals `s = x + y; mx.fast.rms_norm(s, weight, eps).astype(s.dtype)` and gives `(s, normed)`. The sum is rounded to the
type of `x` before it is squared, the squares are summed in float32 in the order of MLX's own kernel, and the product
with the weight is rounded as there: once for a weight of the type of `x`, and in float32, with one rounding at the end,
for the float32 weights of zero-centred families.

Reads x, y and the weight, writes two results: `(4 rows + 1) size` values. Plain MLX writes the sum and reads it again,
and for a float32 weight it also writes and reads the row twice in float32. Saves one launch, or three where the weight
is float32; there are two such places in a layer.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program

_MOST_THREADS = 512
_LARGEST = 16384  # values per row; every thread keeps its part of the row in registers

_program = Program(Path(__file__).parent, "add_rms_norm", ["x", "y", "weight", "eps"], ["total", "normed"])


def add_rms_norm(x: mx.array, y: mx.array, weight: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """`x + y` and its RMSNorm.

    Args:
        x, y: (..., size), of one type.
        weight: (size,), of that type or float32.
        eps: added to the mean of the squares.

    Returns:
        The sum and the normalised sum, both of the shape and type of `x`.
    """
    total, normed = kernel(x, y, weight, eps=eps)
    return total, normed


def _reference(x: mx.array, y: mx.array, weight: mx.array, *, eps: float) -> Arrays:
    total = x + y
    return total, mx.fast.rms_norm(total, weight, eps).astype(total.dtype)


def _run(x: mx.array, y: mx.array, weight: mx.array, *, eps: float) -> Arrays:
    size = x.shape[-1]
    threads = min(_MOST_THREADS, 32 * -(-size // 128))
    total, normed = _program(
        [x, y, weight, float(eps)],
        output_shapes=[x.shape, x.shape],
        output_dtypes=[x.dtype, x.dtype],
        grid=(threads, x.size // size, 1),
        threadgroup=(threads, 1, 1),
        template=[("T", x.dtype), ("W", weight.dtype), ("SIZE", size), ("THREADS", threads)],
    )
    return total, normed


def _eligible(x: mx.array, y: mx.array, weight: mx.array, *, eps: float) -> bool:
    return (
        x.dtype in DTYPE_NAMES
        and x.dtype == y.dtype
        and x.shape == y.shape
        and x.size > 0
        and weight.shape == x.shape[-1:]
        and weight.dtype in (x.dtype, mx.float32)
        and x.shape[-1] <= _LARGEST
    )


def _configuration(x: mx.array, y: mx.array, weight: mx.array, *, eps: float) -> tuple[Hashable, ...]:
    return DTYPE_NAMES[x.dtype], DTYPE_NAMES[weight.dtype], x.shape[-1]


def _example(configuration: Any) -> tuple[Arrays, dict[str, Any]]:
    dtype, weight_dtype, size = configuration
    keys = mx.random.split(mx.random.key(size), 3)
    x = mx.random.normal((2, size), key=keys[0]).astype(getattr(mx, dtype))
    y = mx.random.normal((2, size), key=keys[1]).astype(getattr(mx, dtype))
    weight = mx.random.uniform(0.5, 1.5, (size,), key=keys[2]).astype(getattr(mx, weight_dtype))
    return (x, y, weight), {"eps": 1e-6}


kernel = Kernel(
    name="add_rms_norm",
    equals="s = x + y; mx.fast.rms_norm(s, weight, eps)",
    programs=[_program],
    run=_run,
    reference=_reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
)
