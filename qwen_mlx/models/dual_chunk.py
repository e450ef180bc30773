"""Dual Chunk Attention: no query ever meets a key at a distance the model was not trained for.

The text is cut into chunks of `stride` tokens. A query meets the keys of its own chunk at their true distance, those
of the chunk before at a distance that is true near the border and clamped beyond, and all older ones at one constant
distance (ChunkLlama, arXiv:2402.17463; Qwen2.5-1M, arXiv:2501.15383). One softmax runs over all of them. Texts up to
`stride` tokens are plain attention.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import mlx.core as mx

from qwen_mlx.errors import UsageError
from qwen_mlx.models.blockwise import KeyGroup, attend_blockwise
from qwen_mlx.models.cache import Store
from qwen_mlx.models.heads import NewHeads, Rotation
from qwen_mlx.models.positions import Positions, Texts
from qwen_mlx.models.rope import Rope
from qwen_mlx.models.spec import DualChunkSpec

_QUERIES = 512


class DualChunk:
    """Rotation and attention of one layer. A batch has no padding: rows would be cut in different places."""

    def __init__(self, spec: DualChunkSpec, rope: Rope, head_dim: int) -> None:
        self.spec = spec
        self._rope = rope
        self._scale = head_dim**-0.5

    def temperature(self, length: int) -> float:
        """What keys, and queries, are multiplied by in a text of `length` tokens: YaRN's, both together squared."""
        trained = self.spec.original_max_positions
        return max(1.0, 0.1 * math.log(length / trained) + 1.0) if trained else 1.0

    def attend(self, heads: NewHeads, where: Positions, store: Store) -> mx.array:
        """Attention of new tokens over the whole text, which `store` keeps: (batch, heads, length, head_dim)."""
        scale = self._scale * self.temperature(where.reading)
        if where.texts is not None:
            return self._attend_texts(heads, where.texts, store)
        if heads.q.shape[1] == 1:
            return self._attend_next(heads, where, store, scale)
        heads = heads.normed()
        q = heads.q.swapaxes(1, 2)
        store.append(self._rotate_keys(heads.k.swapaxes(1, 2), where), heads.v.swapaxes(1, 2))
        outputs = []
        for a, b in self._segments(where.index, where.index + q.shape[2]):
            part = q[:, :, a - where.index : b - where.index]
            if a < self.spec.stride:
                mask = None if b - a == 1 else "causal"
                outputs.append(store.attend(self._rope.at(part, a), scale, mask, end=b))
                continue
            for start in range(0, b - a, _QUERIES):
                groups = self._groups(part[:, :, start : start + _QUERIES], a + start)
                outputs.append(attend_blockwise(groups, store.block, scale))
                if b - a > _QUERIES:
                    mx.eval(outputs[-1])  # else the blocks of all rows would be alive at once
        return outputs[0] if len(outputs) == 1 else mx.concatenate(outputs, axis=2)

    def _attend_texts(self, heads: NewHeads, texts: Texts, store: Store) -> mx.array:
        """Rows with several texts, all within one chunk: plain attention, every token at its own position."""
        longest = min(self.spec.stride, self.spec.original_max_positions or self.spec.stride)
        length = heads.q.shape[1]
        if length > longest:
            raise UsageError(
                "this model reads long texts with Dual Chunk Attention, which cannot be trained",
                expected=f"rows of at most {longest} tokens",
                found=f"{length}",
                hint="Make the rows shorter.",
            )
        places = texts.positions
        rotation = Rotation(self._rope.periods(), places, places, self._rope.spec.dims)
        return store.attend(store.write(heads, [rotation]), self._scale, None)

    def _attend_next(self, heads: NewHeads, where: Positions, store: Store, scale: float) -> mx.array:
        """The same for one new token: three queries, rotated at once, each with its range of keys."""
        stride, size = self.spec.stride, self.spec.chunk_size
        border = where.index // stride * stride
        place = where.index - border
        far, near = min(2 * stride - 1, size), min(place + stride, size)
        q_offset = _offsets(far, near, place)[None] if border else _offsets(place)
        periods, factor = self._rope.periods(), self.temperature(where.reading)
        rotation = Rotation(periods, q_offset, _offsets(place), self._rope.spec.dims, k_scale=factor)
        q = store.write(heads, [rotation])
        if border == 0:
            return store.attend(q, scale, None)
        return store.attend_regions(q, scale, (border - stride, border))

    def _rotate_keys(self, k: mx.array, where: Positions) -> mx.array:
        """k (batch, kv_heads, length, head_dim) as it enters the cache: rotated by its place in its chunk."""
        parts = [
            self._rope.at(k[:, :, a - where.index : b - where.index], a % self.spec.stride)
            for a, b in self._segments(where.index, where.index + k.shape[2])
        ]
        k = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)
        factor = self.temperature(where.reading)
        return k if factor == 1.0 else k * factor

    def _segments(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The range [first, last) cut at the borders of chunks."""
        stride = self.spec.stride
        while first < last:
            end = min(last, (first // stride + 1) * stride)
            yield first, end
            first = end

    def _groups(self, q: mx.array, first: int) -> list[KeyGroup]:
        """The queries from `first` on, all of one chunk, with what they meet."""
        stride, size = self.spec.stride, self.spec.chunk_size
        border = first // stride * stride
        place = first - border
        rows = q.shape[2]
        groups = [KeyGroup(self._rope.at(q, place), border, first + rows, causal=True)]
        near = min(max(size - stride - place, 0), rows)  # rows whose distance across the border is still true
        before = []
        if near:
            before.append(self._rope.at(q[:, :, :near], place + stride))
        if near < rows:
            before.append(self._rope.all_at(q[:, :, near:], size))
        groups.append(KeyGroup(mx.concatenate(before, axis=2), border - stride, border))
        if border > stride:
            groups.append(KeyGroup(self._rope.all_at(q, min(2 * stride - 1, size)), 0, border - stride))
        return groups


@functools.lru_cache(maxsize=64)
def _offsets(*positions: int) -> mx.array:
    """Positions as an array, made once for all layers."""
    array = mx.array(positions, dtype=mx.int32)
    mx.eval(array)  # so that any thread may use it
    return array
