"""`silu(gate x) * (up x)` for one token and 4-bit weights, in one launch: dense, or for each of some experts.

Equals, for x (1, columns) and gate and up stacked in one matrix, gate first,

    gate, up = mx.split(mx.quantized_matmul(x, weight, scales, biases, group_size=64, bits=4), 2, axis=-1)
    result = gate * mx.sigmoid(gate) * up

and the same with `mx.gather_qmm` for experts. Products are summed in float32, gate and up are rounded to the type of x,
their product once more.

Reads the weights, 4.5 bits a value, and x; writes one value per pair of rows. Plain MLX writes both halves and reads
them again: saves one launch and `6 rows` bytes. What it must not do is read weights slower than MLX's own matrix-vector
kernel, which has been tuned on devices and this one has not: *experimental*, off unless `QWEN_MLX_KERNELS` names it.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program

_ROWS, _THREADS = 4, 64  # results of a simdgroup, as in the source; two simdgroups

_program = Program(Path(__file__).parent, "swiglu_matvec", ["x", "weight", "scales", "biases", "experts"], ["result"])


def _reference(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array) -> Arrays:
    """Shapes as in `_run`."""
    parts = (weight[experts], scales[experts].astype(mx.float32), biases[experts].astype(mx.float32))
    matrices = mx.dequantize(*parts, group_size=64, bits=4)
    both = (matrices @ x.astype(mx.float32).reshape(-1, 1))[..., 0].astype(x.dtype).astype(mx.float32)
    gate, up = mx.split(both, 2, axis=-1)
    return ((gate * mx.sigmoid(gate) * up).astype(x.dtype),)


def _run(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array) -> Arrays:
    """One token through some experts.

    Args:
        x: (1, columns).
        weight, scales, biases: (experts, 2 rows, ...), packed in groups of 64, 4 bits; dense is one expert.
        experts: (chosen,) uint32.

    Returns:
        (chosen, rows) in the type of x.
    """
    columns, rows, chosen = x.shape[-1], weight.shape[1] // 2, experts.size
    groups = -(-rows // (_ROWS * _THREADS // 32))
    return tuple(
        _program(
            [x, weight, scales, biases, experts],
            output_shapes=[(chosen, rows)],
            output_dtypes=[x.dtype],
            grid=(groups * _THREADS, chosen, 1),
            threadgroup=(_THREADS, 1, 1),
            template=[("T", x.dtype), ("K", columns), ("N", rows)],
        )
    )


def _eligible(x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array) -> bool:
    columns = x.shape[-1]
    return (
        x.shape == (1, columns)
        and x.dtype in DTYPE_NAMES
        and x.dtype == scales.dtype == biases.dtype
        and columns % 64 == 0
        and weight.ndim == 3
        and weight.shape[1] % 2 == 0
        and weight.shape[2] * 8 == columns
        and scales.shape == biases.shape == (*weight.shape[:2], columns // 64)
        and experts.ndim == 1
        and experts.size > 0
    )


def _configuration(x: mx.array, weight: mx.array, *_: mx.array) -> tuple[Hashable, ...]:
    return DTYPE_NAMES[x.dtype], x.shape[-1], weight.shape[1] // 2


def _example(configuration: Any) -> tuple[Arrays, dict[str, Any]]:
    name, columns, rows = configuration
    dtype = getattr(mx, name)
    keys = mx.random.split(mx.random.key(columns), 2)
    x = mx.random.normal((1, columns), key=keys[0]).astype(dtype)
    matrices = (mx.random.normal((2, 2 * rows, columns), key=keys[1]) / columns**0.5).astype(dtype)
    return (x, *mx.quantize(matrices, group_size=64, bits=4), mx.array([1, 0], mx.uint32)), {}


kernel = Kernel(
    name="swiglu_matvec",
    equals="mx.gather_qmm with gate and up stacked, and silu(gate) * up",
    programs=[_program],
    run=_run,
    reference=_reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
    experimental=True,
)
