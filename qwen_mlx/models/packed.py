"""Products with quantized matrices.

On a GPU MLX's own kernels multiply with packed weights. Its CPU build unpacks every weight anew for every row of the
input, and in half precision it is slow and inaccurate. So from a few rows on, a matrix is unpacked to float32, a
block of it at a time, and multiplied by the BLAS: the same numbers, 20 to 40 times as fast for a long prompt, and
memory for one block more than the packed weights.
"""

from __future__ import annotations

import functools

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
    rows = weight.shape[0]
    block = max(1, _BLOCK // x.shape[-1])
    outputs: list[mx.array] = []
    for start in range(0, rows, block):
        own = slice(start, start + block)
        codes = weight[own]
        if outputs:  # one after the other, or all would be unpacked before the first is used
            codes = mx.depends(codes, outputs[-1])
        plain = mx.dequantize(
            codes,
            scales[own],
            None if biases is None else biases[own],
            group_size=form.group_size,
            bits=form.bits,
            mode=form.mode,
            dtype=mx.float32,
        )
        outputs.append(wide @ plain.T)
    y = outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=-1)
    return y.astype(x.dtype)


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
