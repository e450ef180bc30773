"""The last matrices of the chosen experts and their weighted sum, for one token and 4-bit weights, in one launch.

Equals, for x (chosen, columns) and shares (chosen,),

    y = mx.gather_qmm(x[:, None], weight, scales, biases, rhs_indices=experts, group_size=64, bits=4)[:, 0]
    result = (y * shares[:, None]).sum(axis=0)

Products are summed in float32 and rounded to the type of x for each expert; their weighted sum is taken in float32, in
the order of the experts, and rounded once.

Reads the weights, 4.5 bits a value, x and shares; writes one row. Plain MLX writes a row for each expert, twice, and
reads both: saves two launches and `8 chosen rows` bytes. MLX's own kernel has a fast form for columns in multiples of
512 only, and the experts of Qwen3-30B-A3B have 768. Whether this one reads faster nobody has measured: *experimental*,
off unless `QWEN_MLX_KERNELS` names it.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import mlx.core as mx

from qwen_mlx.kernels.kernel import DTYPE_NAMES, Arrays, Kernel
from qwen_mlx.kernels.launch import Program

_ROWS, _THREADS = 4, 64  # results of a simdgroup, as in the source; two simdgroups

_program = Program(
    Path(__file__).parent, "expert_down", ["x", "weight", "scales", "biases", "experts", "shares"], ["result"]
)


def _reference(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array, shares: mx.array
) -> Arrays:
    """Shapes as in `_run`."""
    parts = (weight[experts], scales[experts].astype(mx.float32), biases[experts].astype(mx.float32))
    matrices = mx.dequantize(*parts, group_size=64, bits=4)
    each = (matrices @ x.astype(mx.float32)[..., None])[..., 0].astype(x.dtype).astype(mx.float32)
    return ((each * shares.astype(mx.float32)[:, None]).sum(axis=0, keepdims=True).astype(x.dtype),)


def _run(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array, shares: mx.array
) -> Arrays:
    """One token through the last matrices of its experts.

    Args:
        x: (chosen, columns).
        weight, scales, biases: (experts, rows, ...), packed in groups of 64 with 4 bits.
        experts: (chosen,) uint32.
        shares: (chosen,), in the type of x.

    Returns:
        (1, rows) in the type of x.
    """
    chosen, columns = x.shape
    rows = weight.shape[1]
    groups = -(-rows // (_ROWS * _THREADS // 32))
    return tuple(
        _program(
            [x, weight, scales, biases, experts, shares],
            output_shapes=[(1, rows)],
            output_dtypes=[x.dtype],
            grid=(groups * _THREADS, 1, 1),
            threadgroup=(_THREADS, 1, 1),
            template=[("T", x.dtype), ("K", columns), ("N", rows), ("CHOSEN", chosen)],
        )
    )


def _eligible(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array, experts: mx.array, shares: mx.array
) -> bool:
    columns = x.shape[-1]
    return (
        x.ndim == 2
        and x.dtype in DTYPE_NAMES
        and x.dtype == scales.dtype == biases.dtype == shares.dtype
        and columns % 64 == 0
        and weight.ndim == 3
        and weight.shape[2] * 8 == columns
        and scales.shape == biases.shape == (*weight.shape[:2], columns // 64)
        and 0 < x.shape[0] <= 16
        and experts.shape == shares.shape == x.shape[:1]
    )


def _configuration(x: mx.array, weight: mx.array, *_: mx.array) -> tuple[Hashable, ...]:
    return DTYPE_NAMES[x.dtype], x.shape[-1], weight.shape[1], x.shape[0]


def _example(configuration: Any) -> tuple[Arrays, dict[str, Any]]:
    name, columns, rows, chosen = configuration
    dtype = getattr(mx, name)
    keys = mx.random.split(mx.random.key(columns), 3)
    x = mx.random.normal((chosen, columns), key=keys[0]).astype(dtype)
    matrices = (mx.random.normal((chosen + 1, rows, columns), key=keys[1]) / columns**0.5).astype(dtype)
    experts = mx.arange(chosen, 0, -1).astype(mx.uint32)
    shares = mx.random.uniform(0.1, 0.5, (chosen,), key=keys[2]).astype(dtype)
    return (x, *mx.quantize(matrices, group_size=64, bits=4), experts, shares), {}


kernel = Kernel(
    name="expert_down",
    equals="mx.gather_qmm, times the shares of the experts, summed over the experts",
    programs=[_program],
    run=_run,
    reference=_reference,
    eligible=_eligible,
    configuration=_configuration,
    example=_example,
    experimental=True,
)
