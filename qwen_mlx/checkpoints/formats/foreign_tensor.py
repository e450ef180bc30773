"""What every foreign format gives: tensors with the names of the hub, whose rows come as MLX packs them or as floats.

This module knows no format. Shapes are (rows, columns), (experts, rows, columns) or (size,); rows are those of the
matrix with all leading axes flattened, and a vector is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from qwen_mlx.checkpoints.quantizers.packing import unpack
from qwen_mlx.models.spec import QuantizationSpec

# Values that are worked on at a time; a block exists in several forms at once, of up to 8 bytes a value.
BLOCK_VALUES = 2 << 20


@dataclass(frozen=True)
class PackedRows:
    """Rows of a matrix in MLX's layout: `value = scale * code + bias` in affine mode.

    Attributes:
        weight: uint32 (rows, columns * bits / 32).
        scales: float32 (rows, groups); uint8 E8M0 in mode mxfp8.
        biases: float32 (rows, groups), or None in mode mxfp8.
    """

    weight: np.ndarray
    scales: np.ndarray
    biases: np.ndarray | None


Rows = PackedRows | np.ndarray


@dataclass(frozen=True)
class ForeignTensor:
    """One tensor of a foreign checkpoint.

    Attributes:
        name: of the tensor it will be, such as "model.layers.0.mlp.down_proj.weight".
        shape: of its values.
        stored: how the file holds it, for people: "Q4_K", "AWQ 4-bit g128", "bfloat16".
        nbytes: in the file, scales and all.
        blocks: called with (start, stop) yields these rows, some at a time: `PackedRows` when there is a packing, else
            float32 (rows, columns).
        packing: the format of MLX that holds its numbers as they are; None for floats.
        exact: types that hold the scales and biases of that format without rounding.
        fallback: the format to quantize to where no format of MLX can hold the numbers and the file is quantized;
            None leaves floats.
    """

    name: str
    shape: tuple[int, ...]
    stored: str
    nbytes: int
    blocks: Callable[[int, int], Iterator[Rows]]
    packing: QuantizationSpec | None = None
    exact: frozenset[str] = frozenset({"float32"})
    fallback: QuantizationSpec | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def rows(self) -> int:
        return prod(self.shape[:-1])

    def floats(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Rows `start` to `stop` (default: all) as numbers, float32 (rows, columns), some at a time."""
        for rows in self.blocks(start, self.rows if stop is None else stop):
            yield dequantize(rows, self.packing) if isinstance(rows, PackedRows) else rows


def dequantize(rows: PackedRows, packing: QuantizationSpec | None) -> np.ndarray:
    """The numbers of packed rows, float32 (rows, columns)."""
    assert packing is not None
    codes = unpack(rows.weight, packing.bits)
    grouped = codes.reshape(codes.shape[0], -1, packing.group_size)
    if packing.mode == "mxfp8":
        from qwen_mlx.checkpoints.formats.fp8 import E4M3, e8m0

        return (E4M3[grouped] * e8m0(rows.scales)[..., None]).reshape(codes.shape)
    assert rows.biases is not None
    values = grouped * rows.scales[..., None]
    values += rows.biases[..., None]
    return values.reshape(codes.shape)


def row_ranges(start: int, stop: int, columns: int, values: int = BLOCK_VALUES) -> Iterable[tuple[int, int]]:
    """Borders of blocks of whole rows with about `values` values each."""
    step = max(1, values // max(columns, 1))
    return ((row, min(row + step, stop)) for row in range(start, stop, step))


def widest_group(columns: int, group: int) -> int | None:
    """The group size of MLX that divides a group of the source; None if there is none.

    A larger group of the source is held exactly by repeating its scale.
    """
    return next((size for size in (128, 64, 32) if group % size == 0 and columns % size == 0), None)


def affine(columns: int, bits: int = 8, group: int = 64) -> QuantizationSpec | None:
    """The affine format to quantize rows of `columns` values to; a smaller group where `group` does not divide them.

    None where no group size does.
    """
    size = next((size for size in (128, 64, 32) if size <= group and columns % size == 0), None)
    return None if size is None else QuantizationSpec(bits, size)
