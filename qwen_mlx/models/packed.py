"""Products with quantized matrices.

On a GPU MLX's own kernels multiply with packed weights. Its CPU build unpacks every weight anew for every row of the
input, and in half precision it is slow and inaccurate. So from a few rows on, a matrix is unpacked to float32, a
block of it at a time, and multiplied by the BLAS: the same numbers, 20 to 40 times as fast for a long prompt, and
memory for one block more than the packed weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx import device
from qwen_mlx.models.spec import QuantizationSpec

# From this many rows of input on, unpacking pays: it costs as much as three.
UNPACK_FROM = 4
# Weights unpacked at a time: few enough to stay in the cache of the processor until they are used.
_BLOCK = 1 << 20


def unpacks(rows: int) -> bool:
    """Whether a product with `rows` rows of input is faster with unpacked weights here."""
    return rows >= UNPACK_FROM and device.backend() == "cpu" and device.fast_blas()


def multiply(
    x: mx.array, weight: mx.array, scales: mx.array, biases: mx.array | None, form: QuantizationSpec
) -> mx.array:
    """`x @ W.T` with a packed W.

    Args:
        x: (..., columns) of a floating point type.
        weight, scales, biases: of a matrix (rows, columns), as `mx.quantize` packs it.

    Returns:
        (..., rows) in the type of `x`; on a CPU sums are float32 whatever that is.
    """
    unpack = unpacks(x.size // x.shape[-1])
    wide = x
    if device.backend() == "cpu":
        wide = x.astype(mx.float32)
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    if not unpack:
        y = mx.quantized_matmul(
            wide, weight, scales, biases, transpose=True, group_size=form.group_size, bits=form.bits, mode=form.mode
        )
        return y.astype(x.dtype)
    arrays = (wide, weight, scales) if biases is None else (wide, weight, scales, biases)
    return _product(form)(*arrays).astype(x.dtype)


@functools.lru_cache(maxsize=64)
def _product(form: QuantizationSpec) -> Callable[..., mx.array]:
    """`x @ W.T` by blocks of W. Its gradient unpacks them again: kept, they would be all of W in float32."""
    compute: Any = mx.custom_function(functools.partial(_by_blocks, form))

    def vjp(primals: Sequence[mx.array], cotangent: mx.array, _output: mx.array) -> tuple[mx.array, ...]:
        x, weight, *scaling = primals
        total: mx.array | None = None
        for start, block in _blocks(form, x.shape[-1], weight, *scaling):
            plain = block(total)
            part = cotangent[..., start : start + plain.shape[0]] @ plain
            total = part if total is None else total + part
        assert total is not None
        into_scaling = [mx.zeros_like(s) for s in scaling]
        if form.mode == "affine":  # nearly nobody trains scales; what nobody asks for is not computed
            into_scaling = mx.vjp(lambda *s: _by_blocks(form, x, weight, *s), scaling, [cotangent])[1]
        return (total, mx.zeros_like(weight), *into_scaling)

    compute.vjp(vjp)
    return cast("Callable[..., mx.array]", compute)


def _by_blocks(form: QuantizationSpec, x: mx.array, weight: mx.array, *scaling: mx.array) -> mx.array:
    outputs: list[mx.array] = []
    for _, block in _blocks(form, x.shape[-1], weight, *scaling):
        outputs.append(x @ block(outputs[-1] if outputs else None).T)
    return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=-1)


def _blocks(
    form: QuantizationSpec, columns: int, weight: mx.array, scales: mx.array, biases: mx.array | None = None
) -> Iterator[tuple[int, Callable[[mx.array | None], mx.array]]]:
    """The first row of every block, and what unpacks it (to float32) after the array that it is given is there.

    One after the other, or all would be unpacked before the first is used.
    """
    size = max(1, _BLOCK // columns)
    for start in range(0, weight.shape[0], size):
        own = slice(start, start + size)

        def unpack(after: mx.array | None, own: slice = own) -> mx.array:
            codes = weight[own] if after is None else mx.depends(weight[own], after)
            return mx.dequantize(
                codes,
                scales[own],
                None if biases is None else biases[own],
                group_size=form.group_size,
                bits=form.bits,
                mode=form.mode,
                dtype=mx.float32,
            )

        yield start, unpack


class PackedLinear(nn.QuantizedLinear):
    """A quantized linear layer for every backend."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (..., columns) -> (..., rows)."""
        y = multiply(x, self["weight"], self["scales"], self.get("biases"), self._form)
        return y + self["bias"] if "bias" in self else y

    @functools.cached_property
    def _form(self) -> QuantizationSpec:
        return QuantizationSpec(self.bits, self.group_size, self.mode)  # type: ignore[arg-type]


class PackedEmbedding(nn.QuantizedEmbedding):
    """A quantized embedding for every backend."""

    def as_linear(self, x: mx.array) -> mx.array:
        """x (..., dims) -> its product with every row, (..., num_embeddings)."""
        return multiply(x, self["weight"], self["scales"], self.get("biases"), self._form)

    @functools.cached_property
    def _form(self) -> QuantizationSpec:
        return QuantizationSpec(self.bits, self.group_size, self.mode)  # type: ignore[arg-type]
