"""Keys and values of a token as a few bits each: the record that the quantized KV cache holds, and what it means.

A record is the uint32 words of one token and one KV head, side by side, so that one slice update writes all of it:

    key codes | value codes | one word for each group of keys | one word for each group of values

A vector is cut into groups of at most 64 values. The word of a group holds two bfloat16 numbers, scale (low half) and
bias (high half); a code c stands for `scale * c + bias`. The bias is rounded down and the scale up, so that the codes
0 to 2^bits - 1 reach over all values of the group: no value is off by more than half a scale. Codes fill a word from
its low end, as in MLX's quantized matrices.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import mlx.core as mx

from qwen_mlx.errors import UsageError

GROUP = 64  # values that share a scale, at most
_EIGHT = 8  # values decoded together: a group never ends within them


@dataclass(frozen=True)
class PackedKV:
    """The layout of a record.

    Attributes:
        head_dim: values of a key, and of a value; a multiple of 8.
        key_bits, value_bits: 4 or 8.

    Raises:
        UsageError: one of them is something else.
    """

    head_dim: int
    key_bits: int
    value_bits: int

    def __post_init__(self) -> None:
        if self.head_dim % _EIGHT or self.head_dim < _EIGHT:
            raise UsageError(
                "the KV cache of this model cannot be quantized",
                expected="heads whose size is a multiple of 8",
                found=str(self.head_dim),
            )
        for bits in (self.key_bits, self.value_bits):
            if bits not in (4, 8):
                raise UsageError("the KV cache cannot be quantized so", expected="8 or 4 bits", found=str(bits))

    @functools.cached_property
    def group_size(self) -> int:
        """Values of a group: as many as possible up to 64, in whole eights, all groups alike."""
        return max(size for size in range(_EIGHT, GROUP + 1, _EIGHT) if self.head_dim % size == 0)

    @property
    def groups(self) -> int:
        """Groups of a key, and of a value."""
        return self.head_dim // self.group_size

    @property
    def key_words(self) -> int:
        """Words that hold the codes of a key."""
        return self.head_dim * self.key_bits // 32

    @property
    def value_words(self) -> int:
        """Words that hold the codes of a value."""
        return self.head_dim * self.value_bits // 32

    @functools.cached_property
    def words(self) -> int:
        """Words of a record."""
        return self.key_words + self.value_words + 2 * self.groups

    @property
    def nbytes(self) -> int:
        """Bytes of a record: `head_dim * (key_bits + value_bits) / 8 + 8 * groups`."""
        return 4 * self.words


def pack(layout: PackedKV, keys: mx.array, values: mx.array) -> mx.array:
    """keys and values (..., head_dim) of any float type -> records uint32 (..., words), which have no gradient.

    Computed in float32.
    """
    keys, values = mx.stop_gradient(keys), mx.stop_gradient(values)
    key_codes, key_groups = _encode(keys, layout.key_bits, layout.group_size)
    value_codes, value_groups = _encode(values, layout.value_bits, layout.group_size)
    return mx.concatenate([key_codes, value_codes, key_groups, value_groups], axis=-1)


def unpack(layout: PackedKV, records: mx.array, dtype: mx.Dtype = mx.float32) -> tuple[mx.array, mx.array]:
    """records uint32 (..., words) -> keys and values (..., head_dim) in `dtype`, computed in float32."""
    a, b = layout.key_words, layout.key_words + layout.value_words
    keys = _decode(records[..., :a], records[..., b : b + layout.groups], layout.key_bits, layout.group_size)
    values = _decode(records[..., a:b], records[..., b + layout.groups :], layout.value_bits, layout.group_size)
    return keys.astype(dtype), values.astype(dtype)


def times_keys(layout: PackedKV, x: mx.array, records: mx.array) -> mx.array:
    """x float32 (..., rows, head_dim) @ keys.T -> (..., rows, tokens), for records (..., tokens, words).

    As `x @ unpack(...)[0].T`, without the keys: codes are multiplied, and scales and biases join the products. On a
    CPU this takes half the time or less.
    """
    groups, first = layout.groups, layout.key_words + layout.value_words
    scale, bias = _scale_and_bias(records[..., None, :, first : first + groups].swapaxes(-1, -2))
    alone = (x[..., None, :] * _channels_of_groups(layout)).reshape(*x.shape[:-2], -1, layout.head_dim)
    parts = _codes(records[..., : layout.key_words], layout.key_bits)
    products = [alone[..., i :: len(parts)] @ part.astype(mx.float32).swapaxes(-1, -2) for i, part in enumerate(parts)]
    raw = sum(products[1:], products[0]).reshape(*x.shape[:-1], groups, -1)
    sums = x.reshape(*x.shape[:-1], groups, -1).sum(axis=-1, keepdims=True)
    return (raw * scale + sums * bias).sum(axis=-2)


def times_values(layout: PackedKV, weights: mx.array, records: mx.array) -> mx.array:
    """weights float32 (..., rows, tokens) @ values -> (..., rows, head_dim), as `weights @ unpack(...)[1]`."""
    groups, start = layout.groups, layout.key_words
    scale, bias = _scale_and_bias(records[..., start + layout.value_words + groups :].swapaxes(-1, -2))
    scaled = (weights[..., None, :] * scale[..., None, :, :]).reshape(*weights.shape[:-2], -1, weights.shape[-1])
    parts = _codes(records[..., start : start + layout.value_words], layout.value_bits)
    products = [scaled @ part.astype(mx.float32) for part in parts]
    raw = products[0] if len(parts) == 1 else mx.stack(products, axis=-1)
    raw = raw.reshape(*weights.shape[:-1], groups, layout.head_dim)
    own = (raw * _channels_of_groups(layout)).sum(axis=-2)
    return own + mx.repeat(weights @ bias.swapaxes(-1, -2), layout.group_size, axis=-1)


def _channels_of_groups(layout: PackedKV) -> mx.array:
    """float32 (groups, head_dim): one where a channel belongs to a group, else zero."""
    return mx.repeat(mx.eye(layout.groups), layout.group_size, axis=1)


def steps(layout: PackedKV, records: mx.array) -> tuple[mx.array, mx.array]:
    """records uint32 (..., words) -> how far apart neighbouring codes are, of keys and of values: (..., head_dim)."""
    first = layout.key_words + layout.value_words
    pairs = records[..., first : first + layout.groups], records[..., first + layout.groups :]
    keys, values = (mx.repeat(_scale_and_bias(pair)[0], layout.group_size, axis=-1) for pair in pairs)
    return keys, values


def _encode(x: mx.array, bits: int, group_size: int) -> tuple[mx.array, mx.array]:
    """x (..., dims) -> codes (..., dims * bits / 32) and group words (..., dims / group_size), both uint32."""
    x = x.astype(mx.float32)
    groups = x.reshape(*x.shape[:-1], -1, group_size)
    bias = _rounded_down(groups.min(axis=-1, keepdims=True))
    scale = _rounded_up((groups.max(axis=-1, keepdims=True) - bias) / (2**bits - 1))
    steps = mx.where(scale > 0, (groups - bias) / mx.where(scale > 0, scale, 1.0), 0.0)
    codes = mx.clip(mx.round(steps), 0, 2**bits - 1).astype(mx.uint32)
    codes = codes.reshape(*x.shape[:-1], -1, 32 // bits)
    words = mx.left_shift(codes, mx.arange(0, 32, bits, dtype=mx.uint32)).sum(axis=-1)
    pairs = mx.right_shift(scale.view(mx.uint32), 16) | bias.view(mx.uint32)
    return words.astype(mx.uint32), pairs[..., 0]


def _decode(codes: mx.array, pairs: mx.array, bits: int, group_size: int) -> mx.array:
    """The inverse: float32 (..., dims)."""
    parts = _codes(codes, bits)
    numbers = parts[0] if len(parts) == 1 else mx.stack(parts, axis=-1)
    scale, bias = (x[..., None] for x in _scale_and_bias(pairs))
    values = numbers.reshape(*pairs.shape, group_size).astype(mx.float32) * scale + bias
    return values.reshape(*pairs.shape[:-1], pairs.shape[-1] * group_size)


def _codes(words: mx.array, bits: int) -> list[mx.array]:
    """uint8: all codes (..., dims), or those of 4 bits as two arrays (..., dims / 2), of even and of odd channels."""
    octets = mx.contiguous(words).view(mx.uint8)  # by bytes, which costs a CPU half of what shifting words does
    return [octets] if bits == 8 else [octets & 15, octets >> 4]


def _scale_and_bias(pairs: mx.array) -> tuple[mx.array, mx.array]:
    """The two bfloat16 halves of group words, as float32."""
    return mx.left_shift(pairs, 16).view(mx.float32), (pairs & 0xFFFF0000).view(mx.float32)


def _rounded_down(x: mx.array) -> mx.array:
    """float32 -> the bfloat16 number at or below, as float32."""
    bits = x.view(mx.uint32)
    away = mx.where(x < 0, bits + 0xFFFF, bits)  # of a negative number, magnitudes grow
    return (away & 0xFFFF0000).view(mx.float32)


def _rounded_up(x: mx.array) -> mx.array:
    """float32, not negative -> the bfloat16 number at or above, as float32."""
    return ((x.view(mx.uint32) + 0xFFFF) & 0xFFFF0000).view(mx.float32)
