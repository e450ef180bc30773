"""Foreign tensors -> the tensors of a new checkpoint: what becomes of each, and its blocks on the way.

Numbers that MLX's formats can hold are moved, not computed: codes stay as they are, and scales and biases are exact in
float32, and in 16 bits where the source's own were. Only what no format of MLX can hold is quantized anew.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.formats.bfloat16 import bfloat16_bits
from qwen_mlx.checkpoints.formats.foreign_tensor import ForeignTensor, PackedRows, affine
from qwen_mlx.checkpoints.layout import Output
from qwen_mlx.checkpoints.mlx_names import Matrix, Vector
from qwen_mlx.checkpoints.quantizers.rounding import search
from qwen_mlx.checkpoints.stream import Blocks, Step
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models.spec import QuantizationSpec

Dtype = Literal["float32", "float16", "bfloat16"]
Fate = Literal["exact", "scales rounded", "requantized", "floats", "floats rounded"]

NAMES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# Which floats of the first type are all numbers of the second, too.
_HOLDS = {("float16", "float32"), ("bfloat16", "float32")}
_KEPT = (".A_log",)  # how fast a state decays: always in the type it comes in, as in mlx-lm
_LOOKED_AT = 1 << 20  # values of a tensor that is read to find out whether another type holds them


@dataclass(frozen=True)
class Change:
    """One tensor of the new checkpoint, and what it is made of.

    Attributes:
        name: with its ".weight".
        shape: of its values.
        pieces: where its rows come from: a tensor, and the first and last row of it.
        target: the format it is packed in; None for floats.
        fate: what becomes of its numbers.
        dtype: of the floats, or of scales and biases.
        change: as `mlx_names.Vector` has it.
    """

    name: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[ForeignTensor, int, int], ...]
    target: QuantizationSpec | None
    fate: Fate
    dtype: str
    change: str = ""

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def stored(self) -> str:
        """How the source holds it."""
        return self.pieces[0][0].stored

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def convert(
    found: Sequence[Matrix | Vector],
    tensors: Mapping[str, ForeignTensor],
    dtype: str,
    formats: Mapping[str, QuantizationSpec | None] | None,
) -> list[Change]:
    """What becomes of every tensor.

    Args:
        found: the tensors of the new checkpoint; see `mlx_names.mlx_tensors`.
        tensors: those of the source.
        dtype: of floats, scales and biases.
        formats: of all matrices by their new name, whatever the source has; None leaves it to the source.
    """
    made = [_vector(v, tensors, dtype) if isinstance(v, Vector) else _matrix(v, tensors, dtype) for v in found]
    if formats is not None:
        return [
            _asked(one, formats[item.module], dtype) if isinstance(item, Matrix) else one
            for item, one in zip(found, made)
        ]
    return _paired(made)


def _vector(vector: Vector, tensors: Mapping[str, ForeignTensor], dtype: str) -> Change:
    tensor = tensors[vector.source]
    if vector.own.endswith(_KEPT) and tensor.stored in NAMES:
        dtype = tensor.stored
    fate = _fate_of_floats(tensor, dtype)
    return Change(vector.name, vector.shape, ((tensor, 0, tensor.rows),), None, fate, dtype, vector.change)


def _matrix(matrix: Matrix, tensors: Mapping[str, ForeignTensor], dtype: str) -> Change:
    pieces = tuple((tensors[piece.weight], piece.start, piece.stop) for piece in matrix.pieces)
    first = pieces[0][0]
    target = first.packing
    if any(tensor.packing != target for tensor, _, _ in pieces):
        target = None
    fate: Fate
    if target is not None:
        exact = all(dtype in tensor.exact for tensor, _, _ in pieces)
        fate = "exact" if exact else "scales rounded"
    elif any(tensor.fallback for tensor, _, _ in pieces):
        target = next(tensor.fallback for tensor, _, _ in pieces if tensor.fallback)
        fate = "requantized"
    else:
        fate = _fate_of_floats(first, dtype) if len(pieces) == 1 else "floats rounded"
    return Change(f"{matrix.module}.weight", matrix.shape, pieces, target, fate, dtype)


def _fate_of_floats(tensor: ForeignTensor, dtype: str) -> Fate:
    """Whether the new type holds all numbers: by the types, or for small tensors by looking at them."""
    if tensor.stored == dtype or (tensor.stored, dtype) in _HOLDS:
        return "floats"
    if tensor.size > _LOOKED_AT or dtype == "float32":
        return "floats rounded"
    same = all(np.array_equal(_rounded(values, dtype), values) for values in tensor.floats())
    return "floats" if same else "floats rounded"


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 as `dtype` would give it back."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    return (bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)


def _asked(one: Change, form: QuantizationSpec | None, dtype: str) -> Change:
    """A matrix in the format that is asked for, whatever the source has."""
    if form is not None:
        return replace(one, target=form, fate="requantized")
    if one.target is None:
        return one
    # Of codes and scales of 16 bits, float32 holds all values up to its own rounding.
    return replace(one, target=None, fate="floats" if dtype == "float32" else "floats rounded")


def _paired(made: Sequence[Change]) -> list[Change]:
    """The same, but the gate and up projections of experts in one format: they run as one matrix."""
    by_name = {one.name: one for one in made}
    for one in made:
        if ".switch_mlp.gate_proj." not in one.name:
            continue
        other = by_name[one.name.replace(".gate_proj.", ".up_proj.")]
        if one.target != other.target:
            target = affine(one.shape[-1])
            for each in (one, other):
                fate: Fate = "floats" if target is None else "requantized"
                by_name[each.name] = replace(each, target=target, fate=fate)
    return [by_name[one.name] for one in made]


# ---------------------------------------------------------------------------------------------------------- writing


def step(one: Change) -> Step:
    """The step that writes a tensor, with its scales and biases."""
    kind, form = NAMES[one.dtype], one.target
    if form is None:
        output = Output(one.name, kind, one.shape)
        return Step((output,), lambda: _float_blocks(one), one.name)
    leading, columns = one.shape[:-1], one.shape[-1]
    groups = (*leading, columns // form.group_size)
    weight = Output(f"{one.module}.weight", "U32", (*leading, columns * form.bits // 32))
    if form.mode != "affine":
        outputs: tuple[Output, ...] = (weight, Output(f"{one.module}.scales", "U8", groups))
    else:
        outputs = (weight, *(Output(f"{one.module}.{part}", kind, groups) for part in ("scales", "biases")))
    return Step(outputs, lambda: _packed_blocks(one, form), one.name)


def _float_blocks(one: Change) -> Blocks:
    for tensor, start, stop in one.pieces:
        for values in tensor.floats(start, stop):
            if one.change == "add one":
                values = values + np.float32(1)
            # "channels first" of a convolution (channels, 1, kernel) moves no number: the axis has length 1.
            yield {one.name: as_stored(values, one.dtype, one.name)}


def _packed_blocks(one: Change, form: QuantizationSpec) -> Blocks:
    names = [f"{one.module}.{part}" for part in ("weight", "scales", "biases")]
    if one.fate == "requantized":
        for values in _wide(one):
            if not np.isfinite(values).all():
                raise _not_finite(one.name, "the source")
            packed = search(values, form.bits, form.group_size, NAMES[one.dtype])
            yield dict(zip(names, (packed.weight, packed.scales, packed.biases)))
        return
    for tensor, start, stop in one.pieces:
        for rows in tensor.blocks(start, stop):
            assert isinstance(rows, PackedRows)
            if rows.biases is None:
                yield dict(zip(names, (rows.weight, rows.scales)))
                continue
            scales, biases = (as_stored(part, one.dtype, one.name) for part in (rows.scales, rows.biases))
            yield dict(zip(names, (rows.weight, scales, biases)))


def _wide(one: Change) -> Iterator[np.ndarray]:
    return itertools.chain.from_iterable(tensor.floats(start, stop) for tensor, start, stop in one.pieces)


def as_stored(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """float32 as numpy holds `dtype`; bfloat16 as uint16.

    Raises:
        CheckpointError: a number that is none, or that the type cannot hold.
    """
    if not np.isfinite(values).all():
        raise _not_finite(name, "the source")
    if dtype == "float32":
        return values
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise _not_finite(name, "float16", "Ask for another type: --dtype bfloat16.")
        return half
    return bfloat16_bits(values)


def _not_finite(name: str, where: str, hint: str = "The file is damaged; download it again.") -> CheckpointError:
    return CheckpointError(f"tensor {quote(name)} holds NaN or infinity in {where}", hint=hint)
