"""Elementwise functions in the form that is fastest on the backend.

MLX's CPU build computes exponentials one by one, at a hundred times the cost of a multiplication, which it does many
at a time. So on a CPU large arrays get theirs from multiplications and additions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import mlx.core as mx

from qwen_mlx import device

# Below this many elements, starting twenty operations costs more than they save.
_WORTH_IT = 1 << 14
# Up to here one slower operation is faster than four.
_FEW = 1 << 11
# Twenty passes over an array are cheap while it stays in the cache of the processor.
_CACHED = 1 << 18
_LOG2_E = 1.4426950408889634
# ln 2 in two parts: a multiple of the first by a whole number is exact in float32.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Added and taken off again, it rounds to a whole number, which is then in the low bits of the sum.
_ROUND = 12582912.0  # 1.5 * 2^23
_LOWEST, _HIGHEST = -86.0, 88.0  # 2^-124 and 2^127
# exp(r) / r^2 - 1 / r^2 - 1 / r on |r| <= ln(2) / 2, highest power first (Cephes, expf.c)
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def exp(x: mx.array) -> mx.array:
    """`e ** x`, elementwise; on a CPU, for large float32 arrays, within two units in the last place.

    There, results are kept between 1e-37 and 2e38 where they would be smaller, zero or infinite.
    """
    if x.dtype != mx.float32 or x.size < _WORTH_IT or device.backend() != "cpu":
        return mx.exp(x)
    y: mx.array = _exp_of_many(x)  # type: ignore[assignment]
    return y


@mx.custom_function
def _exp_of_many(x: mx.array) -> mx.array:
    if x.size <= 2 * _CACHED:
        return _exp_of_some(x)
    pieces: list[mx.array] = []
    for piece in mx.split(x.flatten(), range(_CACHED, x.size, _CACHED)):
        after = mx.depends(piece, pieces[-1]) if pieces else piece  # one after the other, not step by step
        pieces.append(_exp_of_some(after))
    return mx.concatenate(pieces).reshape(x.shape)


def _exp_of_some(x: mx.array) -> mx.array:
    """`x = n ln 2 + r`: a polynomial gives exp(r), and n is added to its exponent, bit by bit."""
    x = mx.clip(x, _LOWEST, _HIGHEST)
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    first, *rest = _POLYNOMIAL
    p = r * first
    for coefficient in rest[:-1]:
        p = (p + coefficient) * r
    p = (p + rest[-1]) * (r * r) + r + 1
    exponent = mx.view(shifted, mx.int32) << 23
    return mx.view(mx.view(p, mx.int32) + exponent, mx.float32)


@_exp_of_many.vjp
def _(primals: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output


def sigmoid(x: mx.array) -> mx.array:
    """`1 / (1 + exp(-x))`, elementwise."""
    return mx.sigmoid(x) if _one_operation(x) else 1 / (1 + exp(-x))


def silu(x: mx.array) -> mx.array:
    """`x * sigmoid(x)`, elementwise."""
    return x * mx.sigmoid(x) if _one_operation(x) else x / (1 + exp(-x))


def _one_operation(x: mx.array) -> bool:
    """Whether `mx.sigmoid` is the faster one; on a CPU an element of it costs one and a half exponentials."""
    return x.size <= _FEW or device.backend() != "cpu"


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """`silu(gate) * up`, elementwise."""
    return _swiglu()(gate, up)


@functools.lru_cache(maxsize=1)
def _swiglu() -> Callable[[mx.array, mx.array], mx.array]:
    """On a GPU it is fused into one kernel; on a CPU that would need a compiler at run time."""
    if device.backend() == "cpu":
        return lambda gate, up: silu(gate) * up
    return mx.compile(lambda gate, up: gate * mx.sigmoid(gate) * up, shapeless=True)
