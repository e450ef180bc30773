"""A KV cache of 4 or 8 bits a value: one packed record per token and head (`kernels/packed_kv.py`).

Attention never sees it unpacked as a whole: a new token attends straight over the records
(`kernels/quantized_kv_attention`), a prompt over a few heads at a time, unpacked for MLX's own attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from qwen_mlx.errors import UsageError
from qwen_mlx.kernels.packed_kv import PackedKV, pack
from qwen_mlx.kernels.quantized_kv_attention import MAX_QUERIES, quantized_kv_attention
from qwen_mlx.kernels.quantized_kv_dequantize import quantized_kv_dequantize
from qwen_mlx.models.cache import KVCache, TokenCache
from qwen_mlx.models.heads import NewHeads, Rotation

KV_BITS = {"8": (8, 8), "4": (4, 4), "8/4": (8, 4)}  # what a person may ask for -> bits of keys, of values

_ROWS = 512  # queries of a prompt that attend at once
_BYTES = 64 << 20  # of keys and values that are unpacked at once, and of scores where MLX holds them


def parse_kv_bits(text: str) -> tuple[int, int]:
    """Bits of keys and of values. Raises `UsageError` for anything but "8", "4" and "8/4"."""
    if text not in KV_BITS:
        raise UsageError("the KV cache cannot be quantized so", expected=", ".join(KV_BITS), found=text)
    return KV_BITS[text]


class QuantizedKVCache(TokenCache):
    """Keys and values of one layer as records: uint32 (batch, kv_heads, capacity, words)."""

    def __init__(self, layout: PackedKV, window: int | None = None, left_padding: Sequence[int] | None = None) -> None:
        super().__init__(window, left_padding)
        self.layout = layout
        self._first: tuple[tuple[int, int], mx.array] | None = None

    @staticmethod
    def holding(cache: KVCache, bits: int) -> QuantizedKVCache:
        """The tokens of a plain cache, quantized."""
        keys, values = cache.state
        made = QuantizedKVCache(PackedKV(keys.shape[-1], bits, bits), cache.window, cache.left_padding)
        made.prompt, made.reading = cache.prompt, cache.reading
        made.offset = cache.offset
        made.state = (pack(made.layout, keys, values),)
        return made

    @property
    def records(self) -> mx.array | None:
        """The buffer; None before the first token."""
        return self.buffers[0] if self.buffers else None

    def write(self, heads: NewHeads, rotations: Sequence[Rotation]) -> mx.array:
        q, records = heads.packed(rotations, self.layout)
        self._put(records)
        return q

    def append(self, keys: mx.array, values: mx.array) -> None:
        self._put(pack(self.layout, keys, values))

    def attend(self, q: mx.array, scale: float, mask: str | mx.array | None, end: int | None = None) -> mx.array:
        if q.shape[2] <= MAX_QUERIES:
            return self._attend_few(q, scale, end)
        first, last = self._shown if end is None else (0, end - self.start)
        return self._attend_in_tiles(q, scale, mask, first, last)

    def attend_regions(self, q: mx.array, scale: float, borders: tuple[int, int]) -> mx.array:
        options = {"layout": self.layout, "length": self.size(), "scale": scale, "borders": borders}
        return quantized_kv_attention(q, self.buffers[0], self._first_rows(q.shape[0]), **options)[0]

    def block(self, first: int, last: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        return self._unpacked(
            self.buffers[0], (0, self.buffers[0].shape[1]), first - self.start, last - self.start, dtype
        )

    def _attend_few(self, q: mx.array, scale: float, end: int | None) -> mx.array:
        """Straight over the records; window and padding say what is visible, as the mask would."""
        length = self.size() if end is None else end - self.start
        options = {"layout": self.layout, "length": length, "scale": scale, "window": self.window}
        return quantized_kv_attention(q, self.buffers[0], self._first_rows(q.shape[0]), **options)[0]

    def _first_rows(self, batch: int) -> mx.array:
        """int32 (batch,): the row of the buffer with the first real token of each text."""
        if self._first is None or self._first[0] != (batch, self.start):
            rows = [max(pad - self.start, 0) for pad in self.left_padding or [0] * batch]
            self._first = (batch, self.start), mx.array(rows, dtype=mx.int32)
        return self._first[1]

    def _attend_in_tiles(
        self, q: mx.array, scale: float, mask: str | mx.array | None, first: int, last: int
    ) -> mx.array:
        """Rows first to last - 1 of the buffer, some heads and some queries at a time, one tile after the other."""
        batch, heads, length, dims = q.shape
        records = self.buffers[0]
        kv_heads = records.shape[1]
        sharing = heads // kv_heads
        per_head = batch * (last - first) * max(2 * dims * q.itemsize, 4 * sharing * min(length, _ROWS))
        at_once = max(1, min(kv_heads, _BYTES // per_head))
        columns = []
        before: list[mx.array] = []
        for head in range(0, kv_heads, at_once):
            some = min(head + at_once, kv_heads)
            if before:  # else all tiles might be alive at once
                records = mx.depends([records], before)[0]
            keys, values = self._unpacked(records, (head, some), first, last, q.dtype)
            tiles: list[mx.array] = []
            for row in range(0, length, _ROWS):
                stop = min(row + _ROWS, length)
                queries = q[:, head * sharing : some * sharing, row:stop]
                if before:
                    queries = mx.depends([queries], before)[0]
                seen = keys.shape[2] - length + stop if isinstance(mask, str) else keys.shape[2]
                before = [
                    mx.fast.scaled_dot_product_attention(
                        queries, keys[:, :, :seen], values[:, :, :seen], scale=scale, mask=_rows_of(mask, row, stop)
                    )
                ]
                tiles += before
            columns.append(tiles[0] if len(tiles) == 1 else mx.concatenate(tiles, axis=2))
        return columns[0] if len(columns) == 1 else mx.concatenate(columns, axis=1)

    def _unpacked(
        self, records: mx.array, heads: tuple[int, int], first: int, last: int, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array]:
        options = {"layout": self.layout, "heads": heads, "tokens": (first, last), "dtype": dtype}
        keys, values = quantized_kv_dequantize(records, **options)
        return keys, values


def _rows_of(mask: str | mx.array | None, first: int, last: int) -> str | mx.array | None:
    """The part of a mask (..., length, keys) for the queries first to last - 1; "causal" stays what it is."""
    return mask[..., first:last, :] if isinstance(mask, mx.array) else mask
