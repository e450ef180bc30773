"""What DoRA has to know of a frozen matrix, float or packed: products with its rows, and their lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from qwen_mlx import device
from qwen_mlx.models.moe import ExpertLinear
from qwen_mlx.models.packed import multiply
from qwen_mlx.models.projections import FusedLinear
from qwen_mlx.models.spec import QuantizationSpec

# Numbers unpacked or widened at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop` - 1 of a linear layer, plain or packed."""

    layer: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def bias(self) -> mx.array | None:
        """What the layer adds to these rows."""
        bias = self.layer.get("bias")
        return None if bias is None else self._own(bias)

    def times(self, x: mx.array) -> mx.array:
        """x float32 (..., columns) @ W.T -> float32 (..., rows), without the bias."""
        layer = self.layer
        if "scales" not in layer:
            return x @ self._own(layer.weight).astype(mx.float32).T
        biases = layer.get("biases")
        form = QuantizationSpec(layer.bits, layer.group_size, layer.mode)
        biases = None if biases is None else self._own(biases)
        return multiply(x, self._own(layer.weight), self._own(layer.scales), biases, form)

    def squares(self) -> mx.array:
        """The squared length of every row, float32 (rows,); evaluated."""
        layer = self.layer
        form = None
        if "scales" in layer:
            form = QuantizationSpec(layer.bits, layer.group_size, layer.mode)
        parts = tuple(None if a is None else self._own(a) for a in _arrays(layer))
        return mx.concatenate(list(_squares(parts, form)))

    def _own(self, array: mx.array) -> mx.array:
        return array if (self.start, self.stop) == (0, array.shape[0]) else array[self.start : self.stop]


@dataclass(frozen=True)
class ExpertRows:
    """The matrices of all experts."""

    layer: ExpertLinear

    def times(self, x: mx.array) -> mx.array:
        """x float32 (experts, n, columns), each times the rows of its expert -> float32 (experts, n, rows)."""
        layer, form = self.layer, self.layer.quantization
        if form is not None:
            which = mx.arange(x.shape[0])
            options: Any = {"group_size": form.group_size, "bits": form.bits, "mode": form.mode}
            scales, biases = layer.scales, layer.biases
            if biases is not None:
                scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
            y = mx.gather_qmm(x, layer.weight, scales, biases, rhs_indices=which, transpose=True, **options)
            return y.astype(mx.float32)
        weight = layer.weight
        if device.backend() == "cpu":
            weight = weight.astype(mx.float32)
        # On a GPU in the type of the weights: all experts in float32 would be twice their memory.
        return (x.astype(weight.dtype) @ weight.swapaxes(-1, -2)).astype(mx.float32)

    def squares(self) -> mx.array:
        """The squared length of every row, float32 (experts, rows); evaluated."""
        layer, form = self.layer, self.layer.quantization
        parts = (layer.weight, layer.get("scales"), layer.get("biases"))
        flat = tuple(None if a is None else a.flatten(0, 1) for a in parts)
        return mx.concatenate(list(_squares(flat, form))).reshape(layer.weight.shape[:2])


def rows_of(base: Any, members: Sequence[str]) -> tuple[Rows, ...]:
    """Where the rows of `members` of a stacked projection are; of any other layer, all of its rows."""
    if not isinstance(base, FusedLinear):
        return (Rows(base, 0, base.weight.shape[0]),)
    found: dict[str, Rows] = {}
    for part, group in zip(base.parts, base.grouping):
        start = 0
        for name in group:
            count = base.members[name]
            found[name] = Rows(part, start, start + count)
            start += count
    return tuple(found[name] for name in members)


def _arrays(layer: Any) -> tuple[mx.array, mx.array | None, mx.array | None]:
    return layer.weight, layer.get("scales"), layer.get("biases")


def _squares(parts: Sequence[mx.array | None], form: QuantizationSpec | None) -> Iterator[mx.array]:
    weight = parts[0]
    assert weight is not None
    columns = weight.shape[-1] if form is None else weight.shape[-1] * 32 // form.bits
    step = max(1, _BLOCK // columns)
    for start in range(0, weight.shape[0], step):
        own = [None if a is None else a[start : start + step] for a in parts]
        wide = unpack(own, form)
        total = (wide * wide).sum(axis=-1)
        mx.eval(total)
        yield total


def unpack(parts: Sequence[mx.array | None], form: QuantizationSpec | None) -> mx.array:
    """Weight, scales and biases of some rows as float32."""
    weight, scales, biases = parts
    assert weight is not None
    if form is None:
        return weight.astype(mx.float32)
    assert scales is not None
    if biases is not None:  # exact in float32, which the type of the scales is not
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    options: Any = {"group_size": form.group_size, "bits": form.bits, "mode": form.mode}
    return mx.dequantize(weight, scales, biases, **options).astype(mx.float32)
