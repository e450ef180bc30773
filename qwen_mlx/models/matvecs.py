"""One token through 4-bit matrices by the experimental kernels `swiglu_matvec` and `expert_down`, where they run.

Each function gives None where its kernel does not: on a CPU, unless somebody named it, for several tokens, and for
matrices in another format. The caller then computes as always.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.kernels import expert_down, launch, swiglu_matvec
from qwen_mlx.models.packed import PackedLinear
from qwen_mlx.models.projections import FusedLinear

if TYPE_CHECKING:
    from qwen_mlx.kernels.kernel import Kernel
    from qwen_mlx.models.moe import ExpertLinear


def dense_swiglu(x: mx.array, projection: FusedLinear) -> mx.array | None:
    """`silu(gate x) * (up x)` for x (..., columns) -> (..., rows)."""
    if launch.builder() is None or x.size != x.shape[-1]:
        return None
    if type(projection) is not FusedLinear or len(projection.parts) != 1:  # wrapped by an adapter, or in two formats
        return None
    matrix: Any = projection.parts[0]
    if type(matrix) not in (PackedLinear, nn.QuantizedLinear) or "bias" in matrix:
        return None
    if (matrix.bits, matrix.group_size, matrix.mode) != (4, 64, "affine"):
        return None
    parts: list[Any] = [matrix.weight, matrix.scales, matrix.biases]
    result = _computed(swiglu_matvec.kernel, x.reshape(1, -1), *(part[None] for part in parts), _first())
    return None if result is None else result.reshape(*x.shape[:-1], -1)


def expert_swiglu(x: mx.array, experts: mx.array, matrices: ExpertLinear) -> mx.array | None:
    """The same for the chosen experts: x (1, columns), experts (1, k) -> (k, rows)."""
    return _computed(swiglu_matvec.kernel, x, *_packed(matrices), experts.reshape(-1))


def expert_sum(x: mx.array, experts: mx.array, shares: mx.array, matrices: ExpertLinear) -> mx.array | None:
    """The weighted sum of the experts' last products: x (k, columns), experts and shares (1, k) -> (1, rows)."""
    return _computed(expert_down.kernel, x, *_packed(matrices), experts.reshape(-1), shares.reshape(-1))


def run_for_experts() -> bool:
    """Whether one of the kernels may run at all; quick to tell."""
    return launch.builder() is not None and (swiglu_matvec.kernel.wanted or expert_down.kernel.wanted)


def _computed(kernel: Kernel, *arrays: Any) -> mx.array | None:
    if launch.builder() is None or not kernel.wanted or not kernel.runs(*arrays):
        return None
    return kernel(*arrays)[0]


def _packed(matrices: ExpertLinear) -> tuple[Any, Any, Any]:
    """Weight, scales and biases of matrices in groups of 64 with 4 bits; for others, what no kernel takes."""
    q = matrices.quantization
    if q is None or (q.bits, q.group_size, q.mode) != (4, 64, "affine"):
        return (_first(),) * 3
    return matrices.weight, matrices.scales, matrices.biases


@functools.lru_cache(maxsize=1)
def _first() -> mx.array:
    """The number of the only expert of a dense matrix."""
    zero = mx.zeros((1,), mx.uint32)
    mx.eval(zero)  # so that any thread may use it
    return zero
