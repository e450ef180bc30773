"""A matrix as a checkpoint stores it, plain or packed, and what can be done with it without changing a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from qwen_mlx.models.packed import PackedEmbedding, PackedLinear
from qwen_mlx.models.spec import QuantizationSpec

# mode -> (group size, bits) of the formats whose scales are 8-bit floats
_FLOAT_MODES = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
_PLACEHOLDER = (128, 128)  # a size every format accepts; the real arrays replace it
AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)


class FormatError(ValueError):
    """The parts of a packed matrix do not fit together; the text says how."""


@dataclass(frozen=True)
class StoredMatrix:
    """One matrix (rows, columns) of a checkpoint.

    Attributes:
        weight: (rows, columns) floats, or uint32 (rows, columns * bits / 32) codes.
        scales, biases: (rows, columns / group_size); biases only in affine mode.
        bias: what a linear layer adds, (rows,).
        quantization: None for plain floats.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    bias: mx.array | None = None
    quantization: QuantizationSpec | None = None

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.weight, self.scales, self.biases, self.bias) if a is not None)

    def cast(self, dtype: mx.Dtype) -> StoredMatrix:
        """Floating point parts in `dtype`; codes and 8-bit scales stay."""

        def to(array: mx.array | None) -> mx.array | None:
            if array is None or not mx.issubdtype(array.dtype, mx.floating):
                return array
            return array.astype(dtype)

        weight = to(self.weight)
        assert weight is not None
        return replace(self, weight=weight, scales=to(self.scales), biases=to(self.biases), bias=to(self.bias))

    def expand(self, dtype: mx.Dtype) -> StoredMatrix:
        """The same numbers as plain floats of `dtype`."""
        q = self.quantization
        if q is None:
            return self.cast(dtype)
        packed = self.cast(dtype)
        assert packed.scales is not None
        weight = mx.dequantize(
            packed.weight, packed.scales, packed.biases, group_size=q.group_size, bits=q.bits, mode=q.mode
        )
        return StoredMatrix(weight.astype(dtype), bias=packed.bias)

    def linear(self) -> Any:
        """A layer that multiplies with this matrix."""
        q = self.quantization
        layer: Any
        if q is None:
            layer = nn.Linear(1, 1, bias=False)
        else:
            layer = PackedLinear(*_PLACEHOLDER, False, q.group_size, q.bits, mode=q.mode)
        self._fill(layer)
        if self.bias is not None:
            layer.bias = self.bias
        return layer

    def embedding(self) -> Any:
        """A layer that looks rows of this matrix up."""
        q = self.quantization
        layer: Any
        if q is None:
            layer = nn.Embedding(1, 1)
        else:
            layer = PackedEmbedding(*_PLACEHOLDER, q.group_size, q.bits, mode=q.mode)
            layer.num_embeddings = self.weight.shape[0]
            layer.dims = self.weight.shape[1] * 32 // q.bits
        self._fill(layer)
        return layer

    def _fill(self, layer: Any) -> None:
        layer.weight = self.weight
        if self.quantization is not None:
            layer.scales, layer.biases = self.scales, self.biases


def stack(matrices: Sequence[StoredMatrix], axis: int = 0) -> StoredMatrix:
    """Matrices over the same input, one above the other. All must be stored alike (`format_key`).

    `axis` is 1 where the first one counts experts.
    """
    if len(matrices) == 1:
        return matrices[0]

    def join(name: str) -> mx.array | None:
        arrays = [getattr(m, name) for m in matrices]
        return None if arrays[0] is None else mx.concatenate(arrays, axis=axis)

    weight = join("weight")
    assert weight is not None
    return StoredMatrix(weight, join("scales"), join("biases"), join("bias"), matrices[0].quantization)


def stack_experts(matrices: Sequence[StoredMatrix]) -> StoredMatrix:
    """One matrix per expert -> one array (experts, rows, columns). All must be stored alike (`format_key`)."""

    def join(name: str) -> mx.array | None:
        arrays = [getattr(m, name) for m in matrices]
        return None if arrays[0] is None else mx.stack(arrays)

    weight = join("weight")
    assert weight is not None
    return StoredMatrix(weight, join("scales"), join("biases"), None, matrices[0].quantization)


def format_key(matrix: StoredMatrix) -> tuple[Any, ...]:
    """Equal for matrices that can be stacked."""
    scales = None if matrix.scales is None else matrix.scales.dtype
    return (matrix.quantization, str(matrix.weight.dtype), str(scales), matrix.bias is None)


class Outline(Protocol):
    """The part of an array that tells how it is packed."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> mx.Dtype: ...


def read_quantization(
    rows: int, columns: int, weight: Outline, scales: Outline, biases: Outline | None, mode: str | None
) -> QuantizationSpec:
    """How a packed matrix of known size is stored.

    The shapes decide: a group size or bit count in `config.json` can be missing or null in files that other programs
    wrote, and cannot say anything else than the shapes do.

    Raises:
        FormatError: no format that MLX computes has these shapes and types.
    """
    if weight.dtype != mx.uint32 or weight.ndim != 2 or scales.ndim != 2:
        raise FormatError(f"codes of type {_name(weight.dtype)} {weight.shape}, expected uint32 in two dimensions")
    if weight.shape[0] != rows or scales.shape[0] != rows:
        raise FormatError(f"{weight.shape[0]} rows of codes and {scales.shape[0]} of scales, expected {rows}")
    bits, rest = divmod(weight.shape[1] * 32, columns)
    groups = scales.shape[1]
    if rest or groups < 1 or columns % groups:
        raise FormatError(f"{weight.shape[1]} words of codes and {groups} scales a row do not fit {columns} columns")
    group_size = columns // groups
    if biases is not None:
        if biases.shape != scales.shape:
            raise FormatError(f"biases {biases.shape} and scales {scales.shape} differ in shape")
        if not mx.issubdtype(scales.dtype, mx.floating) or not mx.issubdtype(biases.dtype, mx.floating):
            raise FormatError(f"scales of type {_name(scales.dtype)} in an affine format")
        if bits not in AFFINE_BITS or group_size not in AFFINE_GROUPS:
            raise FormatError(f"{bits} bits in groups of {group_size}, which MLX does not compute")
        if mode not in (None, "affine"):
            raise FormatError(f"biases, which mode {mode!r} does not have")
        return QuantizationSpec(bits, group_size, "affine")
    for name, (size, width) in _FLOAT_MODES.items():
        if (group_size, bits) == (size, width) and mode in (None, name) and scales.dtype == mx.uint8:
            return QuantizationSpec(bits, group_size, name)  # type: ignore[arg-type]
    raise FormatError(
        f"{bits} bits in groups of {group_size} with {_name(scales.dtype)} scales and no biases"
        + (f" in mode {mode!r}" if mode else "")
        + ", which is no format of MLX"
    )


def _name(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
