"""One quantized matrix of a hub folder: its tensors checked against each other, and its rows in MLX's layout.

AWQ and GPTQ store matrices transposed, so a block of our rows is a column of theirs: their codes are read whole (half
a byte a value: 0.1 GB for the largest matrix of a 72B), and unpacked a few columns at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

import mlx.core as mx
import numpy as np

from qwen_mlx.checkpoints.foreign import quote
from qwen_mlx.checkpoints.formats import awq, compressed_tensors, fp8, gptq
from qwen_mlx.checkpoints.formats.foreign_tensor import (
    ForeignTensor,
    PackedRows,
    Rows,
    affine,
    row_ranges,
    widest_group,
)
from qwen_mlx.checkpoints.formats.settings import GroupQuantization
from qwen_mlx.checkpoints.quantizers.packing import pack, unpack
from qwen_mlx.checkpoints.safetensors import MLX_DTYPES, TensorInfo
from qwen_mlx.checkpoints.source import Source
from qwen_mlx.errors import CheckpointError
from qwen_mlx.models.spec import QuantizationSpec

Parts = Mapping[str, TensorInfo]
Reader = Callable[[Source, str, Parts], ForeignTensor]

_FLOATS = ("F16", "BF16", "F32")
_MX_GROUP = 32  # values that share a scale in MLX's mxfp8


# ------------------------------------------------------------------------------------------------------- readers


def awq_reader(settings: GroupQuantization) -> Reader:
    """What reads one matrix of an AWQ model."""

    def read(source: Source, module: str, parts: Parts) -> ForeignTensor:
        qweight, qzeros, scales = (_part(module, parts, name) for name in awq.SUFFIXES)
        inputs, outputs = _two(qweight)[0], _two(qweight)[1] * 8
        group = _group(settings.group, inputs, module)
        _expect(qweight, ("I32", "U32"), (inputs, outputs // 8))
        _expect(qzeros, ("I32", "U32"), (inputs // group, outputs // 8))
        _expect(scales, _FLOATS, (inputs // group, outputs))

        def columns(words: np.ndarray, start: int, stop: int) -> np.ndarray:
            first = start // 8
            codes = awq.unpack_columns(words[:, first : -(-stop // 8)])
            return codes[:, start - first * 8 : stop - first * 8].T

        def zeros() -> np.ndarray:
            return awq.unpack_columns(_whole(source, qzeros)).astype(np.float32)

        matrix = _Transposed(source, qweight, scales, outputs, inputs, settings.bits, group, columns, zeros)
        return matrix.tensor(module, parts, f"AWQ {settings.bits}-bit g{group}", exact={"float32"})

    return read


def gptq_reader(settings: gptq.GPTQSettings) -> Reader:
    """What reads one matrix of a GPTQ model."""
    bits = settings.bits

    def read(source: Source, module: str, parts: Parts) -> ForeignTensor:
        qweight, qzeros, scales = (_part(module, parts, name) for name in gptq.SUFFIXES[:3])
        inputs, outputs = _two(qweight)[0] * 32 // bits, _two(qweight)[1]
        group = _group(settings.group, inputs, module)
        groups = -(-inputs // group)
        _expect(qweight, ("I32", "U32"), (inputs * bits // 32, outputs))
        _expect(qzeros, ("I32", "U32"), (groups, -(-outputs * bits // 32)))
        _expect(scales, _FLOATS, (groups, outputs))
        order = _order(source, parts.get("g_idx"), inputs, group, groups, module)

        def columns(words: np.ndarray, start: int, stop: int) -> np.ndarray:
            return gptq.unpack_columns(words[:, start:stop], bits)

        def zeros() -> np.ndarray:
            found = gptq.zero_points(_whole(source, qzeros), bits, settings.stored_minus_one)[:, :outputs]
            if settings.symmetric and not (found == 1 << bits - 1).all():
                raise _error(module, f"zero points of {1 << bits - 1}, as symmetric weights have", "others")
            return found

        # Where all zero points are 2**(bits - 1) the bias is the scale times a power of two: any type holds it.
        matrix = _Transposed(source, qweight, scales, outputs, inputs, bits, group, columns, zeros, order)
        exact = {"float32", _dtype(scales)} if settings.symmetric else {"float32"}
        title = f"GPTQ {bits}-bit g{group}" + (" with sorted inputs" if order is not None else "")
        return matrix.tensor(module, parts, title, exact=exact)

    return read


def compressed_reader(settings: compressed_tensors.PackedSettings) -> Reader:
    """What reads one matrix of a pack-quantized compressed-tensors model."""
    bits = settings.bits

    def read(source: Source, module: str, parts: Parts) -> ForeignTensor:
        packed, scale = _part(module, parts, "weight_packed"), _part(module, parts, "weight_scale")
        rows, columns = _stored_shape(source, module, parts, packed, bits)
        group = _group(settings.group, columns, module)
        groups = columns // group
        _expect(packed, ("I32", "U32"), (rows, columns * bits // 32))
        _expect(scale, _FLOATS, (rows, groups))
        zero = parts.get("weight_zero_point")
        if settings.symmetric != (zero is None):
            raise _error(module, "zero points exactly when the weights are asymmetric", "the opposite")
        if zero is not None:
            _expect(zero, ("I32", "U32"), (-(-rows * bits // 32), groups))
        order = _order(source, parts.get("weight_g_idx"), columns, group, groups, module)
        width = widest_group(columns, group)

        def blocks(start: int, stop: int) -> Iterator[Rows]:
            points = None if zero is None else compressed_tensors.zero_points(_whole(source, zero), rows, bits)
            for first, last in row_ranges(start, stop, columns):
                words = np.asarray(source.rows(packed.name, first, last)).view(np.uint32)
                scales = _floats(source, scale, first, last)
                middle = np.float32(1 << bits - 1) if points is None else points[first:last]
                own = PackedRows(words, scales, -middle * scales)
                yield _regrouped(own, bits, group, width, columns, order)

        title = f"compressed-tensors {bits}-bit g{group}" + (" with sorted inputs" if order is not None else "")
        exact = {"float32", _dtype(scale)} if zero is None else {"float32"}
        packable = width if order is None else None
        return _tensor(module, (rows, columns), title, parts, blocks, bits, packable, exact)

    return read


def fp8_reader(settings: fp8.FP8Settings) -> Reader:
    """What reads one matrix of an FP8 model with a scale per block."""
    high, wide = settings.block

    def read(source: Source, module: str, parts: Parts) -> ForeignTensor:
        weight, scale = _part(module, parts, "weight"), _part(module, parts, "weight_scale_inv")
        rows, columns = _two(weight)
        _expect(weight, ("F8_E4M3",), (rows, columns))
        _expect(scale, (*_FLOATS, "F8_E8M0"), (-(-rows // high), -(-columns // wide)))
        shared = scale.dtype == "F8_E8M0"  # powers of two: the codes can stay as they are
        fits = shared and columns % _MX_GROUP == 0 and wide % _MX_GROUP == 0

        def blocks(start: int, stop: int) -> Iterator[Rows]:
            raw = _whole(source, scale) if shared else np.empty(0, np.uint8)
            scales = fp8.e8m0(raw) if shared else _floats(source, scale, 0, scale.shape[0])
            for first, last in row_ranges(start, stop, columns):
                codes = np.asarray(source.rows(weight.name, first, last))
                if not fits:
                    yield fp8.decode_rows(codes, scales, first, settings.block)
                    continue
                own = np.repeat(raw[np.arange(first, last) // high], wide // _MX_GROUP, axis=1)
                yield PackedRows(pack(codes, 8), np.ascontiguousarray(own[:, : columns // _MX_GROUP]), None)

        title = f"FP8 in blocks of {high}x{wide}"
        packing = QuantizationSpec(8, _MX_GROUP, "mxfp8") if fits else None
        nbytes = weight.nbytes + scale.nbytes
        exact = frozenset({"float32", "float16", "bfloat16"})
        fallback = affine(columns)
        return ForeignTensor(f"{module}.weight", (rows, columns), title, nbytes, blocks, packing, exact, fallback)

    return read


# ------------------------------------------------------------------------------------------- codes stored transposed


class _Transposed:
    """A matrix whose codes are stored (in, out), with the scale and zero point of each group of inputs."""

    def __init__(
        self,
        source: Source,
        qweight: TensorInfo,
        scales: TensorInfo,
        rows: int,
        columns: int,
        bits: int,
        group: int,
        unpack_columns: Callable[[np.ndarray, int, int], np.ndarray],
        zeros: Callable[[], np.ndarray],
        order: np.ndarray | None = None,
    ) -> None:
        self._source, self._qweight, self._scales = source, qweight, scales
        self._rows, self._columns, self._bits, self._group = rows, columns, bits, group
        self._unpack, self._zeros, self._order = unpack_columns, zeros, order
        self._width = widest_group(columns, group)

    def blocks(self, start: int, stop: int) -> Iterator[Rows]:
        """Rows of the matrix as MLX has it: the columns that the file has."""
        words = _whole(self._source, self._qweight)
        scales = _floats(self._source, self._scales, 0, self._scales.shape[0])
        zeros = self._zeros()
        for first, last in row_ranges(start, stop, self._columns):
            codes = np.ascontiguousarray(self._unpack(words, first, last))
            own = np.ascontiguousarray(scales[:, first:last].T)
            bias = -np.ascontiguousarray(zeros[:, first:last].T) * own
            if self._order is not None or self._width is None:
                yield _decode(codes, own, bias, self._group, self._order)
            else:
                packed = PackedRows(pack(codes, self._bits), own, bias)
                yield _regrouped(packed, self._bits, self._group, self._width, self._columns, None)

    def tensor(self, module: str, parts: Parts, stored: str, exact: set[str]) -> ForeignTensor:
        """This matrix, with all it says about itself."""
        width = self._width if self._order is None else None
        return _tensor(module, (self._rows, self._columns), stored, parts, self.blocks, self._bits, width, exact)


def _tensor(
    module: str,
    shape: tuple[int, int],
    stored: str,
    parts: Parts,
    blocks: Callable[[int, int], Iterator[Rows]],
    bits: int,
    width: int | None,
    exact: set[str],
) -> ForeignTensor:
    packing = None if width is None else QuantizationSpec(bits, width)
    nbytes = sum(part.nbytes for part in parts.values())
    fallback = affine(shape[1])
    return ForeignTensor(f"{module}.weight", shape, stored, nbytes, blocks, packing, frozenset(exact), fallback)


def _regrouped(
    rows: PackedRows, bits: int, group: int, width: int | None, columns: int, order: np.ndarray | None
) -> Rows:
    """The same rows in groups of `width`; as floats where that is None or the inputs are sorted."""
    assert rows.biases is not None
    if width is None or order is not None:
        return _decode(unpack(rows.weight, bits), rows.scales, rows.biases, group, order)
    times = group // width
    if times == 1:
        return rows
    return PackedRows(rows.weight, np.repeat(rows.scales, times, axis=1), np.repeat(rows.biases, times, axis=1))


def _decode(
    codes: np.ndarray, scales: np.ndarray, biases: np.ndarray, group: int, order: np.ndarray | None
) -> np.ndarray:
    """Codes (rows, columns) -> floats; `order` is the group of every column where it is not its place."""
    if order is None:
        order = np.arange(codes.shape[1]) // group
    values = codes * scales[:, order]
    values += biases[:, order]
    return values


# ---------------------------------------------------------------------------------------------------------- checks


def _part(module: str, parts: Parts, name: str) -> TensorInfo:
    if name not in parts:
        raise _error(module, f"a tensor {name}", ", ".join(sorted(parts)))
    return parts[name]


def _two(tensor: TensorInfo) -> tuple[int, int]:
    if len(tensor.shape) != 2 or not prod(tensor.shape):
        raise _error(tensor.name, "two axes that are not empty", str(list(tensor.shape)))
    return tensor.shape[0], tensor.shape[1]


def _expect(tensor: TensorInfo, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
    if tensor.dtype not in dtypes or tensor.shape != shape:
        expected = f"{' or '.join(dtypes)} {list(shape)}, by quantization_config and the other tensors"
        raise _error(tensor.name, expected, f"{tensor.dtype} {list(tensor.shape)}")


def _group(group: int, columns: int, module: str) -> int:
    """The group size in inputs; -1 means all of them."""
    group = columns if group == -1 else group
    if columns % group or columns % 32:
        raise _error(module, f"a number of inputs that groups of {group} and words of 32 bits divide", str(columns))
    return group


def _stored_shape(source: Source, module: str, parts: Parts, packed: TensorInfo, bits: int) -> tuple[int, int]:
    """Rows and columns: as the file says, which has to agree with the codes."""
    rows, columns = _two(packed)[0], _two(packed)[1] * 32 // bits
    if (shape := parts.get("weight_shape")) is not None:
        _expect(shape, ("I64", "I32"), (2,))
        stored = tuple(int(n) for n in np.asarray(source.rows(shape.name)))
        if stored != (rows, columns):
            raise _error(module, f"a weight_shape of {[rows, columns]}, as the codes have", str(list(stored)))
    return rows, columns


def _order(
    source: Source, g_idx: TensorInfo | None, columns: int, group: int, groups: int, module: str
) -> np.ndarray | None:
    """The group of every input where inputs are sorted; None where groups are neighbours."""
    if g_idx is None:
        return None
    _expect(g_idx, ("I32", "I64"), (columns,))
    order = np.asarray(source.rows(g_idx.name)).astype(np.int64)
    if order.min() < 0 or order.max() >= groups:
        raise _error(module, f"groups from 0 to {groups - 1} in g_idx", f"{order.min()} to {order.max()}")
    return None if gptq.is_in_order(order, group) else order


def _error(what: str, expected: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"the tensors of {quote(what)} do not fit each other",
        expected=expected,
        found=found,
        hint="The model may be damaged or made by an unknown program; download it again or take another version.",
    )


# --------------------------------------------------------------------------------------------------------- reading


def _whole(source: Source, tensor: TensorInfo) -> np.ndarray:
    """All of a tensor of integers or bytes."""
    return np.asarray(source.rows(tensor.name))


def _floats(source: Source, tensor: TensorInfo, start: int, stop: int) -> np.ndarray:
    """Some rows of a tensor of floats, as float32.

    Raises:
        CheckpointError: a scale that is no number.
    """
    values = np.asarray(source.rows(tensor.name, start, stop).astype(mx.float32))
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"tensor {quote(tensor.name)} holds NaN or infinity", hint="The file is damaged; download it again."
        )
    return values


def _dtype(tensor: TensorInfo) -> str:
    return str(MLX_DTYPES[tensor.dtype]).removeprefix("mlx.core.")
